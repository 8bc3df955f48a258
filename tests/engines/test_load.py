"""Opening a model folder: which precision, which engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrank import BiEncoder, CrossEncoder, InputError


def test_the_environment_sets_what_auto_means(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("float32", "bfloat16", "int8"):
        monkeypatch.setenv("CROSSRANK_PRECISION", precision)
        assert CrossEncoder(tiny_bert).info()["precision"] == precision
        assert CrossEncoder(tiny_bert, precision="float32").info()["precision"] == "float32"
    monkeypatch.setenv("CROSSRANK_PRECISION", "fast")
    for make in (CrossEncoder, BiEncoder):
        with pytest.raises(InputError, match="CROSSRANK_PRECISION='fast' is not known: give one of auto, float32"):
            make(tiny_bert)
    CrossEncoder(tiny_bert, precision="int8")
    monkeypatch.setenv("CROSSRANK_PRECISION", "")
    assert CrossEncoder(tiny_bert).info()["precision"] in ("float32", "bfloat16")
