"""Models for other processes: pickled and copied."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import texts
from crossrank import BiEncoder, CrossEncoder, ModelRegistry, RegistryModel

PAIRS = [(query, passage[:200]) for query, passage in texts.pairs(6)]


@pytest.mark.parametrize("again", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, copy.copy])
def test_a_copy_is_made_of_the_constructors_arguments(again, tiny_bert: Path) -> None:
    model = CrossEncoder(tiny_bert, precision="float32", max_length=64, activation_fn="identity").load()
    model.max_length = 48
    other = again(model)
    assert other._loaded is None
    assert (other.name, other.max_length) == (model.name, 48)
    np.testing.assert_array_equal(other.predict(PAIRS), model.predict(PAIRS))


def test_other_models_can_be_pickled_too(tiny_bert: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    registry.switch(registry.publish(tiny_bert))
    follower = RegistryModel(registry.folder, precision="float32").load()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(follower)).predict(PAIRS), follower.predict(PAIRS))
    assert pickle.loads(pickle.dumps(BiEncoder("some/name", max_length=9))).name == "some/name"
