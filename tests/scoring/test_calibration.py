"""A calibration as a file, and a model that scores with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import texts
from checkpoints import make_checkpoint
from crossrank.errors import InputError
from crossrank.scoring.calibration import Binding, Calibration, Quality, Threshold
from crossrank.scoring.calibration_curves import Isotonic, Platt
from crossrank.scoring.cross_encoder import CrossEncoder

PAIRS = texts.pairs(12)
QUALITY = Quality(0.1, 0.2, 0.3)


def calibration(curve: Platt | Isotonic, binding: Binding) -> Calibration:
    return Calibration(curve, binding, "some data", 100, 30, 10, 5, "left out", QUALITY, QUALITY, {"platt": 0.4})


finite = st.floats(-1e6, 1e6)
words = st.text(max_size=20)
bindings = st.builds(Binding, words, st.none() | words, words, words, words, st.integers(1, 9999), st.none() | words)
platts = st.builds(Platt, st.floats(1e-6, 1e6), finite)
points = st.lists(st.tuples(finite, st.floats(0, 1)), min_size=1, max_size=20, unique_by=lambda point: point[0])
isotonics = points.map(lambda p: Isotonic(tuple(sorted(x for x, _ in p)), tuple(sorted(y for _, y in p))))
thresholds = st.builds(
    Threshold, st.sampled_from(["precision", "recall"]), *[st.floats(0, 1)] * 5, st.integers(0, 999), finite, finite
)


@settings(max_examples=50, deadline=None)
@given(platts | isotonics, bindings, st.lists(thresholds, max_size=2).map(tuple), st.lists(finite, max_size=9))
def test_json_gives_back_what_was_saved(
    curve: Platt | Isotonic, binding: Binding, found: tuple[Threshold, ...], logits: list[float]
) -> None:
    made = replace(calibration(curve, binding), thresholds=found)
    again = Calibration.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert again.digest == made.digest
    probabilities = again.apply(sorted(logits))
    assert probabilities.dtype == np.float64
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) >= 0).all()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="module")
def file(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    binding = CrossEncoder(model, precision="float32").binding()
    calibration(Isotonic((-0.5, 0.0, 0.5), (0.2, 0.5, 0.9)), binding).save(path)
    return path


def test_scores_are_probabilities_and_the_order_stays(model: Path, file: Path) -> None:
    raw = CrossEncoder(model, precision="float32")
    calibrated = CrossEncoder(model, precision="float32", calibration=str(file))
    expected, got = raw.score(PAIRS), calibrated.score(PAIRS)
    assert got.kind == "calibrated"
    assert np.array_equal(got.logits, expected.logits)
    # By hand: straight lines through (-.5, .2), (0, .5), (.5, .9).
    z = expected.logits[:, 0].astype(np.float64)
    by_hand = np.select([z <= -0.5, z < 0, z < 0.5], [0.2, 0.5 + 0.6 * z, 0.5 + 0.8 * z], 0.9)
    assert got.scores == pytest.approx(by_hand, abs=1e-12)
    # The curve is flat at its ends, where ties are; the ranking is that of the logits.
    assert got.order.tolist() == expected.order.tolist()
    assert calibrated.predict(PAIRS) == pytest.approx(by_hand, abs=1e-6)
    documents = [document for _, document in PAIRS]
    rows = calibrated.rank(PAIRS[0][0], documents)
    assert [row["corpus_id"] for row in rows] == [row["corpus_id"] for row in raw.rank(PAIRS[0][0], documents)]
    assert calibrated.info()["activation"] == "calibrated"
    identity = calibrated.score(PAIRS, activation_fn="identity")
    assert identity.kind == "logit"
    assert np.array_equal(identity.scores, z)


def test_threshold_leaves_out_what_scores_less(model: Path, file: Path) -> None:
    calibrated = CrossEncoder(model, precision="float32", calibration=file)
    documents = [document for _, document in PAIRS]
    rows = calibrated.rank(PAIRS[0][0], documents)
    least = rows[4]["score"]
    kept = calibrated.rank(PAIRS[0][0], documents, threshold=least)
    assert kept == [row for row in rows if row["score"] >= least]
    assert calibrated.rank(PAIRS[0][0], documents, threshold=least, top_k=2) == rows[:2]
    assert calibrated.rank(PAIRS[0][0], documents, threshold=1.1) == []
    for bad in (float("nan"), float("inf"), "0.5", True):
        with pytest.raises(InputError, match="not a finite number"):
            calibrated.rank("a", ["b"], threshold=bad)  # type: ignore[arg-type]


def test_another_model_precision_or_length_is_refused(model: Path, file: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "bert", seed=1)
    for settings_, names in (
        ({"model_name_or_path": other, "precision": "float32"}, ["identity", str(model), str(other)]),
        ({"model_name_or_path": model, "precision": "bfloat16"}, ["precision", "in float32", "in bfloat16"]),
        ({"model_name_or_path": model, "precision": "float32", "max_length": 64}, ["max_length", "512", "64"]),
    ):
        with pytest.raises(InputError) as raised:
            CrossEncoder(**settings_, calibration=file).load()  # type: ignore[arg-type]
        assert all(name in str(raised.value) for name in names)
    # A copy elsewhere is the same model.
    shutil.copytree(model, tmp_path / "copy")
    CrossEncoder(tmp_path / "copy", precision="float32", calibration=file).load()


def test_activation_beside_a_calibration_is_refused(model: Path, file: Path) -> None:
    with pytest.raises(InputError, match="both given"):
        CrossEncoder(model, calibration=file, activation_fn="sigmoid")
    calibrated = CrossEncoder(model, precision="float32", calibration=file)
    with pytest.raises(InputError, match="scores are calibrated"):
        calibrated.score(PAIRS, activation_fn="sigmoid")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "not a calibration"),
        ({"version": 3}, "version 3"),
        ({"method": "spline"}, "spline"),
        ({"curve": {"logits": [1, 0], "probabilities": [0, 1]}}, "damaged"),
        ({"curve": {"logits": [0, 1], "probabilities": [0, "x"]}}, "damaged"),
        ({"binding": {}}, "damaged"),
        ({"before": {"ece": "0", "brier": 0, "log_loss": 0}}, "damaged"),
        ({"thresholds": 3}, "damaged"),
    ],
)
def test_damaged_files_are_told(file: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "changed.json"
    path.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        CrossEncoder(calibration=path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        CrossEncoder(calibration=tmp_path / "missing.json")
    (tmp_path / "text").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        CrossEncoder(calibration=tmp_path / "text")
    with pytest.raises(InputError, match="neither a file nor a Calibration"):
        CrossEncoder(calibration=3)  # type: ignore[arg-type]


def test_a_calibration_of_an_earlier_version_says_what_to_do(file: Path, tmp_path: Path) -> None:
    old = json.loads(file.read_text())
    old["version"] = 1
    old["binding"]["fingerprint"] = old["binding"].pop("identity")
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"earlier crossrank.*crossrank calibrate DATASET"):
        Calibration.load(tmp_path / "old.json")
