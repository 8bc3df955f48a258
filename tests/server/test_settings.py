"""Flags go before the environment, it before the file, it before the defaults; --print-config shows which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossrank import InputError
from crossrank.cli.main import main, parser_of
from crossrank.server.settings import Settings, read_settings


def test_the_command_line_has_every_setting() -> None:
    known = parser_of("serve").format_help()
    for name, field in Settings.model_fields.items():
        option = {"models": "--model ", "pipelines": "--pipeline "}.get(name, f"--{name.replace('_', '-')}")
        assert option in known
        assert str(field.description).partition(" ")[0] in known


def test_which_source_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'port = 1\nhost = "::1"\nmax_documents = 7\npreload = true\n[models]\na = "x"\n[models.b]\nlabel = "yes"'
    )
    monkeypatch.setenv("CROSSRANK_PORT", "2")
    monkeypatch.setenv("CROSSRANK_HOST", "0.0.0.0")
    monkeypatch.setenv("CROSSRANK_PIPELINES", "p=one.toml, q=two.toml")
    flags = ["--config", str(file), "--port", "3", "--max-model-bytes", "1.5GB", "--print-config", "--json"]
    assert main(["serve", *flags]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["port"] == {"value": 3, "from": "flag"}
    assert shown["host"] == {"value": "0.0.0.0", "from": "environment, CROSSRANK_HOST"}
    assert shown["max_documents"] == {"value": 7, "from": str(file)}
    assert shown["preload"] == {"value": True, "from": str(file)}
    assert shown["models"]["value"] == {"a": "x", "b": {"label": "yes"}}
    assert shown["pipelines"]["value"] == {"p": "one.toml", "q": "two.toml"}
    assert shown["max_model_bytes"]["value"] == 1_500_000_000
    assert shown["watch_seconds"] == {"value": 2.0, "from": "default"}
    assert main(["serve", "--config", str(file), "--print-config"]) == 0
    assert "environment, CROSSRANK_PORT" in capsys.readouterr().out


def test_models_may_go_without_a_name() -> None:
    settings, _ = read_settings({"models": ["cross-encoder/ms-marco-MiniLM-L6-v2", "registry:models/live", "a=b"]})
    assert list(settings.models.items()) == [
        ("ms-marco-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("live", "registry:models/live"),
        ("a", "b"),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": "many"}, r"port='many' \(flag\) can't be used"),
        ({"max_documents": "0"}, "greater than 0"),
        ({"document_cache": "-1"}, r"document_cache='-1' \(flag\) .* or 0\.$"),
        ({"keys_file": "no-such-file"}, "there is no file 'no-such-file'"),
        ({"max_body_bytes": "lots"}, "max_body_bytes='lots'"),
    ],
)
def test_what_can_not_be_used_is_named(flags: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_settings(flags)


def test_a_file_that_can_not_be_used(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    with pytest.raises(InputError, match="There is no file"):
        read_settings({}, file)
    file.write_text("port = = 1")
    with pytest.raises(InputError, match="can't be read as TOML"):
        read_settings({}, file)
    file.write_text("prot = 1")
    with pytest.raises(InputError, match=r"prot is not a setting \(.*server.toml\)"):
        read_settings({}, file)
