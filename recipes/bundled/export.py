"""Write the files in the box: body and head as int8 rows with a scale each, vocabulary, config; see README.md here.

The body's word pieces lose the vocabulary's [unused...] entries, which no text produces, and all ids move up.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from crossrank.training.split_bert import SplitBertConfig, SplitHead

# Below this many numbers a tensor stays float32: it would save nothing, and norms and gates matter.
SMALL = 8192


def int8_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as int8 and one scale for each row."""
    # Rounded up to a float16 before it is used, so that what is stored is what was divided by.
    scale = np.nextafter((np.abs(matrix).max(1) / 127).astype(np.float16), np.float16(np.inf))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--body", type=Path, required=True, help="folder of the bi-encoder (safetensors)")
    parser.add_argument("--head", type=Path, help="a head-*.pt of train.py; without it the head at its start")
    parser.add_argument("--word-weight", type=Path, help="word_weight.npy of prepare.py, for a head at its start")
    parser.add_argument("--calibration", type=Path, help="calibration.json of evaluate.py: scale and shift of the logits")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--float32", action="store_true", help="store everything as float32, to compare with")
    args = parser.parse_args()

    raw = json.loads((args.body / "config.json").read_text(encoding="utf-8"))
    vocabulary = (args.body / "vocab.txt").read_text(encoding="utf-8").split("\n")
    if vocabulary[-1] == "":
        vocabulary.pop()
    kept = np.array([i for i, word in enumerate(vocabulary) if not word.startswith("[unused")])
    words = [vocabulary[i] for i in kept]
    config = SplitBertConfig(
        **{
            key: raw[key]
            for key in (
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
                "hidden_act",
                "layer_norm_eps",
                "max_position_embeddings",
                "type_vocab_size",
            )
        },
        vocab_size=raw["vocab_size"],
    )
    head = SplitHead(config)
    if args.head is not None:
        layers = 1 + max(int(name.split(".")[1]) for name in torch.load(args.head, weights_only=True) if name.startswith("layer."))
        config.head_layers = layers
        head = SplitHead(config)
        head.load_state_dict(torch.load(args.head, weights_only=True))
    elif args.word_weight is not None:
        with torch.no_grad():
            head.word_weight.copy_(torch.from_numpy(np.load(args.word_weight)))

    body = {
        f"bert.{name}": tensor
        for name, tensor in load_file(args.body / "model.safetensors").items()
        if not name.startswith("pooler.") and "position_ids" not in name
    }
    tensors = body | {f"head.{name}": p.detach().numpy() for name, p in head.named_parameters()}
    for name in ("bert.embeddings.word_embeddings.weight", "head.word_weight"):
        tensors[name] = tensors[name][kept]
    if args.calibration is not None:
        # A line through the logits: the mix is stored as logarithms, the correction's two last layers and the bias scale.
        line = json.loads(args.calibration.read_text(encoding="utf-8"))
        scale, shift = line["scale"], line["shift"]
        tensors["head.mix"] = tensors["head.mix"] + np.log(scale)
        for name in ("token_outer", "pair_outer"):
            for part in ("weight", "bias"):
                tensors[f"head.{name}.{part}"] = tensors[f"head.{name}.{part}"] * scale
        tensors["head.bias"] = tensors["head.bias"] * scale + shift

    args.output.mkdir(parents=True, exist_ok=True)
    files = tensors if args.float32 else stored(tensors)
    save_file({name: np.ascontiguousarray(t) for name, t in files.items()}, args.output / "model.safetensors")
    config.vocab_size = len(words)
    config.special_token_ids = [words.index("[CLS]"), words.index("[SEP]")]
    config.pad_token_id = words.index("[PAD]")
    config.architectures = ["SplitBertForSequenceClassification"]
    settings = config.to_diff_dict()
    settings.pop("transformers_version", None)
    settings |= {
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
    (args.output / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (args.output / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (args.output / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(f"{args.output}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
