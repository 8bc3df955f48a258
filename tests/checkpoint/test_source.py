"""What resolve() makes of nothing, folders, names, a missing network and the environment."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from fake_hub import NAME, WHOLE, FakeHub

from crossrank.checkpoint import source
from crossrank.checkpoint.source import ModelFiles, resolve
from crossrank.errors import CheckpointError, CrossRankWarning, DownloadError, InputError, ModelNotFoundError

# ---- nothing, and folders


def test_nothing_is_the_model_in_the_box() -> None:
    files = resolve(None)
    assert files == ModelFiles(Path(source.__file__).parents[1] / "bundled", "bundled", None)
    assert (files.folder / "config.json").is_file()


@pytest.mark.parametrize("as_path", [True, False])
def test_a_folder_is_taken_as_it_is(tmp_path: Path, as_path: bool) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path if as_path else str(tmp_path)) == ModelFiles(tmp_path, str(tmp_path), None)


def test_a_folder_goes_before_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "reranker").mkdir(parents=True)
    (tmp_path / "owner" / "reranker" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve(NAME).folder == Path(NAME)


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve("~/model") == ModelFiles(tmp_path / "model", "~/model", None)


@pytest.mark.parametrize("missing", ["./no-such-model", "../no/such/model", "~/no-such-model", Path("no-such-model")])
def test_a_missing_folder_is_said_to_be_missing(missing: str | Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"There is no folder '.*no.such.model'.*Check the path"):
        resolve(missing)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors' is a file\. Name the folder"):
        resolve(str(file))


def test_a_folder_without_config_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"has no config\.json.*holds notes\.txt\. Name the folder"):
        resolve(tmp_path)


@pytest.mark.parametrize("model", ["", "  ", 7, b"owner/reranker", ["owner/reranker"]])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="Give a hub name, a folder, or None"):
        resolve(model)


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"revision='v1' is for models on the hub.*Leave it out"):
        resolve(tmp_path, revision="v1")


def test_a_local_model_does_not_import_the_hub_client(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    answer = in_a_process(f"resolve({str(tmp_path)!r}); out = [m for m in sys.modules if m.startswith('huggingface')]")
    assert answer == []


# ---- names


@pytest.mark.parametrize("name", ["a/b/c", "owner/two words", "owner/a--b", "x" * 97, "owner/", "null\0byte"])
def test_what_can_be_no_name_is_told(hub: FakeHub, cache: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"can't be a hub name either: 'owner/name'.*at most 96 characters"):
        resolve(name, cache_folder=cache)
    assert hub.log == []


def test_the_address_of_a_page_gets_a_hint(hub: FakeHub, cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="give 'owner/reranker'"):
        resolve("https://huggingface.co/owner/reranker/tree/main", cache_folder=cache)


# ---- no network


@pytest.mark.parametrize("trouble", ["down", "busy", "login page"])
def test_a_hub_out_of_reach(hub: FakeHub, cache: Path, tmp_path: Path, trouble: str) -> None:
    hub.commit(NAME, WHOLE)
    files = resolve(NAME, cache_folder=cache)
    if trouble == "down":
        hub.stop()
    elif trouble == "busy":
        hub.status = 503
    else:
        hub.page = b"<html>Welcome to our hotel</html>"
    with pytest.warns(CrossRankWarning, match=r"could not be fetched from http.*The copy in the cache is used"):
        assert resolve(NAME, cache_folder=cache) == files
    with pytest.raises(DownloadError, match=r"could not be fetched.*has no whole copy.*HF_ENDPOINT.*call again"):
        resolve(NAME, cache_folder=tmp_path / "empty")


def test_one_hiccup_of_the_hub_is_waited_out(hub: FakeHub, cache: Path) -> None:
    commit = hub.commit(NAME, WHOLE)
    hub.before = lambda request: setattr(hub, "status", 503 if len(hub.log) == 1 else None)
    assert resolve(NAME, cache_folder=cache).revision == commit


def test_an_endpoint_that_is_no_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "my-mirror")
    with pytest.raises(InputError, match=r"HF_ENDPOINT is 'my-mirror'\. Give it as a URL"):
        resolve(NAME, cache_folder=cache)


def test_local_files_only_asks_nothing(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    with pytest.raises(ModelNotFoundError, match=r"cache '.*cache' alone, because local_files_only=True.*no whole"):
        resolve(NAME, cache_folder=cache, local_files_only=True)
    assert hub.log == []
    files = resolve(NAME, cache_folder=cache)
    hub.log.clear()
    assert resolve(NAME, cache_folder=cache, local_files_only=True) == files
    assert hub.log == []


@pytest.mark.parametrize(
    ("lost", "said"), [("model.safetensors", "all its weights"), ("tokenizer.json", "its tokenizer")]
)
def test_a_part_in_the_cache_is_not_a_model(hub: FakeHub, cache: Path, lost: str, said: str) -> None:
    hub.commit(NAME, WHOLE)
    (resolve(NAME, cache_folder=cache).folder / lost).unlink()
    with pytest.raises(ModelNotFoundError, match=f"only a part of 'owner/reranker', without {said}"):
        resolve(NAME, cache_folder=cache, local_files_only=True)
    assert (resolve(NAME, cache_folder=cache).folder / lost).read_bytes() == WHOLE[lost]


# ---- the environment, as users set it: before Python starts


def in_a_process(statements: str, stderr: int | None = None, **environment: str) -> Any:
    """Run statements that set ``out`` in a Python of their own, and return ``out``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    kept |= {"PYTHONPATH": str(Path(source.__file__).parents[2]), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    code = f"import json, sys\nfrom crossrank.checkpoint.source import resolve\n{statements}\nprint(json.dumps(out))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept, stdout=subprocess.PIPE, stderr=stderr, check=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


def test_the_environment_is_honoured(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.commit(NAME, WHOLE, gated=True)
    hub.tokens["good"] = {NAME}
    home = {"HF_HOME": str(tmp_path / "home")}
    get = f"files = resolve({NAME!r}); out = [files.revision, str(files.folder)]"
    online = in_a_process(get, HF_ENDPOINT=hub.url, HF_TOKEN="good", **home)
    assert online[0] == commit
    assert Path(online[1]).is_relative_to(tmp_path / "home" / "hub")
    hub.log.clear()
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        assert in_a_process(get, HF_ENDPOINT=hub.url, **{switch: "1"}, **home) == online
    failing = f"try: resolve({NAME!r})\nexcept Exception as error: out = [type(error).__name__, str(error)]"
    kind, said = in_a_process(failing, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "other"))
    assert kind == "ModelNotFoundError"
    assert "because HF_HUB_OFFLINE is set" in said
    assert str(tmp_path / "other") in said
    assert hub.log == []


def test_offline_set_after_the_import_counts_too(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit(NAME, WHOLE)
    files = resolve(NAME, cache_folder=cache)
    hub.log.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(NAME, cache_folder=cache) == files
    assert hub.log == []


def test_no_progress_bar_without_a_terminal(hub: FakeHub, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.commit(NAME, WHOLE)
    in_a_process(f"out = resolve({NAME!r}, cache_folder={str(cache)!r}).revision", HF_ENDPOINT=hub.url)
    assert capfd.readouterr().err == ""


def test_a_progress_bar_on_a_terminal(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    get = f"out = resolve({NAME!r}, cache_folder={str(cache)!r}).revision"
    in_a_process(get, stderr=terminal, HF_ENDPOINT=hub.url)
    assert b"model.safetensors: 100%" in os.read(master, 65536)
    os.close(master)
    os.close(terminal)
