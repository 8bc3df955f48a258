"""Classes of other frameworks that load sentence-transformers' CrossEncoder themselves, with ours in its place."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported

import numpy as np
import pytest
import sentence_transformers
from haystack import Document as HaystackDocument
from haystack.components.evaluators import sas_evaluator
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_community.cross_encoders import HuggingFaceCrossEncoder
from langchain_core.documents import Document
from llama_index.core.postprocessor.sbert_rerank import SentenceTransformerRerank
from llama_index.core.schema import NodeWithScore, TextNode

from crossrank import CrossEncoder

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
QUERY = "how do I undo a commit"
TEXTS = [
    "The museum is open on Sundays.",
    "To undo a commit, run git revert with its hash.",
    "A commit records a snapshot.",
    "Bake it for an hour.",
]


@pytest.fixture
def expected(tiny_bert: Path) -> list[tuple[str, float]]:
    """Texts and scores, best first, by sentence-transformers itself."""
    rows = sentence_transformers.CrossEncoder(str(tiny_bert), device="cpu").rank(QUERY, TEXTS, return_documents=True)
    return [(row["text"], row["score"]) for row in rows]


@pytest.fixture
def ours(expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of docs/integrations.md."""
    monkeypatch.setenv("CROSSRANK_PRECISION", "float32")
    monkeypatch.setattr(sentence_transformers, "CrossEncoder", CrossEncoder)


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    return [text for text, _ in found] == [text for text, _ in expected] and np.allclose(
        [score for _, score in found], [score for _, score in expected], atol=1e-5
    )


def test_langchain(ours: None, expected: list[tuple[str, float]], tiny_bert: Path) -> None:
    model = HuggingFaceCrossEncoder(model_name=str(tiny_bert), model_kwargs={"device": "cpu"})
    assert isinstance(model.client, CrossEncoder)
    scores = model.score([(QUERY, text) for text in TEXTS])
    assert same(sorted(zip(TEXTS, scores, strict=True), key=lambda pair: -pair[1]), expected)
    found = CrossEncoderReranker(model=model, top_n=3).compress_documents([Document(text) for text in TEXTS], QUERY)
    assert [document.page_content for document in found] == [text for text, _ in expected[:3]]


def test_llama_index(ours: None, expected: list[tuple[str, float]], tiny_bert: Path) -> None:
    # It passes max_length=512 whatever the model, and trust_remote_code=True.
    reranker = SentenceTransformerRerank(model=str(tiny_bert), top_n=3, device="cpu")
    assert isinstance(reranker._model, CrossEncoder)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert same([(one.node.get_content(), one.score) for one in found], expected[:3])


def test_haystack(
    ours: None, expected: list[tuple[str, float]], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from haystack_integrations.components.rankers import sentence_transformers as rankers

    # Like a user who changes sentence_transformers first; here another test may have imported Haystack's ranker.
    monkeypatch.setattr(rankers.sentence_transformers_similarity, "CrossEncoder", CrossEncoder)
    documents = [HaystackDocument(content=text) for text in TEXTS]
    ranker = rankers.SentenceTransformersSimilarityRanker(model=str(tiny_bert), top_k=3)
    ranker.warm_up()
    assert isinstance(ranker._cross_encoder, CrossEncoder)
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    assert same([(document.content, document.score) for document in found], expected[:3])


def test_haystacks_evaluator(
    ours: None, expected: list[tuple[str, float]], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sas_evaluator, "CrossEncoder", CrossEncoder)
    evaluator = sas_evaluator.SASEvaluator(model=str(tiny_bert))
    found = evaluator.run(ground_truth_answers=TEXTS, predicted_answers=[QUERY] * len(TEXTS))
    assert found["individual_scores"] == pytest.approx([dict(expected)[text] for text in TEXTS], abs=1e-5)


def test_mtebs_call(ours: None, expected: list[tuple[str, float]], tiny_bert: Path) -> None:
    # mteb 2.26 needs Python 3.11 and 300 MB, so these are the lines of its CrossEncoderWrapper:
    #   self.model = CrossEncoder(model, revision=revision, device=device, **kwargs)
    #   root = model if isinstance(model, torch.nn.Module) else getattr(model, "model", None)
    #   np.asarray(self.model.predict(list(zip(queries, documents, strict=True)), show_progress_bar=False, **kwargs))
    model = sentence_transformers.CrossEncoder(str(tiny_bert), revision=None, device=None)
    assert getattr(model, "model", None) is None
    pairs = list(zip([QUERY] * len(TEXTS), TEXTS, strict=True))
    scores = np.asarray(model.predict(pairs, show_progress_bar=False, batch_size=32))
    assert same(sorted(zip(TEXTS, scores, strict=True), key=lambda pair: -pair[1]), expected)


def test_evaluators_of_sentence_transformers(tiny_bert: Path) -> None:
    from sentence_transformers.cross_encoder.evaluation import (
        CrossEncoderCorrelationEvaluator,
        CrossEncoderRerankingEvaluator,
    )

    pairs = [(QUERY, text) for text in TEXTS]
    correlation = CrossEncoderCorrelationEvaluator(pairs, [0.0, 1.0, 0.5, 0.1], name="pairs")
    sample = {"query": QUERY, "positive": TEXTS[1:2], "negative": [TEXTS[0], *TEXTS[2:]]}
    reranking = CrossEncoderRerankingEvaluator([sample], name="lists")
    theirs = sentence_transformers.CrossEncoder(str(tiny_bert), device="cpu")
    for evaluator in (correlation, reranking):
        found, wanted = (evaluator(model) for model in (CrossEncoder(tiny_bert, precision="float32"), theirs))
        assert found == pytest.approx(wanted, abs=1e-5)


def test_rerankers(expected: list[tuple[str, float]], tiny_bert: Path) -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "class CrossRank(" in block]
    exec(block, names)
    ranker = names["CrossRank"](tiny_bert, precision="float32")
    found = ranker.rank(QUERY, TEXTS, doc_ids=list("abcd"))
    assert same([(one.text, one.score) for one in found], expected)
    assert [one.doc_id for one in found.top_k(1)] == ["abcd"[TEXTS.index(expected[0][0])]]
    assert ranker.score(QUERY, TEXTS[0]) == pytest.approx(dict(expected)[TEXTS[0]], abs=1e-5)
