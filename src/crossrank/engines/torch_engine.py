"""PyTorch: classifiers on GPUs, and decoder rerankers on any device. The only place that imports torch or transformers.

It is imported only when a model needs it, so that the core runs without either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint.modules import Dense
from crossrank.checkpoint.weights import load_weights
from crossrank.engines.threads import available_threads
from crossrank.errors import CheckpointError, CrossRankError, InputError, UnsupportedModelError
from crossrank.optional import require
from crossrank.tokenization.batching import GPU_TOKEN_BUDGET, TOKEN_BUDGET, Batch

_PURPOSE = "The torch engine (GPUs, and decoder rerankers on any device)"
torch: Any = require("torch", extra="torch", purpose=_PURPOSE)
transformers: Any = require("transformers", extra="torch", purpose=_PURPOSE)

Head = Callable[[Any], Any]

_NUMBER = re.compile(r"\.\d+\.")
_DTYPES: Mapping[str, Any] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


_forked = False


def _after_fork_in_child() -> None:
    """Compute with one thread: a child process has no other OpenMP threads, and would wait for them forever."""
    global _forked
    _forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class _OnDevice:
    """Checked device, precision and threads, and the transfer of batches to the device and back."""

    def __init__(self, device: str, precision: str, num_threads: int | None) -> None:
        self.device = _check_device(device)
        self.precision = _check_precision(precision, self.device)
        self.token_budget = TOKEN_BUDGET if self.device.type == "cpu" else GPU_TOKEN_BUDGET
        threads = 1 if _forked else available_threads(num_threads)
        if self.device.type == "cpu" and threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What it runs with."""
        return {
            "engine": "torch",
            "device": str(self.device),
            "precision": self.precision,
            "threads": torch.get_num_threads(),
        }

    def _run(self, forward: Callable[[Mapping[str, Any]], Any], batch: Batch) -> NDArray[np.float32]:
        try:
            with torch.inference_mode():
                inputs = {name: torch.from_numpy(array).to(self.device) for name, array in batch.inputs.items()}
                logits: NDArray[np.float32] = forward(inputs).float().cpu().numpy()
        except (RuntimeError, IndexError) as error:
            shape = " x ".join(map(str, batch.inputs["input_ids"].shape))
            raise CrossRankError(
                f"torch could not run a batch of {shape} tokens on {self.device}: {error}. If memory is short, "
                "give a smaller batch_size or max_length."
            ) from error
        return logits


