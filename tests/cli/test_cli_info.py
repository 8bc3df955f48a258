from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossrank.checkpoint.identity import model_identity


def test_info_of_a_folder(crossrank: Callable[..., Any], tiny_bert: Path) -> None:
    ran = crossrank("info", tiny_bert, "--precision", "float32", "--num-threads", "1", "--max-length", "100")
    assert ran.code == 0
    said = {line[:15].strip(): line[15:].strip() for line in ran.lines}
    assert said == {
        "model": str(tiny_bert),
        "files": str(tiny_bert),
        "architecture": "bert",
        "layers": "2",
        "hidden size": "32",
        "usable length": "512 tokens",
        "length in use": "100 tokens",
        "identity": model_identity(tiny_bert),
        "labels": "LABEL_0",
        "scores are": "sigmoid",
        "engine": "openvino",
        "device": "cpu",
        "precision": "float32",
        "threads": "1",
    }


def test_info_as_json_is_the_same_as_in_python(crossrank: Callable[..., Any], tiny_bert: Path) -> None:
    from crossrank import CrossEncoder

    ran = crossrank("info", tiny_bert, "--json")
    assert len(ran.lines) == 1
    assert json.loads(ran.out) == CrossEncoder(str(tiny_bert)).info()


def test_info_of_the_model_in_the_box(crossrank: Callable[..., Any]) -> None:
    facts = json.loads(crossrank("info", "--json").out)
    assert facts["model"] == "bundled"
    assert facts["architecture"] == "split_bert"


def test_info_of_nothing(crossrank: Callable[..., Any]) -> None:
    ran = crossrank("info", "./nothing")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("crossrank: error: There is no folder 'nothing'")
