"""A model that follows its registry."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from checkpoints import make_checkpoint
from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.errors import CheckpointError, CrossRankWarning, InputError, ModelNotFoundError
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.long_documents import score_long
from crossrank.scoring.registry_model import RegistryModel

PAIRS = [("capital of France", "Paris is the capital."), ("capital of France", "Berlin is large.")]


@pytest.fixture
def registry(tmp_path: Path, tiny_bert: Path) -> ModelRegistry:
    registry = ModelRegistry(tmp_path / "registry")
    registry.switch(registry.publish(tiny_bert))
    registry.publish(make_checkpoint(tmp_path / "other", "bert", seed=1))
    return registry


def scores(folder: Path) -> np.ndarray:
    return CrossEncoder(folder, precision="float32").predict(PAIRS)


def test_it_follows_switch_and_rollback(registry: ModelRegistry) -> None:
    first, second = registry.versions()
    model = RegistryModel(registry.folder, check_every=0, precision="float32")
    np.testing.assert_array_equal(model.predict(PAIRS), scores(first.folder))
    held = model.current()
    registry.switch(second)
    np.testing.assert_array_equal(model.predict(PAIRS), scores(second.folder))
    np.testing.assert_array_equal(held.predict(PAIRS), scores(first.folder))
    assert model.version == second.name
    assert model.info()["revision"] == second.name
    registry.rollback()
    np.testing.assert_array_equal(
        model.score(PAIRS).scores, CrossEncoder(first.folder, precision="float32").score(PAIRS).scores
    )
    assert model.current() is model.current()


def test_it_looks_only_now_and_then(registry: ModelRegistry) -> None:
    first, second = registry.versions()
    model = RegistryModel(registry.folder, check_every=3600).load()
    registry.switch(second)
    assert model.version == first.name


def test_a_version_that_cant_be_loaded_is_told_and_the_old_one_stays(registry: ModelRegistry) -> None:
    first, second = registry.versions()
    model = RegistryModel(registry.folder, check_every=0).load()
    registry.switch(second)
    (second.folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.warns(CrossRankWarning, match=f"{second.name}.*{first.name} stays in use"):
        assert model.version == first.name
    assert len(model.rank("a", ["b", "c"])) == 2  # and is not told again, which would be an error here


def test_every_call_of_many_threads_is_of_one_version(registry: ModelRegistry) -> None:
    first, second = registry.versions()
    known = {first.name: scores(first.folder), second.name: scores(second.folder)}
    model = RegistryModel(registry.folder, check_every=0, precision="float32", num_threads=1).load()
    stop, wrong, seen = threading.Event(), [], set()

    def call() -> None:
        while not stop.is_set():
            got = model.predict(PAIRS)
            name = next((name for name, values in known.items() if np.array_equal(values, got)), None)
            (wrong if name is None else []).append(got)
            seen.add(name)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            registry.switch(second)
            _until(lambda: model.version == second.name)
            registry.rollback()
            _until(lambda: model.version == first.name)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert seen == {first.name, second.name}


def _until(done) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_an_empty_registry_and_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no version in use"):
        RegistryModel(tmp_path).rank("a", ["b"])
    with pytest.raises(InputError, match="check_every=-1"):
        RegistryModel(tmp_path, check_every=-1)
    with pytest.raises(InputError, match="precision"):
        RegistryModel(tmp_path, precision="float7")


def test_a_registry_is_a_model_name(registry: ModelRegistry) -> None:
    first, second = registry.versions()
    info = CrossEncoder(registry.folder).info()
    assert (info["revision"], info["folder"]) == (first.name, str(first.folder))
    registry.switch(second)
    np.testing.assert_array_equal(
        CrossEncoder(str(registry.folder), precision="float32").predict(PAIRS), scores(second.folder)
    )
    (registry.folder / "current").write_text("nonsense")
    with pytest.raises(CheckpointError, match="does not name a version"):
        CrossEncoder(registry.folder).info()


def test_a_version_that_failed_is_not_loaded_again_until_its_files_change(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = registry.versions()
    model = RegistryModel(registry.folder, check_every=0, precision="float32").load()
    whole = (second.folder / "model.safetensors").read_bytes()
    registry.switch(second)
    (second.folder / "model.safetensors").write_bytes(b"nothing")
    loads = []
    monkeypatch.setattr(CrossEncoder, "__init__", _counting(CrossEncoder.__init__, loads))
    with pytest.warns(CrossRankWarning, match="stays in use"):
        model.predict(PAIRS)
    for _ in range(4):
        assert model.version == first.name
    assert len(loads) == 1
    (second.folder / "model.safetensors").write_bytes(whole)
    assert model.version == second.name


def _counting(init, calls):
    def counted(self, *args, **options):
        calls.append(args)
        init(self, *args, **options)

    return counted


def test_it_has_what_a_cross_encoder_has(registry: ModelRegistry) -> None:
    model = RegistryModel(registry.folder, precision="float32")
    plain = CrossEncoder(registry.versions()[0].folder, precision="float32")
    public = {name for name in dir(CrossEncoder) if not name.startswith("_")}
    assert all(hasattr(model, name) for name in public)
    assert (model.identity, model.max_length, model.num_labels) == (plain.identity, 512, 1)
    result = score_long(model, [("a query", "word " * 2000)])
    np.testing.assert_array_equal(result.scores, score_long(plain, [("a query", "word " * 2000)]).scores)