class TorchEngine(_OnDevice):
    """An engine for sequence classifiers that take query and document as one sequence.

    :param folder: A checkpoint with safetensors weights.
    :param device: ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"cpu"``.
    :param precision: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on a CUDA GPU that multiplies it natively,
        else float32. The head runs in float32 in any case.
    :param num_threads: Threads on the CPU, for the whole process, as torch has one setting; ``None`` for all that the
        process may use.
    :raises InputError: If there is no such device, or the precision is not one of these.
    :raises ModelError: If the checkpoint can't be loaded.
    """

    def __init__(self, folder: Path, *, device: str, precision: str = "auto", num_threads: int | None = None) -> None:
        super().__init__(device, precision, num_threads)
        self._model = _load("AutoModelForSequenceClassification", folder, self)
        _run_heads_in_float32(self._model)

    @property
    def token_types(self) -> bool:
        """Whether the model has token types."""
        return int(getattr(self._model.config, "type_vocab_size", 0) or 0) > 1

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, labels]``."""
        return self._run(lambda inputs: self._model(**inputs).logits, batch)


class TorchDecoderEngine(_OnDevice):
    """An engine for decoders: takes rows padded on the left, and scores their last positions.

    Only the last position goes through the head, and of a language model's output layer only the rows of the tokens
    that are compared: the logits of a whole vocabulary at every position would take hundreds of times the memory.

    :param folder: A checkpoint with safetensors weights.
    :param kind: Its task: ``"text-generation"``, ``"sequence-classification"`` or ``"feature-extraction"``.
    :param tokens: For text generation: the tokens for yes and no, or only the one for yes.
    :param layers: For feature extraction: the layers after the last hidden state.
    :param device: As for :class:`TorchEngine`.
    :param precision: As for :class:`TorchEngine`.
    :param num_threads: As for :class:`TorchEngine`.
    :raises InputError: If there is no such device, or the precision is not one of these.
    :raises ModelError: If the checkpoint can't be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str,
        tokens: Sequence[int] = (),
        layers: Sequence[Dense] = (),
        device: str,
        precision: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        super().__init__(device, precision, num_threads)
        if kind == "text-generation":
            model = _load("AutoModelForCausalLM", folder, self)
            self._body, self._head = model.base_model, _token_head(model, tokens)
        elif kind == "sequence-classification":
            model = _load("AutoModelForSequenceClassification", folder, self)
            self._body, self._head = model.base_model, _linear(model.score.weight, model.score.bias)
        else:
            self._body = _load("AutoModel", folder, self)
            self._head = _dense_head(layers, self.device)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, labels]``."""
        return self._run(self._score, batch)

    def _score(self, inputs: Mapping[str, Any]) -> Any:
        # Positions are counted from the first token. If padding counted, rounding would depend on its amount.
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        hidden = self._body(**inputs, position_ids=positions, use_cache=False).last_hidden_state
        return self._head(hidden[:, -1].float())


def chat_renderer(folder: Path, prompt: str, settings: Mapping[str, Any]) -> Callable[[bool, str, str], str] | None:
    """Make a function that renders query and document with the checkpoint's chat template; ``None`` if it has none.

    As in sentence-transformers: one message for each, with the roles ``query`` and ``document``.

    :param prompt: A system message before them; empty for none.
    :param settings: Arguments of the template besides the messages.
    :returns: A function of three arguments: whether contents are lists of parts (not strings), query, and document.
    """
    with quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        return None

    def render(structured: bool, query: str, document: str) -> str:
        said = [("system", prompt)] * bool(prompt) + [("query", query), ("document", document)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if structured else text} for role, text in said
        ]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **settings))

    return render


def _check_device(device: str) -> Any:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"torch does not know device={device!r}: give cpu, cuda, cuda:1 or mps.") from error
    there = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    there += ["mps"] * bool(torch.backends.mps.is_available())
    missing = {
        "cpu": False,
        "cuda": not torch.cuda.is_available() or (wanted.index or 0) >= torch.cuda.device_count(),
        "mps": not torch.backends.mps.is_available(),
    }
    if missing.get(wanted.type, True):
        raise InputError(
            f"device={device!r} is not available: torch {torch.__version__} finds {', '.join(there)}. "
            "Give one of these, or install a build of torch for the device that you mean."
        )
    return wanted


def _check_precision(precision: str, device: Any) -> str:
    if precision == "auto":
        # bfloat16 needs compute capability 8.0 (Ampere). float16 is never used, because it overflows in decoders.
        fast = device.type == "cuda" and (torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0))
        return "bfloat16" if fast else "float32"
    if precision not in _DTYPES:
        raise InputError(
            f"precision={precision!r} is not supported by the torch engine: give 'auto', 'float32' or 'bfloat16'. "
            "'int8' runs only on the CPU, and not for decoders."
        )
    return precision


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and loading reports."""
    log = transformers.utils.logging
    bars, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _load(kind: str, folder: Path, place: _OnDevice) -> Any:
    # For its errors about pickled, missing, truncated or damaged weights.
    load_weights(folder)
    try:
        with quiet_transformers():
            model, report = getattr(transformers, kind).from_pretrained(
                folder,
                # `dtype` is the newer name; all versions from 4.51 on accept this one.
                torch_dtype=_DTYPES[place.precision],
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (ValueError, KeyError) as error:
        raise UnsupportedModelError(f"transformers {transformers.__version__} can't load {folder}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"transformers can't load {folder}: {error}") from error
    # transformers fills missing weights with random numbers, which would make the scores random.
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"The weights in {folder} lack {', '.join(missing[:6])}{', ...' if len(missing) > 6 else ''}, which a "
            f"{type(model).__name__} has. Is it a reranker, config.json of the same model, and the checkpoint whole?"
        )
    expected = {_NUMBER.sub(".N.", name) for name in model.state_dict()}
    if layers := [name for name in sorted(report["unexpected_keys"]) if _NUMBER.sub(".N.", name) in expected]:
        raise CheckpointError(
            f"The weights in {folder} have layers that config.json does not count, such as {layers[0]!r}. Scores "
            "without them would be wrong. Take config.json and the weights from one model."
        )
    return model.eval().to(place.device)


def _run_heads_in_float32(model: Any) -> None:
    """Run everything after the encoder in float32: logits rounded to bfloat16 make ties."""
    body = model.base_model
    heads = [child for child in model.children() if child is not body]
    for head in (*heads, getattr(body, "pooler", None)):
        if head is not None:
            head.float().register_forward_pre_hook(_in_float32, with_kwargs=True)


def _in_float32(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def widen(value: Any) -> Any:
        return value.float() if torch.is_tensor(value) and value.is_floating_point() else value

    return tuple(map(widen, args)), {name: widen(value) for name, value in kwargs.items()}


def _linear(weight: Any, bias: Any = None) -> Head:
    weight = weight.detach().float()
    bias = None if bias is None else bias.detach().float()
    return lambda hidden: torch.nn.functional.linear(hidden, weight, bias)


def _token_head(model: Any, tokens: Sequence[int]) -> Head:
    """Return the first token's logit, minus the second's if there is one: ``[batch, hidden]`` to ``[batch, 1]``."""
    output = model.get_output_embeddings()
    if not all(0 <= token < len(output.weight) for token in tokens):
        raise CheckpointError(f"Of the tokens {tuple(tokens)}, one is outside the vocabulary of {len(output.weight)}.")
    rows = list(tokens)
    bias = getattr(output, "bias", None)
    logits = _linear(output.weight[rows], None if bias is None else bias[rows])
    cap = getattr(model.config, "final_logit_softcapping", None)  # Gemma 2

    def head(hidden: Any) -> Any:
        found = logits(hidden)
        found = found if cap is None else cap * torch.tanh(found / cap)
        return found[:, :1] - found[:, 1:] if len(rows) == 2 else found

    return head


def _dense_head(layers: Sequence[Dense], device: Any) -> Head:
    steps: list[Head] = []
    for layer in layers:
        weights = load_weights(layer.folder)
        weight = torch.tensor(weights("linear.weight", layer.outputs, layer.inputs), device=device)
        bias = torch.tensor(weights("linear.bias", layer.outputs), device=device) if layer.bias else None
        steps += [_linear(weight, bias), getattr(torch.nn, layer.activation)()]

    def head(hidden: Any) -> Any:
        for step in steps:
            hidden = step(hidden)
        return hidden

    return head
