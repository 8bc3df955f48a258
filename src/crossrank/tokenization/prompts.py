"""Prompts of decoder rerankers, as data: they turn a query and a document into the text that a decoder judges.

How a prompt is recognised, in this order:

1. A modular sentence-transformers checkpoint (``modules.json``) says itself whether its chat template is used, and
   which tokens are compared. The Qwen3-Reranker and mxbai-rerank-v2 repositories do so since 2026.
2. ``"crossrank_prompt"`` in ``config.json`` names an entry of ``PROMPTS``, for your own model that was trained on a
   published prompt.
3. A bare language model takes the published prompt of the one reranker family with its ``model_type``: ``FAMILIES``.
   The published rerankers say nothing else about themselves: their config is that of the chat model they come from.

A sequence classifier made from a decoder never gets a published prompt: nothing says which prompt it was trained on,
and published ones expect pairs that contain the prompt already, as sentence-transformers does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum


class Slot(Enum):
    """A place in a prompt that a text fills."""

    QUERY = "query"
    DOCUMENT = "document"
    # The tokenizer's token for the beginning of a text; empty if it has none, or uses it for padding.
    BOS = "bos"


QUERY, DOCUMENT, BOS = Slot.QUERY, Slot.DOCUMENT, Slot.BOS
Chunk = tuple["str | Slot", ...]


@dataclass(frozen=True)
class Prompt:
    """A prompt in chunks that are tokenized separately: tokens may merge within a chunk, but not across chunks.

    :param name: Its name in ``"crossrank_prompt"``.
    :param chunks: Query and document are each in exactly one of them.
    :param yes: The token whose logit at the last position means relevant.
    :param no: The token whose logit is subtracted; ``None`` for none.
    :param strip: Whether white space around query and document is dropped.
    """

    name: str
    chunks: tuple[Chunk, ...]
    yes: str = "yes"
    no: str | None = "no"
    strip: bool = False


_QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
_BGE_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)

PROMPTS: Mapping[str, Prompt] = {
    prompt.name: prompt
    for prompt in (
        # The model card of Qwen/Qwen3-Reranker-0.6B; vllm-project/vllm, examples/offline_inference/qwen3_reranker.py.
        # The card tokenizes head, body and tail apart. The body is split here once more, before "<Document>", so that
        # a query is tokenized once; Qwen's pattern has no word that goes on behind a line break, so the ids are equal.
        Prompt(
            "qwen3-reranker",
            (
                (
                    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
                    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
                ),
                (f"<Instruct>: {_QWEN3_INSTRUCTION}\n<Query>: ", QUERY, "\n"),
                ("<Document>: ", DOCUMENT),
                ("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
            ),
        ),
        # mixedbread-ai/mxbai-rerank, mxbai_rerank/mxbai_rerank_v2.py, which tokenizes these chunks apart. Its optional
        # "instruction: ..." line is left out there too unless a caller gives one.
        Prompt(
            "mxbai-rerank-v2",
            (
                (
                    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
                    "<|im_end|>\n<|im_start|>user\n",
                ),
                ("query: ", QUERY),
                ("\n",),
                ("document: ", DOCUMENT),
                ("\n",),
                (_MXBAI_TASK,),
                ("<|im_end|>\n<|im_start|>assistant\n",),
            ),
            yes="1",
            no="0",
        ),
        # FlagOpen/FlagEmbedding, FlagEmbedding/inference/reranker/decoder_only/base.py: the score is the logit of "Yes"
        # alone, and the chunks are tokenized apart.
        Prompt(
            "bge-reranker-v2-gemma",
            ((BOS,), ("A: ", QUERY), ("\n",), ("B: ", DOCUMENT), ("\n",), (_BGE_TASK,)),
            yes="Yes",
            no=None,
        ),
    )
}

FAMILIES: Mapping[str, str] = {"qwen3": "qwen3-reranker", "qwen2": "mxbai-rerank-v2", "gemma": "bge-reranker-v2-gemma"}

# Texts that show whether a template passes its contents on unchanged: quotes, line breaks, markup, an accent and white
# space at both ends.
_MARKS = ("queryx7f3", "documentx9b1")
_ODD = ("  \"a\"\n<b> 'ç' & ", " {c}\n\n\\d\t ")


def chat_prompt(render: Callable[[str, str], str]) -> Prompt | None:
    """Turn a chat template into a prompt, so that it is not rendered for each pair.

    :param render: Turns query and document into the whole text.
    :returns: A prompt of one chunk, as a template's text is tokenized as a whole; ``None`` if the template drops one
        of the texts, repeats it or changes it by more than the white space around it.
    """
    text = render(*_MARKS)
    if any(text.count(mark) != 1 for mark in _MARKS):
        return None
    places = sorted((text.index(mark), mark, slot) for mark, slot in zip(_MARKS, (QUERY, DOCUMENT), strict=True))
    (first, first_mark, first_slot), (second, second_mark, second_slot) = places
    before, between = text[:first], text[first + len(first_mark) : second]
    after = text[second + len(second_mark) :]
    odd = {QUERY: _ODD[0], DOCUMENT: _ODD[1]}
    for strip in (False, True):
        one, two = (odd[slot].strip() if strip else odd[slot] for slot in (first_slot, second_slot))
        if render(*_ODD) == before + one + between + two + after:
            return Prompt("chat template", ((before, first_slot, between, second_slot, after),), strip=strip)
    return None
