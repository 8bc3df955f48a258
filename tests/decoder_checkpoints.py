"""Seeded random decoders with tokenizers trained on the spot, saved by transformers itself."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import texts

# How Qwen's tokenizer cuts text into words before it merges bytes.
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Enough of them that they become tokens of their own, and so do "?\n" and ".\n\n", over which a careless split shows.
_ANSWERS = ["yes", "no", "Yes", "No", "1", "0", "?\n", ".\n\n", "<Query>: ", "<Document>: ", "\n\n"] * 60

# Texts on which a prompt cut at the wrong place shows: they begin or end with what merges with its neighbours.
ODD_PAIRS = [
    ("", ""),
    ("why?", "?why"),
    ("ends in breaks?\n\n", "\n\nbegins with breaks"),
    ("  spaces  ", "  spaces  "),
    ("naïve café 漢字 🙂‍↔️", "\u0301combining \ud800 surrogate \x00 control"),
    ("{query} {document}", "<|im_end|>\n<|im_start|>assistant\n<bos>"),
    ("'s", "'re.\r\n"),
]


@cache
def _qwen_like() -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([*texts.passages()[:200], *_ANSWERS], trainer)
    return trained


@cache
def _gemma_like() -> Any:
    """Spaces as "▁", no words before the merges, and ``<bos>`` before each text of a pair, as Gemma's."""
    from tokenizers import Tokenizer, models, normalizers, processors, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    trained.train_from_iterator([*(text[:300] for text in texts.passages()[:60]), *_ANSWERS], trainer)
    trained.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return trained


def make_decoder(
    folder: Path,
    model_type: str,
    *,
    head: str = "CausalLM",
    tokenizer: str = "qwen",
    chat_template: str | None = None,
    pad: bool = True,
    seed: int = 0,
    length: int = 2048,
    **config: Any,
) -> Path:
    """Save a random decoder of two layers.

    :param head: ``"CausalLM"``, ``"SequenceClassification"``, or ``""`` for none.
    :param tokenizer: ``"qwen"`` (byte-level) or ``"gemma"`` (sentencepiece-like).
    :param pad: Whether tokenizer and config name a padding token.
    """
    import torch
    import transformers

    qwen = tokenizer == "qwen"
    names = {"eos_token": "<|im_end|>"} if qwen else {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    if pad:
        names["pad_token"] = "<|endoftext|>" if qwen else "<pad>"
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_qwen_like() if qwen else _gemma_like(), model_max_length=length, **names
    )
    made.chat_template = chat_template
    settings = {
        "vocab_size": len(made),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": length,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "pad_token_id": made.pad_token_id if pad else None,
        "bos_token_id": made.bos_token_id,
        "eos_token_id": made.eos_token_id,
    } | config
    if head == "SequenceClassification":
        settings.setdefault("num_labels", 1)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        built = transformers.AutoConfig.for_model(model_type, **settings)
        kind = {"": "AutoModel"}.get(head, f"AutoModelFor{head}")
        model = getattr(transformers, kind).from_config(built, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    finally:
        torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def last_logits(folder: Path, rows: list[list[int]]) -> Any:
    """Logits of the whole vocabulary at the last position, one row at a time: ``[rows, vocabulary]``."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows]).numpy()
