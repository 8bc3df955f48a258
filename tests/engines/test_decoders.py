from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from crossrank import CrossEncoder
from crossrank.engines import decoder_loading
from crossrank.engines.load import load_model
from crossrank.errors import CheckpointError, CrossRankWarning, InputError, UnsupportedModelError
from decoder_checkpoints import ODD_PAIRS, edit_json, last_logits, make_decoder

pytestmark = pytest.mark.usefixtures("float32")

PAIRS = [*ODD_PAIRS, *texts.pairs(5)]
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def logits_of(model: CrossEncoder, pairs: list[tuple[str, str]] = PAIRS) -> Any:
    return model.score(pairs).logits[:, 0]


def clean(text: str) -> str:
    """What a tokenizer can be given: lone surrogates have no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


# ---- the published procedures, in words of our own: ids of one pair, and which token is yes, which no ----------------


def qwen3_card(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """Head, body and tail tokenized apart; the body, one string, is cut at its end."""
    head = tokenizer.encode(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        add_special_tokens=False,
    )
    tail = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", add_special_tokens=False)
    body = tokenizer.encode(
        f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {document}", add_special_tokens=False
    )
    return head + body[: max_length - len(head) - len(tail)] + tail


def mxbai_code(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """Every part tokenized apart. Its limit counts query and document only; here it is the whole row's."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    head = ids(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    tail = ids("\n") + ids(task) + ids("<|im_end|>\n<|im_start|>assistant\n")
    both = ids(f"query: {query}") + ids("\n") + ids(f"document: {document}")
    return head + both[: max_length - len(head) - len(tail)] + tail


