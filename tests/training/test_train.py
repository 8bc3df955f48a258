"""Runs of a few seconds on tiny random checkpoints: what is saved, what is repeatable, what goes wrong."""

from __future__ import annotations

import csv
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import CrossEncoder as TheirCrossEncoder

from checkpoints import edit_config, make_checkpoint, transformers_logits
from crossrank import CrossEncoder
from crossrank.data.judgements import ReadReport, ReadSettings
from crossrank.data.open_dataset import open_dataset
from crossrank.errors import CrossRankError, InputError, MissingExtraError, UnsupportedModelError
from crossrank.training import train
from crossrank.training.checks import digest_of_query
from crossrank.training.data_split import judgements_in, split_data
from crossrank.training.saving import queries_learnt
from crossrank.training.training_result import TrainingResult
from training_runs import PAIRS, QUICK, MakePairs, quick, run, weights


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, make_pairs: MakePairs) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture(scope="module")
def trained(pairs: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    output = tmp_path_factory.mktemp("trained") / "model"
    return output, run(pairs, tiny_bert, output)


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\(\) has no setting 'epoch'. Did you mean 'epochs'"):
        train([], tmp_path / "model", epoch=1)


# ---- what comes out


def test_the_saved_model_scores_the_same_in_three_libraries(trained: tuple[Path, Any], tiny_bert: Path) -> None:
    folder, _ = trained
    # The limit of 48 tokens, which is saved with the model, is not known to the third.
    fitting = [pair for pair in PAIRS if len("".join(pair)) < 120]
    assert len(fitting) > 2
    mine = CrossEncoder(folder, precision="float32")
    theirs = TheirCrossEncoder(str(folder), device="cpu")
    np.testing.assert_allclose(mine.predict(fitting), theirs.predict(fitting), rtol=0, atol=1e-4)
    np.testing.assert_allclose(mine.score(fitting).logits, transformers_logits(folder, fitting), rtol=0, atol=1e-4)
    assert mine.max_length == theirs.max_seq_length == 48
    assert np.abs(mine.score(fitting).logits - transformers_logits(tiny_bert, fitting)).max() > 0.1


def test_what_is_frozen_stays_and_the_rest_has_learnt(trained: tuple[Path, Any], tiny_bert: Path) -> None:
    before, after = weights(tiny_bert), weights(trained[0])
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert np.array_equal(tensor, after[name]) == ("embeddings." in name), name


def test_tensorboard_gets_what_the_csv_has(trained: tuple[Path, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (trained[0] / "runs").rglob("events.out.*")
    shown = EventAccumulator(str(events))
    shown.Reload()
    with (trained[0] / "training_log.csv").open() as stream:
        losses = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(stream) if row["loss"]}
    assert {one.step: pytest.approx(one.value, rel=1e-5) for one in shown.Scalars("train/loss")} == losses


def test_training_lowers_the_loss(trained: tuple[Path, Any]) -> None:
    with (trained[0] / "training_log.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream) if row["loss"]]
    assert len(losses) > 5
    assert losses[-1] < losses[0]


def test_the_queries_that_were_learnt_from_are_kept(trained: tuple[Path, Any], pairs: Path, tmp_path: Path) -> None:
    queries = {json.loads(line)["query"] for line in pairs.read_text().splitlines()}
    assert queries_learnt(trained[0]) == {digest_of_query(f" {query.upper()}") for query in queries}
    other = tmp_path / "other.jsonl"
    other.write_text(pairs.read_text().replace('"query": "', '"query": "and '))
    run(other, trained[0], tmp_path / "again", quick(epochs=0.1))
    assert queries_learnt(tmp_path / "again") > queries_learnt(trained[0])


def test_the_card(trained: tuple[Path, TrainingResult]) -> None:
    folder, result = trained
    card = ModelCard.load(folder / "README.md")
    assert {"sentence-transformers", "cross-encoder", "reranker", "generated_from_trainer", "crossrank"} <= {
        *card.data.tags
    }
    assert "loss:BinaryCrossEntropyLoss" in card.data.tags
    assert card.data.pipeline_tag == "text-ranking"
    assert card.data.library_name == "sentence-transformers"
    for section in ("How to load it", "Evaluation against", "Data", "The run", "Intended use and limits", "Citation"):
        assert f"\n## {section}" in card.text, section
    assert "`learning_rate=0.001`" in card.text
    assert str(folder.parent) not in card.text
    assert "Seed: 0" in card.text
    assert result.comparison is None  # 24 queries are too few to hold any out


def test_held_out_queries_are_compared_with_the_base_and_bm25(
    make_pairs: MakePairs, tiny_bert: Path, tmp_path: Path
) -> None:
    pairs = make_pairs(tmp_path / "p.jsonl", 60)
    result = run(pairs, tiny_bert, tmp_path / "m", quick(held_out=0.3, epochs=1))
    found = result.comparison
    assert found is not None
    assert found.queries >= 10
    # The query is the beginning of the relevant passage.
    assert found.systems["BM25"].mean > 0.95
    base = found.systems["base"]
    assert base.interval[0] <= base.mean <= base.interval[1]
    assert base.comparison.difference == pytest.approx(found.systems["result"].mean - base.mean)
    assert f"| base | {base.mean:.4f} |" in (tmp_path / "m/README.md").read_text()
    # What the hub reads: it is parsed back out of the file's model-index.
    (told,) = ModelCard.load(tmp_path / "m/README.md").data.eval_results
    assert (told.metric_type, told.metric_value) == ("ndcg_at_10", round(found.systems["result"].mean, 4))


def test_averaging_with_the_base(trained: tuple[Path, Any], pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    run(pairs, tiny_bert, tmp_path / "half", quick(average_with_base=0.25))
    base, all_the_way, got = weights(tiny_bert), weights(trained[0]), weights(tmp_path / "half")
    for name, tensor in got.items():
        np.testing.assert_allclose(tensor, 0.25 * base[name] + 0.75 * all_the_way[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss", ["bce", "lambda", "listnet", "ranknet", "mse", "margin-mse", "mnrl", "cached-mnrl"])
def test_every_loss_learns(loss: str, make_pairs: MakePairs, tiny_bert: Path, tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "p.jsonl", 12, teacher=True)
    # An epoch of in-batch losses has a row for each positive, not for each pair.
    run(pairs, tiny_bert, tmp_path / "m", quick(loss=loss, epochs=12 if "mnrl" in loss else 3))
    before, after = (transformers_logits(folder, pairs_of(pairs)) for folder in (tiny_bert, tmp_path / "m"))
    labels = np.array([row["label"] for row in rows_of(pairs)])

    def gap(logits: Any) -> float:
        return float(logits[labels == 1].mean() - logits[labels == 0].mean())

    assert gap(after) > gap(before)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pairs_of(path: Path) -> list[tuple[str, str]]:
    return [(row["query"], row["document"]) for row in rows_of(path)]


# ---- the same again


def test_the_same_seed_gives_the_same_model_and_another_another(
    trained: tuple[Path, Any], pairs: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    # What the process did to torch before is no part of it.
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        run(pairs, tiny_bert, tmp_path / "again")
        assert torch.get_num_threads() != threads
    finally:
        torch.set_num_threads(threads)
    assert_same(trained[0], tmp_path / "again")
    run(pairs, tiny_bert, tmp_path / "other", quick(seed=1))
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(weights(trained[0]).values(), weights(tmp_path / "other").values(), strict=True)
    )


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from training_runs import QUICK, run
def stop(step, steps, figures):
    if step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
run(Path({pairs!r}), Path({base!r}), Path({output!r}), QUICK, progress=stop)
"""


def test_a_killed_run_goes_on_to_the_same_result(
    trained: tuple[Path, Any], pairs: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    here = [str(Path(__file__).parents[1])]
    script = _KILLED.format(path=here, step=13, pairs=str(pairs), base=str(tiny_bert), output=str(output))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not output.exists()
    # A save point that was being written when the process died.
    (tmp_path / ".model.run" / "checkpoint-13").mkdir()
    with pytest.raises(InputError, match="other data, settings or another base"):
        run(pairs, tiny_bert, output, quick(epochs=3), resume=True)
    # Hours of work are not thrown away without a word.
    with pytest.raises(InputError, match=r"There is a stopped run .*step 12.*--resume"):
        run(pairs, tiny_bert, output)
    told: list[str] = []
    run(pairs, tiny_bert, output, resume=True, tell=told.append)
    assert told == ["Continuing from step 12"]
    assert_same(trained[0], output)
    log = (output / "training_log.csv").read_text()
    assert log == (trained[0] / "training_log.csv").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_killed_run_remembers_how_long_nothing_got_better(pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    # Such a rate soon makes it worse.
    settings = quick(epochs=9, learning_rate=0.1, patience=3, evaluations=20, held_out=0.3, least_held_out=1)
    whole = run(pairs, tiny_bert, tmp_path / "whole", settings)
    assert whole.stopped_early
    # All but the last of the evaluations that were no better lie behind the kill.

    class KilledError(Exception):
        pass

    def stop(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == whole.steps - 1:
            raise KilledError

    with pytest.raises(KilledError):
        run(pairs, tiny_bert, tmp_path / "killed", settings, progress=stop)
    again = run(pairs, tiny_bert, tmp_path / "killed", settings, resume=True)
    assert again.steps == whole.steps
    assert again.stopped_early == whole.stopped_early
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_batch_that_does_not_fit_is_halved(pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """The failure is put in where the memory is asked for; the rest is the real run."""

    def full(module: Any, inputs: Any) -> None:
        if isinstance(module, torch.nn.Linear) and module.training and inputs[0].shape[0] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    told: list[str] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(full)
    try:
        result = run(pairs, tiny_bert, tmp_path / "halved", quick(batch_size=16, epochs=1), tell=told.append)
    finally:
        hook.remove()
    assert (result.batch_size, result.accumulate) == (4, 4)
    assert told[0] == "A batch of 16 does not fit in memory. Continuing with batches of 8 and 2 batches per step"
    run(pairs, tiny_bert, tmp_path / "small", quick(batch_size=4, accumulate=4, epochs=1))
    for name, tensor in weights(tmp_path / "small").items():
        np.testing.assert_allclose(tensor, weights(tmp_path / "halved")[name], atol=1e-6, err_msg=name)


# ---- what goes wrong


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond this, as it refuses when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [20_000, 1_000_000], ids=["at a save point", "at the end"])
def test_on_a_full_disk_the_old_model_stays(
    size: int, trained: tuple[Path, Any], pairs: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    make_checkpoint(output, "bert", seed=5)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with files_up_to(size), pytest.raises(OSError, match=r"disk is full.*existing model is unchanged.*--resume"):
        run(pairs, tiny_bert, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    run(pairs, tiny_bert, output, resume=True)
    assert_same(trained[0], output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["BertModel"]}, "not a cross-encoder but BertModel"),
        ({"architectures": ["BertForMaskedLM"]}, "not a cross-encoder but BertForMaskedLM"),
        ({"architectures": None}, "not a cross-encoder"),
        ({"id2label": {"0": "no", "1": "yes"}}, "gives 2 scores"),
        ({"auto_map": {"AutoConfig": "x--configuration_bert.JinaBertConfig"}}, "has its own code.*not trained"),
    ],
)
def test_a_base_that_is_no_cross_encoder(changes: dict[str, Any], said: str, pairs: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "bert")
    edit_config(base, **changes)
    with pytest.raises(UnsupportedModelError, match=said):
        run(pairs, base, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_output_that_is_something_else_is_left_alone(pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match="holds no model"):
        run(pairs, tiny_bert, tmp_path / "notes")
    # A configuration of something else, and a model with a file of somebody's beside it.
    (tmp_path / "service").mkdir()
    (tmp_path / "service/config.json").write_text('{"port": 8080}')
    (tmp_path / "service/main.py").write_text("serve()")
    with pytest.raises(InputError, match="holds no model"):
        run(pairs, tiny_bert, tmp_path / "service")
    old = make_checkpoint(tmp_path / "old", "bert")
    (old / "src").mkdir()
    (old / "src/main.py").write_text("serve()")
    with pytest.raises(InputError, match=r"not part of a model \('src/main.py'\)"):
        run(pairs, tiny_bert, old)
    assert (tmp_path / "service/main.py").is_file()
    assert (old / "src/main.py").is_file()
    with pytest.raises(InputError, match="is the base itself"):
        run(pairs, tiny_bert, tiny_bert)
    with pytest.raises(InputError, match="max_length=513 is more than this model's 512"):
        run(pairs, tiny_bert, tmp_path / "m", quick(max_length=513))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2", "distilbert"])
def test_lora_changes_the_matrices_by_low_rank_and_leaves_the_form(pairs: Path, tmp_path: Path, kind: str) -> None:
    base = make_checkpoint(tmp_path / "base", kind)
    output = tmp_path / "model"
    run(pairs, base, output, quick(lora_rank=2, epochs=1, learning_rate=1e-2))
    before, after = weights(base), weights(output)
    assert before.keys() == after.keys()
    ranks = {}
    for name, tensor in before.items():
        change = after[name].astype(np.float64) - tensor
        if change.ndim == 2 and np.abs(change).max() > 1e-4 and "layer" in name:
            ranks[name] = int((np.linalg.svd(change, compute_uv=False) > 1e-5).sum())
    # The matrices of two layers; the products of two by two columns, rounded to float32.
    assert len(ranks) >= 8
    assert set(ranks.values()) == {2}
    assert any("classifier" in name and np.any(after[name] != before[name]) for name in before)
    np.testing.assert_allclose(
        CrossEncoder(output, precision="float32").score(PAIRS[:8]).logits[:, 0],
        TheirCrossEncoder(str(output), device="cpu").predict(PAIRS[:8], activation_fn=torch.nn.Identity()),
        rtol=0,
        atol=1e-4,
    )


def test_lora_without_peft_is_told(
    pairs: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(MissingExtraError, match=r"crossrank\[lora\]"):
        run(pairs, tiny_bert, tmp_path / "m", quick(lora_rank=2))


def test_lower_layers_by_number_stay_as_they_are(pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    run(pairs, tiny_bert, tmp_path / "m", quick(freeze="1", average_with_base=0.0))
    before, after = weights(tiny_bert), weights(tmp_path / "m")
    stayed = {name for name, tensor in before.items() if np.array_equal(tensor, after[name])}
    assert stayed == {name for name in before if "embeddings." in name or ".layer.0." in name}
    with pytest.raises(InputError, match=r"freeze=9 is more than this model's 2 layers"):
        run(pairs, tiny_bert, tmp_path / "n", quick(freeze="9"))


def test_shorter_texts_while_it_learns(pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    for name, given in (("cut", {"max_length": 12}), ("read", {"train_length": 12})):
        run(pairs, tiny_bert, tmp_path / name, quick(epochs=1, **given))
    assert_same(tmp_path / "cut", tmp_path / "read")
    for name, length in (("cut", 12), ("read", 48)):
        theirs = TheirCrossEncoder(str(tmp_path / name), device="cpu")
        assert CrossEncoder(tmp_path / name).max_length == theirs.max_seq_length == length
        assert json.loads((tmp_path / name / "tokenizer.json").read_text())["truncation"]["max_length"] == length
    with pytest.raises(InputError, match="train_length=49 is more than the 48 tokens that the model reads"):
        run(pairs, tiny_bert, tmp_path / "more", quick(train_length=49))


@pytest.mark.parametrize("loss", ["mnrl", "cached-mnrl"])
def test_a_run_on_batches_of_similar_queries_goes_on_to_the_same_result(
    loss: str, pairs: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def stop(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 5:  # the last save point is that of step 4, in the middle of the second of three epochs
            raise KilledError

    settings = quick(loss=loss, epochs=3, in_batch=2, evaluations=5)
    run(pairs, tiny_bert, tmp_path / "whole", settings)
    with pytest.raises(KilledError):
        run(pairs, tiny_bert, tmp_path / "killed", settings, progress=stop)
    told: list[str] = []
    run(pairs, tiny_bert, tmp_path / "killed", settings, resume=True, tell=told.append)
    assert told[-1] == "Continuing from step 4"
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_figures_on_the_way_are_those_of_the_model_that_is_saved(
    make_pairs: MakePairs, tiny_bert: Path, tmp_path: Path
) -> None:
    pairs = make_pairs(tmp_path / "p.jsonl", 60)
    settings = quick(train_length=8, held_out=0.3, epochs=1, evaluations=1)
    found = run(pairs, tiny_bert, tmp_path / "m", settings).comparison
    with (tmp_path / "m/training_log.csv").open() as stream:
        told = [float(row["held_out_ndcg@10"]) for row in csv.DictReader(stream) if row["held_out_ndcg@10"]]
    assert found is not None
    assert told[-1] == pytest.approx(found.systems["result"].mean, abs=1e-6)


@pytest.mark.parametrize("loss", ["mnrl", "cached-mnrl"])
def test_a_batch_in_which_nothing_stands_against_a_positive(
    loss: str, make_pairs: MakePairs, tiny_bert: Path, tmp_path: Path
) -> None:
    positives = make_pairs(tmp_path / "p.jsonl", 4, 0)
    with pytest.raises(InputError, match=r"A batch of 1 has no document to compare a positive with.*mine"):
        run(positives, tiny_bert, tmp_path / "m", quick(loss=loss, batch_size=1))


def test_a_second_run_keeps_away(pairs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """It would take the save points from under the first."""
    said: list[str] = []

    def progress(step: int, *_: object) -> None:
        if step == 2 and not said:
            with pytest.raises(CrossRankError) as error:
                run(pairs, tiny_bert, tmp_path / "m")
            said.append(str(error.value))

    run(pairs, tiny_bert, tmp_path / "m", progress=progress)
    assert "the training of m" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# ---- data in memory


def test_data_in_memory_is_the_same_as_in_a_file(
    trained: tuple[Path, Any], pairs: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    result = train(rows, tmp_path / "rows", base=tiny_bert, **QUICK.changed())
    assert_same(trained[0], result.output)
    table = datasets.Dataset.from_list(rows)
    splits = [split_data(data, QUICK).fingerprint for data in (rows, iter(rows), table, pairs, [pairs], [str(pairs)])]
    assert len(set(splits)) == 1
    # Lists of judgements, as another program has them; a row that can't be used is named.
    found = split_data(judgements_in(rows, ReadSettings(), ReadReport()), QUICK)
    assert found.train == split_data(rows, QUICK).train
    with pytest.raises(InputError, match="rows in memory, line 2: its label is 7"):
        split_data([rows[0], {**rows[1], "label": 7}], QUICK)


def test_a_test_collection_is_training_data(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text("".join(f'{{"_id": "d{i}", "text": "text {i}"}}\n' for i in range(3)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a query"}\n')
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t2\nq\td1\t1\nq\td2\t0\n")
    [group] = split_data(open_dataset(tmp_path), quick(held_out=0)).train
    assert [(one.document, one.label) for one in group.judged] == [("text 0", 1), ("text 1", 0.5), ("text 2", 0)]
