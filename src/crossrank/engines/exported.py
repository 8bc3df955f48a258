"""Folders with an exported graph instead of weights: OpenVINO IR or ONNX. The graph is loaded unchanged."""

from __future__ import annotations

from pathlib import Path

from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import Graphs
from crossrank.engines.openvino_engine import shared_core
from crossrank.errors import CheckpointError, InputError, UnsupportedModelError

_PLACES = (("openvino/*.xml", "*.xml"), ("onnx/*.onnx", "*.onnx"))
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def find_exported(folder: Path) -> Path | None:
    """The graph to load if there are no safetensors: IR rather than ONNX, and the shortest name of a kind."""
    if any(folder.glob("model.safetensors*")):
        return None
    # The shortest name: openvino_model.xml, not openvino_model_qint8_quantized.xml; model.onnx, not model_O4.onnx.
    for places in _PLACES:
        if found := [path for place in places for path in folder.glob(place)]:
            return min(found, key=lambda path: (len(str(path)), path))
    return None


def load_exported(path: Path, labels: int, precision: str) -> tuple[Graphs, str]:
    """Read a graph. It includes its head, so there is no separate one, and ``"auto"`` means float32.

    :param path: An ``.xml`` or ``.onnx`` file.
    :param labels: The number of logits according to ``config.json``.
    :param precision: The requested precision.
    :returns: The graph, and the precision to run it in.
    :raises CheckpointError: If the file is damaged, or has another number of logits.
    :raises UnsupportedModelError: If it needs inputs that a pair of texts doesn't have, or returns no logits.
    :raises InputError: If ``precision`` is ``"int8"``, because exported weights can't be converted.
    """
    if precision == "int8":
        raise InputError(
            f"precision='int8' needs model.safetensors, but {path.parent} has only a finished graph, {path.name}, "
            "whose weights can't be converted. Leave precision out, or take a folder with model.safetensors."
        )
    try:
        model = shared_core().read_model(str(path))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} can't be read; it is damaged, or its weights beside it are missing. Download it again. ({error})"
        ) from error
    names = [node.get_any_name() for node in model.inputs]
    if unknown := [name for name in names if name not in _INPUTS]:
        raise UnsupportedModelError(
            f"{path} has the inputs {', '.join(names)}; supported inputs are {', '.join(_INPUTS)}. "
            f"Export it again without {', '.join(unknown)}, or take the model's safetensors."
        )
    outputs = [node for node in model.outputs if "logits" in node.get_names()] or list(model.outputs)
    if len(outputs) != 1 or outputs[0].get_partial_shape().rank != 2:
        raise UnsupportedModelError(
            f"{path} is not a reranker: it gives no output 'logits' of shape [pairs, labels]. "
            "Export it again as a sequence classifier (task text-classification)."
        )
    width = outputs[0].get_partial_shape()[1]
    if width.is_static and width.get_length() != labels:
        raise CheckpointError(
            f"{path} gives {width.get_length()} logits, but config.json beside it has {labels} labels. "
            "Is config.json of the same model?"
        )
    shapes = {node.get_any_name(): node.get_partial_shape() for node in model.inputs}
    fixed = [f"{name} {shape}" for name, shape in shapes.items() if any(size.is_static for size in shape)]
    if fixed:
        # Reshaping doesn't help, because an export for one shape has that shape inside the graph too.
        raise UnsupportedModelError(
            f"{path} was exported for one batch shape only ({', '.join(fixed)}). Export it again with dynamic "
            "axes, or take the model's safetensors."
        )
    if len(model.outputs) > 1:
        model = ov.Model(outputs, model.get_parameters(), "exported")
    return Graphs(model, None), "float32" if precision == "auto" else precision
