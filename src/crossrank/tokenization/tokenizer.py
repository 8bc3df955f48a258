"""The tokenizer's files -> a tokenizers.Tokenizer and the positions of its special tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from crossrank.errors import CheckpointError, UnsupportedModelError


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens around a pair: ``prefix query middle document suffix``.

    :param prefix: Token ids before the query.
    :param middle: Token ids between query and document.
    :param suffix: Token ids after the document.
    :param middle_types: The token types of ``middle``.
    :param query_type: The token type of prefix and query.
    :param document_type: The token type of document and suffix.
    :param pad_id: The token id that fills up a row.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    middle_types: tuple[int, ...]
    query_type: int
    document_type: int
    pad_id: int

    @property
    def specials(self) -> int:
        """The number of special tokens of a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def load_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """Read ``tokenizer.json``, or build the tokenizer of the older files beside it.

    Truncation and padding are switched off once, here: setting them per call on a shared tokenizer is not thread-safe.

    :param vocab_size: Rows of the model's embedding table, if known.
    :raises CheckpointError: If it is missing or damaged, or has more tokens than the model.
    :raises UnsupportedModelError: If there is only a sentencepiece model.
    """
    whole, vocab, merges = folder / "tokenizer.json", folder / "vocab.txt", folder / "merges.txt"
    try:
        if whole.is_file():
            tokenizer = Tokenizer.from_file(str(whole))
        elif vocab.is_file():
            tokenizer = _word_pieces(folder, vocab)
        elif merges.is_file() and (folder / "vocab.json").is_file():
            tokenizer = _byte_pairs(folder)
        elif any(folder.glob("*.model")):
            raise UnsupportedModelError(
                f"{folder} has only a sentencepiece tokenizer. Convert it once: "
                "AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder) writes tokenizer.json."
            )
        else:
            raise CheckpointError(
                f"{folder} has no tokenizer.json. Download the checkpoint again, its tokenizer included."
            )
    except (CheckpointError, UnsupportedModelError):
        raise
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise CheckpointError(
            f"The tokenizer in {folder} can't be read ({error}). Download the checkpoint again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # The size is cheap to ask for, the largest id is not.
    if vocab_size is not None and tokenizer.get_vocab_size() > vocab_size:
        largest = max(tokenizer.get_vocab().values())
        if largest >= vocab_size:
            raise CheckpointError(
                f"The tokenizer in {folder} has token ids up to {largest}, but the model's embedding table has "
                f"{vocab_size} rows (vocab_size in config.json). Take all files from one model."
            )
    return tokenizer


def pair_template(tokenizer: Tokenizer, pad_token_id: int | None) -> PairTemplate:
    """Find the special tokens by encoding a pair, so that no architecture needs its own rule.

    :param pad_token_id: ``pad_token_id`` of ``config.json``; padding is masked, so any valid id works.
    :raises CheckpointError: If the tokenizer can't encode a pair.
    """
    encoding = tokenizer.encode("a", "a")
    ids, types, owners = encoding.ids, encoding.type_ids, encoding.sequence_ids
    if 0 not in owners or 1 not in owners:
        raise CheckpointError(
            "The tokenizer does not encode pairs: its post-processor drops the query or the document."
        )
    query, document = owners.index(0), owners.index(1)
    query_end = len(owners) - owners[::-1].index(0)
    document_end = len(owners) - owners[::-1].index(1)
    return PairTemplate(
        prefix=tuple(ids[:query]),
        middle=tuple(ids[query_end:document]),
        suffix=tuple(ids[document_end:]),
        middle_types=tuple(types[query_end:document]),
        query_type=types[query],
        document_type=types[document],
        pad_id=pad_token_id or 0,
    )


def _word_pieces(folder: Path, vocab: Path) -> Tokenizer:
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    lowercase = bool(settings.get("do_lower_case", True))
    built: Tokenizer = BertWordPieceTokenizer(str(vocab), lowercase=lowercase)._tokenizer
    return built


def _byte_pairs(folder: Path) -> Tokenizer:
    from tokenizers import AddedToken
    from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    built: Tokenizer = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))._tokenizer
    built.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "</s>", "<pad>", "<unk>")])
    built.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True)])
    # Just added, so they have ids.
    end, start = built.token_to_id("</s>") or 0, built.token_to_id("<s>") or 0
    built.post_processor = RobertaProcessing(("</s>", end), ("<s>", start), add_prefix_space=False)
    return built
