"""Models in other processes: pickled, copied, and used after a fork."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
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


@pytest.mark.proc
@pytest.mark.parametrize("loading", [False, True])
def test_a_child_forked_while_another_thread_scores_or_loads_can_score(loading: bool, tiny_bert: Path) -> None:
    program = f"""
import os, sys, threading, time
from crossrank import CrossEncoder
model = CrossEncoder({str(tiny_bert)!r}, precision="float32", num_threads=1)
pairs = [("a query", "word " * 300)] + [("query %d" % i, "word %d " % i * 200) for i in range(64)]
expected = None if {loading} else model.predict(pairs[:1])[0]
stop = False
def work():
    while not stop:
        if {loading}:
            CrossEncoder({str(tiny_bert)!r}, num_threads=1).load()
            model.load()
        else:
            model.predict(pairs)
threading.Thread(target=work, daemon=True).start()
for _ in range(5):
    time.sleep(0.05)
    child = os.fork()
    if child == 0:
        got = model.predict(pairs[:1])[0]
        os._exit(0 if expected is None or abs(got - expected) < 1e-6 else 3)
    end = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
            os._exit(5)
        time.sleep(0.01)
    if done[1]:
        os._exit(4)
stop = True
os._exit(0)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400, check=False)
    assert ran.returncode == 0, ran.stderr
