"""Write the bundled files: body and head as int8 rows with a scale each, vocabulary, config; see README.md here.

The body's word pieces lose the vocabulary's [unused...] entries, which no text produces, and all ids move up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from crossrank.training.split_bert_torch import SplitBertConfig, SplitHead
from recipes.bundled.train import load_head

# Below this many numbers a tensor stays float32: it would save nothing, and norms and gates matter.
SMALL = 8192
# What the config takes from the bi-encoder's.
OF_THE_BODY = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "max_position_embeddings",
    "type_vocab_size",
    "vocab_size",
)


def int8_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as int8 and one scale for each row; a matrix that was stored so before comes out as it was."""
    # The next float16 upwards, before it is used, so that what is stored is what was divided by.
    exact = np.abs(matrix).max(1) / np.float32(127)
    scale = exact.astype(np.float16)
    scale = np.where((scale < exact) | (scale == 0), np.nextafter(scale, np.float16(np.inf)), scale)
    return np.round(matrix / scale[:, None].astype(np.float32)).astype(np.int8), scale


def stored(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Large matrices as int8 rows, the rest as float32."""
    out: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.size < SMALL:
            out[name] = tensor.astype(np.float32)
            continue
        rows = tensor.reshape(-1, tensor.shape[-1])
        whole, scale = int8_rows(rows)
        out[name], out[f"{name}.scale"] = whole.reshape(tensor.shape), scale
    return out


def body_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The bi-encoder's BERT without its pooler."""
    return {
        f"bert.{name}": tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if not name.startswith("pooler.") and "position_ids" not in name
    }


def head_tensors(config: SplitBertConfig, file: Path | None, word_weight: Path | None) -> dict[str, np.ndarray]:
    """The head of a file, or at its start; the number of its layers is set in ``config``."""
    if file is not None:
        head = load_head(file, config)
    else:
        torch.manual_seed(0)
        head = SplitHead(config)
        if word_weight is not None:
            with torch.no_grad():
                head.word_weight.copy_(torch.from_numpy(np.load(word_weight)))
    return {f"head.{name}": p.detach().numpy() for name, p in head.named_parameters()}


def on_a_line(tensors: dict[str, np.ndarray], scale: float, shift: float) -> dict[str, np.ndarray]:
    """The same model with the logits ``scale * logit + shift``.

    The mix is stored as logarithms; the correction's two last layers and the bias scale.
    """
    out = tensors | {"head.mix": tensors["head.mix"] + np.float32(np.log(scale))}
    for name in ("token_outer.weight", "token_outer.bias", "pair_outer.weight", "pair_outer.bias"):
        out[f"head.{name}"] = tensors[f"head.{name}"] * np.float32(scale)
    out["head.bias"] = tensors["head.bias"] * np.float32(scale) + np.float32(shift)
    return out


def settings_of(config: SplitBertConfig, words: list[str]) -> dict[str, object]:
    """What goes into ``config.json``."""
    config.vocab_size = len(words)
    config.special_token_ids = [words.index("[CLS]"), words.index("[SEP]")]
    config.pad_token_id = words.index("[PAD]")
    config.architectures = ["SplitBertForSequenceClassification"]
    settings = config.to_diff_dict()
    settings.pop("transformers_version", None)
    return settings | {
        "num_hidden_layers": config.num_hidden_layers,
        "head_layers": config.head_layers,
        "head_heads": config.head_heads,
        "head_size": config.head_size,
        "head_intermediate": config.head_intermediate,
        "max_query_length": config.max_query_length,
        "type_vocab_size": config.type_vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
        "id2label": {"0": "relevance"},
        "label2id": {"relevance": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
    }


def run(
    body: Path,
    output: Path,
    *,
    head: Path | None = None,
    word_weight: Path | None = None,
    calibration: Path | None = None,
    float32: bool = False,
) -> None:
    """Write the folder; ``tokenizer_config.json`` comes last."""
    raw = json.loads((body / "config.json").read_text(encoding="utf-8"))
    config = SplitBertConfig(**{key: raw[key] for key in OF_THE_BODY})
    vocabulary = (body / "vocab.txt").read_text(encoding="utf-8").split("\n")
    if vocabulary[-1] == "":
        vocabulary.pop()
    kept = np.array([i for i, word in enumerate(vocabulary) if not word.startswith("[unused")])
    words = [vocabulary[i] for i in kept]
    tensors = body_tensors(body) | head_tensors(config, head, word_weight)
    for name in ("bert.embeddings.word_embeddings.weight", "head.word_weight"):
        tensors[name] = tensors[name][kept]
    if calibration is not None:
        line = json.loads(calibration.read_text(encoding="utf-8"))
        tensors = on_a_line(tensors, line["scale"], line["shift"])

    output.mkdir(parents=True, exist_ok=True)
    files = tensors if float32 else stored(tensors)
    save_file({name: np.ascontiguousarray(t) for name, t in files.items()}, output / "model.safetensors")
    (output / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    settings = settings_of(config, words)
    (output / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (output / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (output / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {size / 1e6:.2f} MB")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--body", type=Path, required=True, help="folder of the bi-encoder (safetensors)")
    parser.add_argument("--head", type=Path, help="a head-*.pt of train.py; without it the head at its start")
    parser.add_argument("--word-weight", type=Path, help="word_weight.npy of prepare.py, for a head at its start")
    parser.add_argument(
        "--calibration", type=Path, help="calibration.json of calibrate.py: scale and shift of the logits"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--float32", action="store_true", help="store everything as float32, to compare with")
    run(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