def flag_code(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """The beginning's token, A, B and the task, each tokenized apart with a line break between."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    task = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing "
        "a prediction of either 'Yes' or 'No'."
    )
    tail = ids("\n") + ids(task)
    both = [tokenizer.bos_token_id, *ids(f"A: {query}"), *ids("\n"), *ids(f"B: {document}")]
    return both[: max_length - len(tail)] + tail


PUBLISHED = {
    "qwen3": (qwen3_card, "qwen", "yes", "no"),
    "qwen2": (mxbai_code, "qwen", "1", "0"),
    "gemma": (flag_code, "gemma", "Yes", None),
}


def published_logits(folder: Path, kind: str, pairs: list[tuple[str, str]], max_length: int) -> Any:
    from transformers import AutoTokenizer

    procedure, _, yes, no = PUBLISHED[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = last_logits(folder, [procedure(tokenizer, clean(q), clean(d), max_length) for q, d in pairs])
    answer = found[:, tokenizer.encode(yes, add_special_tokens=False)[0]]
    return answer if no is None else answer - found[:, tokenizer.encode(no, add_special_tokens=False)[0]]


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    kind = request.param
    return kind, make_decoder(tmp_path_factory.mktemp(kind), kind, tokenizer=PUBLISHED[kind][1])


def test_published_procedures(published: tuple[str, Path]) -> None:
    kind, folder = published
    model = CrossEncoder(folder)
    np.testing.assert_allclose(logits_of(model), published_logits(folder, kind, PAIRS, 2048), atol=1e-4)
    assert model.info()["labels"] == ["LABEL_0"]


def test_ids_are_those_of_the_published_procedures(published: tuple[str, Path]) -> None:
    from transformers import AutoTokenizer

    kind, folder = published
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [*ODD_PAIRS, *texts.pairs(60, queries=20)]
    encoder = load_model(folder, device=None, precision="auto", max_length=None, num_threads=None).encoder
    encoded = encoder.encode(pairs)
    for pair, row in zip(pairs, encoded.inverse, strict=True):
        want = PUBLISHED[kind][0](tokenizer, clean(pair[0]), clean(pair[1]), 2048)
        assert list(encoded.documents[row]) == want, pair


def test_cut_documents_are_as_published(published: tuple[str, Path]) -> None:
    kind, folder = published
    pairs = [("which one?", text) for text in texts.passages() if len(text) > 1500][:4]
    result = CrossEncoder(folder, max_length=400).score(pairs)
    assert result.pairs_cut == len(pairs)
    np.testing.assert_allclose(result.logits[:, 0], published_logits(folder, kind, pairs, 400), atol=1e-4)


def test_what_is_cut_is_reported_and_the_prompt_stays(published: tuple[str, Path]) -> None:
    kind, folder = published
    before = 1 if kind == "gemma" else 20  # tokens that come before the query in any case
    long = " ".join(texts.passages()[:20])
    whole = load_model(folder, device=None, precision="auto", max_length=None, num_threads=None).encoder
    short = load_model(folder, device=None, precision="auto", max_length=400, num_threads=None).encoder
    (empty,) = whole.encode([("", "")]).documents
    for pair in ((long, long), ("short?", long), (long, "short?"), (long, "")):
        full, cut = whole.encode([pair]), short.encode([pair])
        assert cut.lengths[0] == 400 == len(cut.documents[0])
        more = cut.query_cut[0] + cut.document_cut[0] - full.query_cut[0] - full.document_cut[0]
        assert more == full.lengths[0] - 400
        # All tokens of the prompt are there still, and behind the document nothing is missing.
        assert list(cut.documents[0][-20:]) == list(empty[-20:])
        assert list(cut.documents[0][:before]) == list(empty[:before])
    both, document, query = (short.encode([pair]) for pair in ((long, long), ("short?", long), (long, "short?")))
    room = both.query_kept[0] + both.document_kept[0]
    assert both.query_kept[0] == room // 2
    assert document.query_cut[0] == 0 < document.document_cut[0]
    assert query.document_cut[0] == 0 < query.query_cut[0]


def test_a_score_depends_on_its_pair_alone(published: tuple[str, Path]) -> None:
    model = CrossEncoder(published[1])
    together = logits_of(model)
    alone = [logits_of(model, [pair])[0] for pair in PAIRS]
    turned = logits_of(model, PAIRS[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(together, turned, atol=2e-5)


def test_many_threads(published: tuple[str, Path]) -> None:
    model = CrossEncoder(published[1])
    alone = logits_of(model)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: logits_of(model), range(8)):
            np.testing.assert_allclose(found, alone, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("gemma2", {"sliding_window": 16, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0}),
        ("gemma3_text", {"sliding_window": 16, "query_pre_attn_scalar": 8}),
        ("llama", {}),
        ("mistral", {"sliding_window": 16}),
        ("phi3", {"pad_token_id": 0}),
        ("qwen3", {"tie_word_embeddings": True}),
    ],
)
def test_other_decoders_on_a_named_prompt(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    folder = make_decoder(tmp_path, kind, **config)
    edit_json(folder / "config.json", crossrank_prompt="mxbai-rerank-v2")
    np.testing.assert_allclose(
        logits_of(CrossEncoder(folder)), published_logits(folder, "qwen2", PAIRS, 2048), atol=1e-4
    )


def test_without_a_padding_token(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3", pad=False)
    np.testing.assert_allclose(
        logits_of(CrossEncoder(folder)), published_logits(folder, "qwen3", PAIRS, 2048), atol=1e-4
    )


def test_bfloat16_keeps_the_order(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3", hidden_size=64)
    pairs = texts.pairs(24)
    exact, rounded = (logits_of(CrossEncoder(folder, precision=p), pairs) for p in ("float32", "bfloat16"))
    assert np.corrcoef(exact, rounded)[0, 1] > 0.99
    # The head is in float32: logits rounded to bfloat16 would have at most 8 bits.
    assert not np.array_equal(rounded, (rounded.view(np.uint32) & 0xFFFF0000).view(np.float32))


def test_reads_at_most_8192_tokens_unless_asked(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3", length=32768)
    assert CrossEncoder(folder).max_length == decoder_loading.DEFAULT_LENGTH == 8192
    assert CrossEncoder(folder, max_length=20000).max_length == 20000
    with pytest.warns(CrossRankWarning, match="32768"):
        assert CrossEncoder(folder, max_length=40000).max_length == 32768


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_language_model_without_a_known_prompt(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'llama' language model.*LogitScore.*crossrank_prompt.*qwen3"):
        CrossEncoder(make_decoder(tmp_path, "llama")).load()


def test_an_unknown_prompt(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "llama")
    edit_json(folder / "config.json", crossrank_prompt="mine")
    with pytest.raises(CheckpointError, match=r"'mine'\. Known prompts: qwen3-reranker, mxbai"):
        CrossEncoder(folder).load()


def test_a_decoder_without_a_head(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"Qwen3Model.*ForCausalLM or ForSequenceClassification"):
        CrossEncoder(make_decoder(tmp_path, "qwen3", head="")).load()


def test_a_head_without_weights(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3", head="")
    edit_json(folder / "config.json", architectures=["Qwen3ForSequenceClassification"])
    with pytest.raises(CheckpointError, match=r"lack score\.weight"):
        CrossEncoder(folder).load()


def test_an_answer_of_several_tokens(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3")
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match="3 tokens of the answer 'yes'"):
        CrossEncoder(folder).load()


def test_too_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"max_length=20 is too short.*takes \d+ tokens"):
        CrossEncoder(make_decoder(tmp_path, "qwen3"), max_length=20).load()


def test_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'int8'.*'float32' or 'bfloat16'"):
        CrossEncoder(make_decoder(tmp_path, "qwen3"), precision="int8").load()
