"""Models in other processes: forked, pickled and copied."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest

import texts
from crossrank import BiEncoder, CrossEncoder, ModelRegistry, PreparedDocuments, RegistryModel
from decoder_checkpoints import make_decoder

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


# Each runs in a fresh process, as a fork copies everything that other tests have done to this one.
FORKS = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, on forks of processes with threads
from crossrank import CrossEncoder

def forked(work):
    # The child ends as processes usually do, so that all is released that is released then.
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends a child that hangs
        work()
        sys.exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status

def expect(model):
    np.testing.assert_allclose(model.predict(few), wanted, atol=1e-6)

import numpy as np
pairs = [("what is a fork", f"a fork makes a child {i} " * 40) for i in range(100)]
few = pairs[:8]
model = CrossEncoder(precision="float32", num_threads=THREADS, document_cache=0)
wanted = CrossEncoder(precision="float32", num_threads=THREADS).predict(few)  # is released: its threads are idle
"""

IDLE = """
forked(lambda: expect(model))
model.load()
for _ in range(3):
    forked(lambda: expect(model))
forked(lambda: expect(CrossEncoder(precision="float32")))
forked(lambda: forked(lambda: expect(model)))
expect(model)
"""

LOADING = """
for delay in (0.0, 0.05, 0.1):
    model = CrossEncoder(precision="float32", num_threads=THREADS)
    loading = threading.Thread(target=model.load)
    loading.start()
    time.sleep(delay)
    forked(lambda: expect(model))
    loading.join()
    expect(model)
"""

FIRST_LOAD = (
    FORKS.rpartition("wanted =")[0]
    + """
loading = threading.Thread(target=model.load)
loading.start()
time.sleep(0.05)  # while it is importing OpenVINO
forked(lambda: model.predict(few))
loading.join()
"""
)

SCORING = """
done = False
def work():
    while not done:
        model.predict(pairs)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(4):
    time.sleep(0.05)
    forked(lambda: expect(model))
done = True
for thread in threads:
    thread.join()
expect(model)
"""

TOO_LONG = """
from crossrank import forks
from crossrank.errors import CrossRankError
forks.MAX_WAIT = 0.2
end = threading.Event()
def work():
    with forks.native_code():
        end.wait()
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.1)
def refused():
    for use in (model.load, lambda: CrossEncoder().load()):
        try:
            use()
        except CrossRankError as error:
            assert "spawn" in str(error)
        else:
            raise AssertionError("not refused")
forked(refused)
end.set()
thread.join()
expect(model)
"""


def run_script(script: str, *, limit: float = 100) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.fork
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("script", [IDLE, LOADING, SCORING], ids=["idle", "loading", "scoring"])
def test_a_model_works_in_a_forked_process(script: str, threads: int) -> None:
    run_script((FORKS + script).replace("THREADS", str(threads)))


@pytest.mark.fork
@pytest.mark.parametrize("script", [FIRST_LOAD, FORKS + TOO_LONG], ids=["importing", "too long"])
def test_a_fork_at_the_worst_time(script: str) -> None:
    run_script(script.replace("THREADS", "2"))


@pytest.mark.fork
def test_a_decoder_runs_with_one_thread_in_a_forked_process(tmp_path: Path) -> None:
    # Large enough for torch to use several threads, which it would wait for in vain.
    folder = make_decoder(tmp_path / "decoder", "qwen3", hidden_size=256, head_dim=64, intermediate_size=1024)
    run_script(
        FORKS.rpartition("model =")[0]
        + f"""
model = CrossEncoder({str(folder)!r}, precision="float32", num_threads=2)
wanted = model.predict(few)
def in_child():
    expect(model)
    assert model.info()["threads"] == 1
forked(in_child)
assert model.info()["threads"] == 2
"""
    )


@pytest.mark.fork
def test_prepared_documents_are_opened_anew_in_a_forked_process(tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    PreparedDocuments(folder, precision="float32").add(["a", "b"], ["a red house", "the blue sea"])
    run_script(
        FORKS.rpartition("model =")[0]
        + f"""
model = CrossEncoder(prepared={str(folder)!r}, precision="float32")
wanted = model.rank_ids("house", ["a", "b"])
connection = model.prepared._store._connection
def in_child():
    assert model.rank_ids("house", ["a", "b"]) == wanted
    assert model.prepared._store._connection is not connection
forked(in_child)
assert model.rank_ids("house", ["a", "b"]) == wanted
"""
    )


def score(model: CrossEncoder, pairs: list[tuple[str, str]]) -> list[float]:
    return model.predict(pairs).tolist()


def test_pools_of_processes(tiny_bert: Path) -> None:
    model = CrossEncoder(tiny_bert, precision="float32").load()
    # The pairs are sent, too: what a process has imported changes which docstrings it finds.
    wanted = [score(model, PAIRS)] * 2
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.starmap(score, [(model, PAIRS)] * 2) == wanted
    pooled = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(score)(model, PAIRS) for _ in range(2))
    assert pooled == wanted
    # Closures, as Spark and Ray send them.
    assert pickle.loads(cloudpickle.dumps(lambda: model.predict(PAIRS).tolist()))() == wanted[0]
