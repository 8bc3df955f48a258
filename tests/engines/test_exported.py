"""Folders that hold a finished graph, ONNX or OpenVINO's IR, and no weights."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from checkpoints import edit_config, make_checkpoint
from crossrank import CheckpointError, CrossEncoder, InputError, UnsupportedModelError
from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import ints, opset
from crossrank.engines.exported import find_exported

pytestmark = pytest.mark.usefixtures("float32")

PAIRS = [(query, passage[:400]) for query, passage in texts.pairs(9)]
NAMES = ["input_ids", "attention_mask", "token_type_ids"]


def export(source: Path, target: Path, *, dynamic: bool = True, outputs: tuple[str, ...] = ("logits",)) -> None:
    """What optimum writes: names for inputs and outputs, axes for pairs and tokens."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Positional(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            given = dict(zip(names, values, strict=True))
            result = self.model(**given, output_hidden_states=True)
            found = {"logits": result.logits, "last_hidden_state": result.hidden_states[-1]}
            return tuple(found[name] for name in outputs)

    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    names = NAMES[: 2 if model.config.model_type == "distilbert" else 3]
    ids = torch.randint(1000, 2000, (2, 12))
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Positional(model),
            (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(names)],
            str(target),
            input_names=names,
            output_names=list(outputs),
            dynamic_axes={name: {0: "pairs", 1: "tokens"} for name in names} if dynamic else None,
            dynamo=False,
        )


def without_weights(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def onnx_folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = without_weights(tiny_bert, tmp_path_factory.mktemp("onnx") / "model")
    export(tiny_bert, folder / "onnx" / "model.onnx")
    return folder


def to_ir(onnx: Path, xml: Path) -> None:
    xml.parent.mkdir(parents=True, exist_ok=True)
    ov.serialize(ov.Core().read_model(str(onnx)), str(xml))


def test_onnx_gives_the_scores_of_the_weights(onnx_folder: Path, tiny_bert: Path) -> None:
    model = CrossEncoder(onnx_folder)
    expected = CrossEncoder(tiny_bert, precision="float32").score(PAIRS).logits
    np.testing.assert_allclose(model.score(PAIRS).logits, expected, atol=1e-4)
    assert model.info()["precision"] == "float32"  # its head is inside, so nothing faster unless asked for


@pytest.mark.parametrize("place", ["openvino_model.xml", "openvino/openvino_model.xml"])
def test_ir_gives_the_scores_of_the_weights(place: str, onnx_folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert, tmp_path / "model")
    to_ir(onnx_folder / "onnx" / "model.onnx", folder / place)
    expected = CrossEncoder(tiny_bert, precision="float32").score(PAIRS).logits
    np.testing.assert_allclose(CrossEncoder(folder).score(PAIRS).logits, expected, atol=1e-4)


def test_a_model_without_token_types_and_with_other_outputs(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", "distilbert", num_labels=3)
    folder = without_weights(source, tmp_path / "model")
    export(source, folder / "model.onnx", outputs=("last_hidden_state", "logits"))
    expected = CrossEncoder(source, precision="float32").score(PAIRS).logits
    got = CrossEncoder(folder).score(PAIRS).logits
    assert got.shape == (len(PAIRS), 3)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_bfloat16_where_asked_for(onnx_folder: Path) -> None:
    model = CrossEncoder(onnx_folder, precision="bfloat16")
    exact = CrossEncoder(onnx_folder).score(PAIRS).logits
    assert model.info()["precision"] == "bfloat16"
    np.testing.assert_allclose(model.score(PAIRS).logits, exact, atol=0.3)


def test_int8_is_refused(onnx_folder: Path) -> None:
    with pytest.raises(InputError, match=r"precision='int8' needs model\.safetensors"):
        CrossEncoder(onnx_folder, precision="int8").load()


def test_what_is_taken_of_several(tmp_path: Path) -> None:
    for name in ("onnx/model.onnx", "onnx/model_O4.onnx", "openvino/openvino_model_qint8_quantized.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_exported(tmp_path) == tmp_path / "openvino" / "openvino_model_qint8_quantized.xml"
    (tmp_path / "openvino" / "openvino_model.xml").touch()
    assert find_exported(tmp_path) == tmp_path / "openvino" / "openvino_model.xml"
    (tmp_path / "model.safetensors").touch()
    assert find_exported(tmp_path) is None


def test_a_graph_for_one_shape_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert, tmp_path / "model")
    export(tiny_bert, folder / "model.onnx", dynamic=False)
    with pytest.raises(UnsupportedModelError, match=r"one batch shape only \(input_ids \[2,12\]"):
        CrossEncoder(folder).load()


def test_a_graph_without_logits_is_no_reranker(tiny_bert: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert, tmp_path / "model")
    export(tiny_bert, folder / "model.onnx", outputs=("last_hidden_state",))
    with pytest.raises(UnsupportedModelError, match="not a reranker"):
        CrossEncoder(folder).load()


def test_another_number_of_labels_than_in_the_config(onnx_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(onnx_folder, folder)
    edit_config(folder, id2label={"0": "no", "1": "yes"})
    with pytest.raises(CheckpointError, match=r"1 logits, but config\.json beside it has 2 labels"):
        CrossEncoder(folder).load()


@pytest.mark.parametrize("name", ["model.onnx", "openvino_model.xml"])
def test_a_damaged_file_is_named(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert, tmp_path / "model")
    (folder / name).write_bytes(b"\x08\x07not a graph")
    with pytest.raises(CheckpointError, match=f"{name} can't be read"):
        CrossEncoder(folder).load()


def test_an_unknown_input_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert, tmp_path / "model")
    opset = __import__("openvino.opset13", fromlist=["opset13"])
    node = opset.parameter([-1, -1], np.int64, name="pixel_values")
    node.output(0).set_names({"pixel_values"})
    ov.serialize(ov.Model([opset.convert(node, np.float32)], [node], "odd"), str(folder / "openvino_model.xml"))
    with pytest.raises(UnsupportedModelError, match="pixel_values"):
        CrossEncoder(folder).load()


def test_more_logits_than_labels_are_refused(tmp_path: Path) -> None:
    """A graph whose number of labels is not fixed says only when it runs how many logits it gives."""
    source = make_checkpoint(tmp_path / "source", "bert", num_labels=1)
    folder = without_weights(source, tmp_path / "model")
    export(source, folder / "model.onnx")
    model = ov.Core().read_model(str(folder / "model.onnx"))
    logits = model.outputs[0].get_node().input_value(0)
    rows = opset.unsqueeze(opset.gather(opset.shape_of(logits), ints(0), ints(0)), ints(0))
    rows = opset.reshape(rows, ints(1), False)
    # As wide as the batch is high, which is not known before it runs.
    wide = opset.broadcast(logits, opset.concat([rows, rows], 0))
    wide.output(0).set_names({"logits"})
    ov.save_model(ov.Model([wide], model.get_parameters(), "wide"), str(folder / "model.xml"))
    (folder / "model.onnx").unlink()
    edit_config(folder, id2label={"0": "no", "1": "yes"})
    with pytest.raises(CheckpointError, match=r"logits of shape \(3, 3\) for 3 pairs, but config.json has 2 labels"):
        CrossEncoder(folder).predict(PAIRS[:3])
