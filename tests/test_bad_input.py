"""What can't be used gets an error that names the value, the limit and the remedy."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import edit_config, make_checkpoint
from crossrank import (
    CheckpointError,
    CrossEncoder,
    InputError,
    MissingExtraError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from crossrank.checkpoint.weights import load_weights
from crossrank.engines.threads import available_threads
from crossrank.errors import ModelError


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(tiny_bert)


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def message(kind: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert text.endswith((".", ")", "[torch]'")), text  # whole sentences, or a command to copy
    assert "\n" not in text
    return text


# ---- pairs and texts


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ("a text", ["pairs is 'a text' (str)", "[(query, document), ...]"]),
        (b"bytes", ["pairs is b'bytes' (bytes)", "[(query, document), ...]"]),
        (None, ["pairs is None (NoneType)", "[(query, document), ...]"]),
        (7, ["pairs is 7 (int)", "[(query, document), ...]"]),
        ({"a query": "a document"}, ["pairs is {'a query': 'a document'} (dict)", "[(query, document), ...]"]),
        ([("q", "d"), ("q", "d", "e")], ["pairs[1] is ('q', 'd', 'e') (tuple)", "two strings", "(query, document)"]),
        ([("q", "d"), ("q",)], ["pairs[1] is ('q',) (tuple)", "two strings"]),
        ([("q", "d"), "qd"], ["pairs[1] is 'qd' (str)", "two strings"]),
        ([{"query": "q", "document": "d"}], ["pairs[0] is {'query': 'q', 'document': 'd'} (dict)", "two strings"]),
        ([("q", "d"), None], ["pairs[1] is None (NoneType)", "two strings"]),
        ([("q", "d"), ("q", None)], ["pairs[1][1] is None (NoneType), not a string", "str(...)"]),
        ([(3.5, "d")], ["pairs[0][0] is 3.5 (float), not a string", "str(...)"]),
        ([("q", b"d")], ["pairs[0][1] is b'd' (bytes), not a string"]),
        ([("q", ["d" * 500])], ["pairs[0][1] is ['ddd", "... (list), not a string"]),
        ([(("q", "d"), ("q", "d"))], ["pairs[0][0] is ('q', 'd') (tuple), not a string"]),
        (np.array([[1.0, 2.0]]), ["pairs[0][0] is", "not a string"]),
        (("q", "d", "e"), ["pairs[0] is ('q', 'd', 'e') (tuple)", "two strings"]),
        (("q", 3), ["pairs[0][1] is 3 (int), not a string"]),
    ],
    ids=repr,
)
def test_pairs_that_are_not_pairs(pairs: Any, says: list[str], model: CrossEncoder) -> None:
    got = message(InputError, lambda: model.predict(pairs))
    for part in says:
        assert part in got
    assert len(got) < 200  # a long text is not said in full


@pytest.mark.parametrize(
    ("query", "documents", "says"),
    [
        (None, ["d"], "query is None (NoneType), not a string. Pass the text itself"),
        (["q"], ["d"], "query is ['q'] (list), not a string"),
        ("q", "d", "documents is 'd' (str); a list of strings is expected. For one document, pass [document]."),
        ("q", None, "documents is None (NoneType); a list of strings is expected"),
        ("q", {"d": 1}, "documents is {'d': 1} (dict); a list of strings"),
        ("q", ["d", {"text": "d"}], "documents[1] is {'text': 'd'} (dict), not a string. Pass the text itself"),
        ("q", ["d", float("nan")], "documents[1] is nan (float), not a string"),
    ],
)
def test_documents_that_are_not_texts(query: Any, documents: Any, says: str, model: CrossEncoder) -> None:
    assert says in message(InputError, lambda: model.rank(query, documents))


# ---- settings


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "3", True])
def test_top_k_below_1(top_k: Any, model: CrossEncoder) -> None:
    got = message(InputError, lambda: model.rank("q", ["d"], top_k=top_k))
    assert got == f"top_k={top_k!r} is not a positive integer. Leave it out to get all documents."


@pytest.mark.parametrize("batch_size", [0, -8, 1.0, "32", False])
def test_a_batch_size_below_1(batch_size: Any, model: CrossEncoder) -> None:
    got = message(InputError, lambda: model.predict([("q", "d")], batch_size=batch_size))
    assert got == f"batch_size={batch_size!r} is not a positive integer. Leave it out to batch by tokens."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"device": "gpu"}, "device='gpu' is not known: give one of cpu, cuda, mps, or cuda:1 for the second GPU."),
        ({"precision": "fp16"}, "precision='fp16' is not known: give one of auto, float32, bfloat16, int8."),
        ({"precision": None}, "precision=None is not known: give one of auto, float32, bfloat16, int8."),
        ({"max_length": 0}, "max_length=0 is not a positive integer. Leave it out"),
        ({"max_length": "512"}, "max_length='512' is not a positive integer. Leave it out"),
        ({"activation_fn": "relu"}, "activation_fn='relu' is not known: give one of 'identity', 'sigmoid', 'softmax',"),
        ({"activation_fn": 3}, "activation_fn=3 is not known: give one of 'identity', 'sigmoid', 'softmax',"),
    ],
)
def test_settings_are_refused_before_anything_is_loaded(settings: dict[str, Any], says: str) -> None:
    assert says in message(InputError, lambda: CrossEncoder("no/such-model", **settings))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_length": 4}, "max_length=4 is too short: this model puts 3 special tokens around a pair, so at least 5"),
        ({"num_threads": 0}, "num_threads=0 is not a positive integer. Leave it out to use all processors"),
        ({"num_threads": 1.5}, "num_threads=1.5 is not a positive integer. Leave it out to use all processors"),
        ({"num_labels": 2}, "num_labels=2, but {folder} has 1: LABEL_0."),
        (
            {"label": "yes"},
            "label='yes' is not one of this model's labels: LABEL_0. Give one of these names, or an index",
        ),
        (
            {"label": 1},
            "label=1 is not one of this model's labels: LABEL_0. Give one of these names, or an index from 0",
        ),
        (
            {"revision": "main"},
            "revision='main' is for models on the hub, but '{folder}' is a local model. Leave it out.",
        ),
    ],
)
def test_settings_that_the_model_does_not_bear(settings: dict[str, Any], says: str, tiny_bert: Path) -> None:
    got = message(InputError, lambda: CrossEncoder(tiny_bert, **settings).load())
    assert says.format(folder=tiny_bert) in got


def test_the_variable_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "two", "-1", "1.5"):
        monkeypatch.setenv("CROSSRANK_NUM_THREADS", value)
        assert f"CROSSRANK_NUM_THREADS={value!r} is not a positive integer. Unset it" in message(
            InputError, available_threads
        )


def test_more_threads_than_any_machine_has(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_threads(4096) == 4096
    says = "=4097 is above 4096. Leave it out to use all processors."
    assert message(InputError, lambda: CrossEncoder(tiny_bert, num_threads=4097).load()) == f"num_threads{says}"
    monkeypatch.setenv("CROSSRANK_NUM_THREADS", "99999999999999")
    assert "is above 4096" in message(InputError, lambda: CrossEncoder(tiny_bert).load())


def test_activations_that_do_not_fit(model: CrossEncoder) -> None:
    def predict(activation: Any) -> Callable[[], Any]:
        return lambda: model.predict([("q", "d"), ("q", "e")], activation_fn=activation)

    got = message(InputError, predict(lambda x: x.sum()))
    assert "activation_fn turned logits of shape (2,) into ()." in got
    assert "keeps the shape" in got
    got = message(InputError, predict(lambda x: np.full_like(x, np.nan)))
    assert "into NaN, which can't be ranked. Give a function that is defined" in got
    assert "each pair has a single score. Give 'sigmoid' or 'identity'" in message(InputError, predict("softmax"))
    import torch

    got = message(InputError, predict(torch.nn.Sigmoid))
    assert "torch.nn.Sigmoid(), not torch.nn.Sigmoid" in got


def test_several_labels_without_one_that_counts(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "bert", num_labels=3)
    edit_config(folder, id2label={"2": "neutral", "1": "entailment", "0": "contradiction"})
    got = message(InputError, lambda: CrossEncoder(folder).rank("q", ["d"]))
    assert "has 3 labels (contradiction, entailment, neutral)" in got
    assert "CrossEncoder(..., label='neutral'); or use predict()" in got
    got = message(InputError, lambda: CrossEncoder(folder, label="relevant").load())
    assert "label='relevant' is not one of this model's labels: contradiction, entailment, neutral. Give one" in got
    assert len(CrossEncoder(folder, label="entailment").rank("q", ["d", "e"])) == 2


def test_a_missing_extra(model: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    got = message(MissingExtraError, lambda: model.predict([("q", "d")], convert_to_tensor=True))
    assert got == (
        "A torch tensor as the result needs the package 'torch', which is not installed. "
        "Install it with: pip install 'crossrank[torch]'"
    )


# ---- folders


def test_folders_that_are_not_models(tmp_path: Path, folder: Path) -> None:
    got = message(ModelNotFoundError, lambda: CrossEncoder(tmp_path / "nothing").load())
    assert "There is no folder" in got
    assert "Check the path" in got
    (tmp_path / "empty").mkdir()
    got = message(CheckpointError, lambda: CrossEncoder(tmp_path / "empty").load())
    assert "has no config.json, so it is not a model folder; it holds nothing. Name the folder" in got
    (folder / "model.safetensors").unlink()
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert f"{folder} has no model.safetensors. Download the checkpoint again" in got


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "checkpoint.ckpt", "model.pth"])
def test_pickled_weights_are_never_opened(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    got = message(UnsupportedModelError, lambda: CrossEncoder(folder).load())
    assert f"only pickled weights ({name})" in got
    assert "save_pretrained(folder, safe_serialization=True)" in got
    assert not (tmp_path / "owned").exists()


def test_remote_code_is_refused_even_when_trusted(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModelForSequenceClassification": "modeling.Model"})
    (folder / "modeling.py").write_text("raise SystemExit('this code was run')")
    got = message(UnsupportedModelError, lambda: CrossEncoder(folder, trust_remote_code=True).load())
    assert "auto_map in config.json" in got
    assert "never runs code from checkpoints. Use a model of a supported architecture" in got


def test_an_unknown_architecture_lists_the_known(folder: Path) -> None:
    edit_config(folder, model_type="t5")
    got = message(UnsupportedModelError, lambda: CrossEncoder(folder).load())
    assert "'t5' is not supported. Use one of" in got
    for known in ("bert", "electra", "roberta", "xlm-roberta", "distilbert", "modernbert", "deberta-v2"):
        assert re.search(rf"\b{known}\b", got)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list, not a JSON object"),
        ("\xff", "is not valid JSON"),
        ("{}", "names no model_type"),
        ('{"model_type": 3}', "names no model_type"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_a_config_that_is_none(text: str, says: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert f"{folder / 'config.json'} {says}" in got


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_document_length"]
)
@pytest.mark.parametrize("value", ["2", -1, 0, 2.5, [], {}, True], ids=repr)
def test_numbers_in_a_config_that_are_none(key: str, value: Any, folder: Path) -> None:
    least = 2 if key == "max_document_length" else 1
    edit_config(folder, **{key: value})
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert f"{folder / 'config.json'} has {key}={value!r}; an integer of at least {least} is expected. Download" in got


@pytest.mark.parametrize("value", ["x", 3, {}, []], ids=repr)
@pytest.mark.parametrize("key", ["architectures", "sentence_transformers", "hidden_act", "id2label", "pad_token_id"])
def test_other_values_in_a_config_are_used_or_refused(key: str, value: Any, folder: Path) -> None:
    edit_config(folder, **{key: value})
    with suppress(ModelError):
        CrossEncoder(folder).predict(("q", "d"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 3}, ["no tensor 'bert.encoder.layer.2.", "They have: bert.embeddings", "config.json"]),
        ({"hidden_size": 48}, ["'bert.embeddings.", "shape (30522, 32)", "calls for (30522, 48)"]),
        ({"vocab_size": 40000}, ["'bert.embeddings.word_embeddings.weight'", "calls for (40000, 32)"]),
        ({"vocab_size": 100}, ["token ids up to 30521", "has 100 rows"]),
        ({"id2label": {"0": "a", "1": "b"}}, ["'classifier.weight'", "shape (1, 32)", "calls for (2, 32)"]),
        (
            {"id2label": {"yes": "1"}},
            ["id2label in {folder}/config.json", "not numbers: yes. Number the labels in the"],
        ),
    ],
)
def test_weights_that_do_not_match_the_config_are_named(change: dict[str, Any], says: list[str], folder: Path) -> None:
    edit_config(folder, **change)
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    for part in says:
        assert part.replace("{folder}", str(folder)) in got


# ---- damaged weights


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: Any, rest: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.1, 0.5, 0.9, -4, -1])
def test_weights_that_were_not_downloaded_to_their_end(keep: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert f"{path} is damaged or was not downloaded to its end: " in got
    assert got.endswith("Delete it and download it again.")


def test_a_git_lfs_pointer_is_told_from_a_damaged_file(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert "Git LFS pointer" in got
    assert "'git lfs pull'" in got


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (None, "is malformed"),
        ([], "is malformed"),
        ({}, "is malformed"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "is malformed"),
        ({"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}, "is malformed"),
        ({"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}, "is malformed"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}, "is malformed"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "does not fit its shape (2,)"),
        ({"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}, "does not fit its shape (-1, -1)"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}, "does not fit"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}, "does not fit"),
        (
            {"dtype": "F32", "shape": [1], "data_offsets": [1 << 62, (1 << 62) + 4]},
            "ends at byte 4611686018427387908 of",
        ),
    ],
)
def test_a_header_that_lies(entry: Any, says: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    header, rest = header_of(path)
    write(path, {**header, "classifier.bias": entry}, rest)
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert "'classifier.bias'" in got
    assert says in got
    assert str(path) in got


def test_types_that_are_not_known(folder: Path) -> None:
    path = folder / "model.safetensors"
    header, rest = header_of(path)
    write(path, {**header, "x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, rest)
    got = message(UnsupportedModelError, lambda: CrossEncoder(folder).load())
    assert "stores 'x' as F8_E4M3; supported types are F64, F32, F16, BF16" in got
    assert "Save the checkpoint again in float32" in got


@pytest.mark.parametrize("header", [b"[]", b"{ ", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_header_that_is_none(header: bytes, folder: Path) -> None:
    write(folder / "model.safetensors", header, b"")
    assert "its header is not " in message(CheckpointError, lambda: CrossEncoder(folder).load())


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_an_error_of_ours_or_harmless(data: st.DataObject, tiny_bert: Path, tmp_path: Path) -> None:
    whole = (tiny_bert / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    damaged = bytearray(whole)
    # Mostly in the header: damage to the numbers themselves can't be seen.
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 8 + length + 20))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    (tmp_path / "model.safetensors").write_bytes(damaged[:cut])
    try:
        weights = load_weights(tmp_path)
        for name in weights:
            weights.raw(name, *weights.shape(name))
    except ModelError as refused:
        error = str(refused)
    else:
        return
    assert str(tmp_path) in error


def test_an_index_of_shards(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "bert", shard_size="2MB")
    index = folder / "model.safetensors.index.json"
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    assert CrossEncoder(folder).predict(("q", "d")) > 0
    shard.unlink()
    got = message(CheckpointError, lambda: CrossEncoder(folder).load())
    assert f"{index} names the file {shard.name}, which is missing. Download" in got
    for text in ("{}", '{"weight_map": []}', '{"weight_map": {}}'):
        index.write_text(text)
        assert "has no weight_map" in message(CheckpointError, lambda: CrossEncoder(folder).load())
    index.write_text('{"weight_map": {"a": 3, "b": [1]}}')
    assert "names the file 3, which is missing" in message(CheckpointError, lambda: CrossEncoder(folder).load())


@pytest.mark.parametrize("model", [5, ["a/b"], b"a/b"])
def test_a_model_that_is_no_name(model: object) -> None:
    with pytest.raises(InputError, match=r"model_name_or_path=.* is neither a string nor a path.*Give a name"):
        CrossEncoder(model)


def test_a_revision_that_is_no_string() -> None:
    with pytest.raises(InputError, match=r"revision=7 is not a string.*Give a branch"):
        CrossEncoder("a/b", revision=7)
