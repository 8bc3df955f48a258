"""promote(): only what is better takes the place of what is in use."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import texts
from checkpoints import make_checkpoint
from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.checkpoint.source import BUNDLED
from crossrank.cli.main import main
from crossrank.data.open_dataset import open_dataset
from crossrank.errors import CrossRankWarning, InputError, ModelNotFoundError
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.training import promotion
from crossrank.training.checks import digest_of_query
from crossrank.training.guard_set import load_guard
from crossrank.training.promotion import promote

SETTINGS = {"num_threads": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty queries: the beginning of a passage, that passage, and four others."""
    chosen = random.Random(0)
    short = [text for text in texts.passages() if 60 < len(text) < 300]
    file = tmp_path_factory.mktemp("data") / "held-out.jsonl"
    with file.open("w") as stream:
        for text in short[:30]:
            query = " ".join(text.split()[:5])
            row = {"query": query, "positives": [text], "negatives": chosen.sample(short[30:], 4)}
            stream.write(json.dumps(row) + "\n")
    return file


@pytest.fixture(scope="module")
def other_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("other"), "bert", seed=5)


def test_a_better_model_is_put_to_use_and_can_be_rolled_back(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    registry, file = ModelRegistry(tmp_path / "registry"), tmp_path / "decision.json"
    decision = promote(
        BUNDLED,
        data=data,
        against=tiny_bert,
        guard=load_guard().sample(20),
        registry=registry,
        settings=SETTINGS,
        decision_file=file,
    )
    assert decision.promoted, decision.reasons
    assert decision.data.means[1] > 0.9 > decision.data.means[0]
    assert decision.guard is not None
    assert decision.guard.queries == 20
    current = registry.current()
    assert current is not None
    assert (current.number, current.name) == (2, decision.version)
    assert json.loads(file.read_text())["version"] == current.name
    assert registry.history()[-1]["decision"]["data"]["p"] == decision.data.p
    # What was in use before is in the registry as well, so there is something to go back to.
    assert (registry.rollback().folder / "model.safetensors").read_bytes() == (
        tiny_bert / "model.safetensors"
    ).read_bytes()


def test_a_worse_model_is_not(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    first = registry.switch(registry.publish(BUNDLED))
    decision = promote(tiny_bert, data=data, guard="none", registry=registry, settings=SETTINGS)
    assert not decision.promoted
    assert decision.reasons[0].startswith("Worse")
    assert registry.current() == first
    assert [version.name for version in registry.versions()] == [first.name]


def test_better_on_the_data_but_worse_on_the_guard_is_not(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    # A guard on which the order is upside down: what ranks well looks bad.
    file = tmp_path / "guard.jsonl"
    with file.open("w") as stream:
        for line in data.read_text().splitlines():
            row = json.loads(line)
            turned = {"query": row["query"], "positives": row["negatives"][:1], "negatives": row["positives"]}
            stream.write(json.dumps(turned) + "\n")
    decision = promote(BUNDLED, data=data, against=tiny_bert, guard=file, settings=SETTINGS)
    assert not decision.promoted
    assert [reason.partition(":")[0] for reason in decision.reasons] == ["Better", "General ability is lost"]


def test_the_same_model_and_too_few_queries(data: Path, tiny_bert: Path, other_tiny: Path) -> None:
    same = promote(tiny_bert, data=data, against=tiny_bert, guard="none", settings=SETTINGS)
    assert not same.promoted
    assert same.reasons[0].startswith("The same")
    few = open_dataset(data).sample(5)
    decision = promote(BUNDLED, data=few, against=other_tiny, guard="none", settings=SETTINGS)
    assert not decision.promoted
    assert decision.queries_needed is not None
    assert decision.queries_needed >= 6
    assert decision.reasons[0].startswith("Too few queries to decide")


def test_only_what_is_in_use_is_compared_with(data: Path, tiny_bert: Path, other_tiny: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    registry.switch(registry.publish(BUNDLED))
    with pytest.raises(InputError, match=r"is not the version in use in"):
        promote(tiny_bert, data=data, against=other_tiny, registry=registry)
    with pytest.raises(ModelNotFoundError):
        promote(tmp_path / "nothing", data=data, registry=registry)


def box_takes_over(data: Path, registry: ModelRegistry, decision_file: Path) -> object:
    return promote(BUNDLED, data=data, guard="none", registry=registry, settings=SETTINGS, decision_file=decision_file)


def test_a_rollback_meanwhile_stops_the_switch(
    data: Path, tiny_bert: Path, other_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    first = registry.switch(registry.publish(other_tiny))
    registry.switch(registry.publish(tiny_bert))
    evaluate: Callable = promotion.evaluate

    def slow(*args: object, **more: object) -> object:
        found = evaluate(*args, **more)
        registry.rollback(first.name)
        return found

    monkeypatch.setattr(promotion, "evaluate", slow)
    with pytest.raises(Exception, match="meanwhile"):
        box_takes_over(data, registry, tmp_path / "decision.json")
    assert registry.current() == first
    assert not (tmp_path / "decision.json").exists()


def test_a_candidate_that_was_trained_on_the_queries_is_told(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate"
    shutil.copytree(tiny_bert, candidate)
    queries = [json.loads(line)["query"] for line in data.read_text().splitlines()]
    (candidate / "training.json").write_text(json.dumps({"queries": [digest_of_query(one) for one in queries[:7]]}))
    with pytest.warns(CrossRankWarning, match="was trained on 7 of the 29 queries"):
        decision = promote(candidate, data=data, against=tiny_bert, guard="none", settings=SETTINGS)
    assert decision.trained_on == 7


def test_a_comparison_that_is_broken_off_goes_on(
    data: Path, tiny_bert: Path, other_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, scored = tmp_path / "decision.json", []
    score = CrossEncoder.score

    def counting(self: CrossEncoder, pairs: list, **options: object) -> object:
        if len(scored) == 1:
            raise KeyboardInterrupt
        scored.append(len(pairs))
        return score(self, pairs, **options)

    options = {"data": data, "against": other_tiny, "guard": "none", "settings": SETTINGS, "decision_file": file}
    monkeypatch.setattr(CrossEncoder, "score", counting)
    with pytest.raises(KeyboardInterrupt):
        promote(tiny_bert, **options)
    assert not file.exists()
    monkeypatch.setattr(CrossEncoder, "score", score)
    before = sum(len(path.read_text().splitlines()) for path in tmp_path.rglob("*.jsonl"))
    assert before > 1
    promote(tiny_bert, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["decision.json"]


def test_the_guard_set_is_sound() -> None:
    guard = load_guard()
    assert len(guard.queries) > 300
    assert not guard.left_out
    assert guard.candidates is not None
    for number, judged in enumerate(guard.qrels.values()):
        [relevant] = judged
        documents = guard.candidates.documents[guard.candidates.of(number)].tolist()
        assert guard.corpus.index[relevant] in documents
        assert 10 <= len(documents) == len(set(documents)) <= 11


def test_the_command(
    data: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--data", str(data), "--guard", "none", "--num-threads", "1"]
    code = main(
        ["promote", str(BUNDLED), "--against", str(tiny_bert), "--decision", "d.json", "--registry", "r", *common]
    )
    out = capsys.readouterr().out
    assert code == 0, out
    assert out.startswith("promoted\n  Better: nDCG@10")
    assert main(["promote", str(tiny_bert), "--registry", "r", "--decision", "e.json", "--json", *common]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(Path("e.json").read_text())
    assert not told["promoted"]
    assert main(["info", "r", "--json"]) == 0
    in_use = json.loads(capsys.readouterr().out)["revision"]
    assert in_use.startswith("2-")
    assert main(["rollback", "r"]) == 0
    assert capsys.readouterr().out.startswith("in use: 1-")
    assert main(["rollback", "r", "--to", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["in_use"] == in_use
    monkeypatch.chdir(tiny_bert)
    assert main(["promote", ".", "--decision", str(tmp_path / "f.json"), "--against", str(BUNDLED), *common]) == 3
    monkeypatch.chdir(tmp_path)
    for file, said in ((data, "is an input"), (Path("pairs.jsonl"), "is not a decision")):
        file.exists() or file.write_text('{"query": "q"}')
        assert main(["promote", str(tiny_bert), "--registry", "r", "--decision", str(file), *common]) == 1
        assert said in capsys.readouterr().err
        assert file.read_text().startswith('{"query"')
    main(["rollback", "r"])
    assert main(["rollback", "r"]) == 1
    assert "no earlier version" in capsys.readouterr().err


def test_a_decision_that_can_t_be_written_changes_nothing(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    first = registry.switch(registry.publish(tiny_bert))
    (tmp_path / "a folder").mkdir()
    with pytest.raises(InputError, match="is not a decision"):
        box_takes_over(data, registry, tmp_path / "a folder")
    (tmp_path / "a file").touch()
    with pytest.raises(OSError, match="a file"):
        box_takes_over(data, registry, tmp_path / "a file" / "decision.json")
    assert registry.current() == first
