"""The recipe of the bundled model, end to end on a data folder that is made here."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.bundled import calibrate, export, prepare, recipe, train

from bodies import tiny_body
from crossrank import CrossEncoder

PAIRS_OF_A_SOURCE = 36
STEPS = 60
# The words that a document of each kind is about, and words that queries and other documents are full of but that say
# nothing: what there is to learn is which is which.
TOPICS = "river mountain castle violin copper planet forest harbor glacier orchid falcon lantern marble pepper "
TOPICS += "anchor meadow canyon saddle walnut cotton hammer needle temple island"
NOISE = "blue seven quick northern silent heavy public early broken common private golden western ancient modern rapid "
NOISE += "central narrow royal empty foreign hidden local final"
# One setting for all tests: a tenth of a minute of training on one thread.
SETTINGS = ["--steps", str(STEPS), "--save-every", "25", "--learning-rate", "0.02", "--pull", "0", "--threads", "1"]


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def pairs(source: str) -> list[dict]:
    """Queries of two topic words and two words of noise; the document has the topics, and noise of other queries."""
    draw = random.Random(source)
    rows = []
    for number in range(PAIRS_OF_A_SOURCE):
        topics, noise = draw.sample(TOPICS.split(), 2), draw.sample(NOISE.split(), 2)
        others = [word for word in draw.sample(NOISE.split(), 5) if word not in noise]
        positive = f"{topics[0]} and {topics[1]} of {' '.join(others)} number {number}"
        row = {
            "query": " ".join([*noise, *topics]),
            "query_variants": [" ".join([*topics, *noise])],
            "positive": positive,
        }
        rows.append(row | {"in_liveqa": False, "pages_with_query": 1, "kind": "section"})
    rows[0]["in_liveqa"], rows[0]["pages_with_query"] = True, 2
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with all sources, in the shape of the real one."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train").mkdir()
    for source in prepare.SAMPLE:
        with gzip.open(folder / "train" / f"{source}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in pairs(source))
    return folder


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_body(tmp_path_factory.mktemp("body"))


@pytest.fixture(scope="module")
def made(data: Path, body: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the one command leaves."""
    output = tmp_path_factory.mktemp("recipe")
    threads = torch.get_num_threads()
    recipe.main(["--data", str(data), "--output", str(output), "--body", str(body), *SETTINGS])
    torch.set_num_threads(threads)
    return output


def stages(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(row["stage"], row["outcome"]) for row in rows if "outcome" in row and row["outcome"] != "begun"]


def share_on_top(model: CrossEncoder, lists: list[tuple[str, list[str]]]) -> float:
    """Of lists whose positive stands first."""
    flat = [(query, document) for query, documents in lists for document in documents]
    logits = iter(model.score(flat).logits[:, 0].tolist())
    scores = [[next(logits) for _ in documents] for _, documents in lists]
    return float(np.mean([np.argmax(one) == 0 for one in scores]))


def training_lists(prepared: Path) -> list[tuple[str, list[str]]]:
    """Training queries with their positive and what BM25 and the body put near the top."""
    table = json.loads((prepared / "queries.json").read_text())
    texts = json.loads((prepared / "documents.json").read_text())
    found = []
    lexical, dense = np.load(prepared / "lexical.npy"), np.load(prepared / "dense.npy")
    for variant, query in enumerate(table["query_of"]):
        positive = table["positive"][query]
        others = {int(d) for d in [*lexical[variant][:8], *dense[variant][:4]]} - {positive}
        if query not in table["held_out"]:
            found.append((table["text"][variant], [texts[positive], *(texts[d] for d in sorted(others))]))
    return found[::3]


def test_one_command_makes_a_model_that_ranks(made: Path) -> None:
    assert [name for name, outcome in stages(made)] == ["round", "prepare", "train", "blend", "calibrate", "export"]
    model = CrossEncoder(made / "model", num_threads=1)
    ranking = model.rank("heavy royal river violin", ["copper and walnut of royal heavy", "river and violin of empty"])
    assert [row["corpus_id"] for row in ranking] == [1, 0]
    assert all(0 <= row["score"] <= 1 for row in ranking)


def test_training_helps(made: Path, body: Path, tmp_path: Path) -> None:
    export.run(body, tmp_path, word_weight=made / "prepared" / "word_weight.npy")
    lists = training_lists(made / "prepared")
    before, after = (share_on_top(CrossEncoder(folder, num_threads=1), lists) for folder in (tmp_path, made / "model"))
    print("on top", before, after, len(lists))
    assert after >= before + 0.1


def test_the_same_command_again_does_nothing_twice(made: Path, data: Path, body: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file() and path.name != "log.jsonl"}
    begun = len(stages(made))
    recipe.main(["--data", str(data), "--output", str(made), "--body", str(body), *SETTINGS])
    assert [outcome for _, outcome in stages(made)[begun:]] == ["there already"] * 6
    later = {path: path.stat().st_mtime_ns for path in files}
    settings = made / "settings.json"
    assert {p for p in files if later[p] != files[p]} <= {settings}


def test_a_folder_begun_with_other_settings_is_refused(made: Path, data: Path, body: Path) -> None:
    with pytest.raises(SystemExit, match="begun with seed=0, now 1"):
        recipe.main(["--data", str(data), "--output", str(made), "--body", str(body), *SETTINGS, "--seed", "1"])


def test_what_must_not_be_trained_on_is_left_out(made: Path) -> None:
    texts = set(json.loads((made / "prepared" / "documents.json").read_text()))
    assert not prepare.usable("medquad", {"in_liveqa": True})
    for source in ("medquad", "tldr"):
        assert pairs(source)[0]["positive"] not in texts
    assert pairs("docs")[0]["positive"] in texts


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / f"head-{step}.pt", weights_only=True)
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def unbroken(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train.run(made / "prepared", folder, steps=20, save_every=6, threads=1)
    return folder


def test_two_runs_give_the_same_bits(made: Path, unbroken: Path, tmp_path: Path) -> None:
    train.run(made / "prepared", tmp_path, steps=20, save_every=6, threads=1)
    assert same(weights(tmp_path, 20), weights(unbroken, 20))
    train.run(made / "prepared", tmp_path / "other", steps=20, save_every=6, threads=1, seed=1)
    assert not same(weights(tmp_path / "other", 20), weights(unbroken, 20))


class KilledError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("steps_done", [6, 15, 18])
def test_a_run_that_was_killed_ends_like_one_that_was_not(
    steps_done: int, made: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train.lists

    def until_killed(*args: object) -> Iterator[object]:
        for number, batch in enumerate(whole(*args)):  # type: ignore[arg-type]
            if number == steps_done:
                raise KilledError
            yield batch

    monkeypatch.setattr(train, "lists", until_killed)
    with pytest.raises(KilledError):
        train.run(made / "prepared", tmp_path, steps=20, save_every=6, threads=1)
    monkeypatch.setattr(train, "lists", whole)
    assert torch.load(tmp_path / "latest.pt", weights_only=True)["step"] == steps_done // 6 * 6
    train.run(made / "prepared", tmp_path, steps=20, save_every=6, threads=1)
    assert same(weights(tmp_path, 20), weights(unbroken, 20))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [20]


def test_the_log_forgets_what_is_done_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 50}\n{"step": 100}\n{"step": 150}\n{"ste')
    train.forget_after(100, log)
    assert log.read_text() == '{"step": 50}\n{"step": 100}\n'


def test_calibration_finds_the_line() -> None:
    random_ = np.random.default_rng(0)
    logits = random_.normal(3, 5, 40000)
    relevant = random_.random(len(logits)) < calibrate.sigmoid(0.5 * logits - 4)
    scale, shift = calibrate.fit_line(logits, relevant)
    assert scale == pytest.approx(0.5, abs=0.02)
    assert shift == pytest.approx(-4, abs=0.15)
    fitted = scale * logits + shift
    assert calibrate.log_loss(fitted, relevant) < calibrate.log_loss(logits, relevant)
    assert calibrate.ece(fitted, relevant) < 0.01 < calibrate.ece(logits, relevant)
    # No line nearby is more likely.
    for other in ((scale * 1.02, shift), (scale, shift + 0.05), (scale * 0.98, shift - 0.05)):
        assert calibrate.log_loss(other[0] * logits + other[1], relevant) > calibrate.log_loss(fitted, relevant)


def test_calibration_of_separable_logits_is_finite_and_of_useless_ones_refused() -> None:
    relevant = np.arange(22) % 11 == 0
    scale, shift = calibrate.fit_line(np.where(relevant, 5.0, -5.0), relevant)
    assert 0 < scale < 10
    assert np.isfinite(shift)
    with pytest.raises(ValueError, match="no higher logits"):
        calibrate.fit_line(np.where(relevant, -1.0, 1.0), relevant)
    with pytest.raises(ValueError, match="22 relevant and 0 other"):
        calibrate.fit_line(np.arange(22.0), np.ones(22, bool))


def test_calibration_is_written_and_applied(made: Path, body: Path, tmp_path: Path) -> None:
    line = json.loads((made / "calibration.json").read_text())
    assert line["log_loss_after"] <= line["log_loss_before"]
    assert line["base_rate"] == pytest.approx(line["relevant"] / line["pairs"])
    assert 1 / 11 <= line["base_rate"] < 0.2
    export.run(body, tmp_path, head=made / "training" / f"head-{STEPS}.pt", float32=True)
    export.run(
        body,
        tmp_path / "on_line",
        head=made / "training" / f"head-{STEPS}.pt",
        calibration=made / "calibration.json",
        float32=True,
    )
    texts = [(row["query"], other["positive"]) for row in pairs("docs")[:4] for other in pairs("docs")[:4]]
    raw, calibrated = (
        CrossEncoder(folder, precision="float32", num_threads=1).score(texts).logits
        for folder in (tmp_path, tmp_path / "on_line")
    )
    np.testing.assert_allclose(calibrated, line["scale"] * raw + line["shift"], atol=1e-4)
