"""What resolve() fetches from a hub, and what it says where the hub refuses or a download breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_hub import NAME, SMALL, WEIGHTS, WHOLE, FakeHub

from crossrank.checkpoint.source import ModelFiles, resolve
from crossrank.errors import (
    CheckpointError,
    CrossRankWarning,
    DownloadError,
    ModelAccessError,
    ModelNotFoundError,
    UnsupportedModelError,
)


def contents(files: ModelFiles) -> dict[str, bytes]:
    paths = [path for path in files.folder.rglob("*") if path.is_file()]
    return {path.relative_to(files.folder).as_posix(): path.read_bytes() for path in paths}


# ---- what is fetched


def test_only_the_files_that_are_needed(hub: FakeHub, cache: Path) -> None:
    needed = {
        **WHOLE,
        "special_tokens_map.json": b"1",
        "vocab.txt": b"2",
        "modules.json": b"[]",
        "1_LogitScore/config.json": b"4",
        "chat_template.jinja": b"5",
    }
    others = ["README.md", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "openvino/openvino_model.xml"]
    others += ["openvino/openvino_model.bin", "model.fp16.safetensors", "training_args.bin", "checkpoint-1/config.json"]
    commit = hub.commit(NAME, {**needed, **dict.fromkeys(others, b"large")})
    files = resolve(NAME, cache_folder=cache)
    assert (files.name, files.revision) == (NAME, commit)
    assert contents(files) == needed
    assert sorted(hub.fetched()) == sorted(needed)


def test_shards_are_those_that_the_index_names(hub: FakeHub, cache: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": WEIGHTS + bytes([i]) for i in (1, 2)}
    index = json.dumps({"weight_map": dict(zip(["a", "b"], shards, strict=True)) | {"c": min(shards)}}).encode()
    needed = {**SMALL, **shards, "model.safetensors.index.json": index}
    hub.commit(NAME, {**needed, "model-00001-of-00003.safetensors": b"of an older upload"})
    assert contents(resolve(NAME, cache_folder=cache)) == needed
    assert contents(resolve(NAME, cache_folder=cache, local_files_only=True)) == needed


def test_an_index_that_names_a_missing_shard(hub: FakeHub, cache: Path) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    hub.commit(NAME, {**SMALL, "model.safetensors.index.json": index})
    with pytest.raises(CheckpointError, match=r"names model-00001-of-00001\.safetensors, which the repository lacks"):
        resolve(NAME, cache_folder=cache)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["openvino/openvino_model.xml", "openvino/openvino_model.bin", "onnx/model.onnx"], 2),
        (["openvino/a.xml", "openvino/a.bin", "openvino/a_qint8.xml", "openvino/a_qint8.bin"], 2),
        (["onnx/model.onnx", "onnx/model_O1.onnx", "onnx/model_qint8_avx512.onnx"], 1),
        (["onnx/model.onnx", "onnx/model.onnx_data", "openvino/openvino_model.xml"], 2),
    ],
)
def test_without_safetensors_one_graph_is_taken(hub: FakeHub, cache: Path, there: list[str], taken: int) -> None:
    hub.commit(NAME, {**SMALL, **{file: file.encode() for file in there}, "pytorch_model.bin": b"pickle"})
    assert set(contents(resolve(NAME, cache_folder=cache))) == {*SMALL, *there[:taken]}


def test_pickles_are_refused_before_anything_is_fetched(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, {**SMALL, "pytorch_model.bin": b"pickle"})
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model\.bin.*runs code.*safe_serialization=True.*convert"):
        resolve(NAME, cache_folder=cache)
    assert hub.fetched() == []


@pytest.mark.parametrize(("absent", "said"), [("config.json", r"no config\.json"), ("model.safetensors", "no weights")])
def test_a_repository_that_is_no_model(hub: FakeHub, cache: Path, absent: str, said: str) -> None:
    hub.commit(NAME, {file: data for file, data in WHOLE.items() if file != absent})
    with pytest.raises(CheckpointError, match=f"'owner/reranker' has {said}"):
        resolve(NAME, cache_folder=cache)


def test_a_sentencepiece_model_comes_only_where_there_is_nothing_newer(hub: FakeHub, cache: Path) -> None:
    hub.commit("owner/new", {**WHOLE, "spiece.model": b"old"})
    hub.commit("owner/old", {"config.json": b"{}", "spiece.model": b"old", "model.safetensors": WEIGHTS})
    assert "spiece.model" not in contents(resolve("owner/new", cache_folder=cache))
    assert "spiece.model" in contents(resolve("owner/old", cache_folder=cache))


def test_the_second_time_nothing_is_fetched(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    first = resolve(NAME, cache_folder=cache)
    hub.log.clear()
    assert resolve(NAME, cache_folder=cache) == first
    assert hub.fetched() == []


# ---- revisions


def test_branch_tag_and_commit(hub: FakeHub, cache: Path) -> None:
    old = hub.commit(NAME, {**WHOLE, "vocab.txt": b"old"}, ref="v1")
    new = hub.commit(NAME, {**WHOLE, "vocab.txt": b"new"})
    asked = {None: (new, b"new"), "main": (new, b"new"), "v1": (old, b"old"), old: (old, b"old")}
    for revision, (commit, vocab) in asked.items():
        files = resolve(NAME, revision=revision, cache_folder=cache)
        assert (files.revision, contents(files)["vocab.txt"]) == (commit, vocab)
        assert resolve(NAME, revision=revision, cache_folder=cache, local_files_only=True) == files


def test_a_branch_that_moves_on(hub: FakeHub, cache: Path) -> None:
    old = hub.commit(NAME, WHOLE)
    assert resolve(NAME, cache_folder=cache).revision == old
    new = hub.commit(NAME, {**WHOLE, "model.safetensors": WEIGHTS[::-1]})
    files = resolve(NAME, cache_folder=cache)
    assert (files.revision, contents(files)["model.safetensors"]) == (new, WEIGHTS[::-1])


def test_a_branch_that_moves_on_while_it_is_fetched(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    moved: list[str] = []
    hub.before = lambda request: (
        moved.append(hub.commit(NAME, {**WHOLE, "vocab.txt": b"new"}))
        if request.file == "model.safetensors" and not moved
        else None
    )
    files = resolve(NAME, cache_folder=cache)
    assert (files.revision, "vocab.txt" in contents(files)) == (moved[0], True)
    assert resolve(NAME, cache_folder=cache, local_files_only=True) == files


def test_a_missing_revision(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    with pytest.raises(ModelNotFoundError, match=r"has no revision 'v9' at http.*branch, a tag or a full commit"):
        resolve(NAME, revision="v9", cache_folder=cache)


# ---- repositories that are missing, private or gated


@pytest.mark.parametrize("token", [False, "good"])
def test_a_missing_repository(hub: FakeHub, cache: Path, token: str | bool) -> None:
    hub.tokens["good"] = set()
    with pytest.raises(ModelNotFoundError, match=r"no model 'owner/typo' at http.*Check the spelling.*HF_TOKEN"):
        resolve("owner/typo", token=token, cache_folder=cache)


def test_a_private_repository_opens_to_its_token(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.commit(NAME, WHOLE, private=True)
    hub.tokens["good"] = {NAME}
    with pytest.raises(ModelNotFoundError, match="private"):
        resolve(NAME, cache_folder=cache)
    monkeypatch.setenv("HF_TOKEN", "good")
    assert resolve(NAME, cache_folder=cache).revision == commit


@pytest.mark.parametrize(("token", "said"), [(False, "No token was sent"), ("stranger", "not on their list")])
def test_a_gated_repository_says_where_to_ask(hub: FakeHub, cache: Path, token: str | bool, said: str) -> None:
    hub.commit(NAME, WHOLE, gated=True)
    hub.tokens["stranger"] = set()
    with pytest.raises(ModelAccessError, match=f"gated.*{said}.*Ask for access at {hub.url}/{NAME}.*HF_TOKEN"):
        resolve(NAME, token=token, cache_folder=cache)


def test_a_gated_repository_opens_to_its_token(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE, gated=True)
    hub.tokens["good"] = {NAME}
    assert contents(resolve(NAME, token="good", cache_folder=cache)) == WHOLE
    assert {request.token for request in hub.log if not request.path.startswith("/cdn/")} == {"good"}
    assert [request.token for request in hub.gets("model.safetensors")] == [None], "the CDN was sent the token"


def test_an_expired_token_is_told_apart(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    with pytest.raises(ModelAccessError, match=r"refused 'owner/reranker'.*Is the token.*token=False sends none"):
        resolve(NAME, token="expired", cache_folder=cache)


def test_the_saved_token_that_is_not_there(hub: FakeHub, cache: Path) -> None:
    with pytest.raises(ModelAccessError, match=r"token=True asks for the token saved on this machine.*hf auth login"):
        resolve(NAME, token=True, cache_folder=cache)


def test_a_refusal_points_at_the_copy_in_the_cache(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    resolve(NAME, cache_folder=cache)
    hub.repos[NAME].private = True
    with pytest.raises(ModelNotFoundError, match="The cache has a copy: local_files_only=True uses it"):
        resolve(NAME, cache_folder=cache)


# ---- downloads that break


def test_a_download_that_breaks_off_is_resumed(hub: FakeHub, cache: Path) -> None:
    # huggingface_hub writes, and so keeps, pieces of 10 MB.
    large = {**SMALL, "model.safetensors": WEIGHTS * 120}
    hub.commit(NAME, large)
    hub.break_off("model.safetensors", after=15_000_000, times=1)
    assert contents(resolve(NAME, cache_folder=cache)) == large
    first, second = hub.gets("model.safetensors")
    assert first.range is None
    assert int(second.range.removeprefix("bytes=").removesuffix("-")) >= 10_000_000


def test_a_connection_that_is_reset_is_tried_again(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    hub.break_off("model.safetensors", after=50_000, times=1, reset=True)
    assert contents(resolve(NAME, cache_folder=cache)) == WHOLE


def test_a_download_that_is_cut_goes_on_at_the_next_call(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    hub.break_off("model.safetensors", after=50_000, times=2, reset=True)
    with pytest.raises(DownloadError, match=r"could not be fetched.*has no whole copy of.*call again"):
        resolve(NAME, cache_folder=cache)
    with pytest.raises(ModelNotFoundError, match="no whole copy of 'owner/reranker'"):
        resolve(NAME, cache_folder=cache, local_files_only=True)
    hub.log.clear()
    assert contents(resolve(NAME, cache_folder=cache)) == WHOLE
    assert hub.fetched() == ["model.safetensors"], "files that had arrived whole were fetched again"


def test_while_the_new_commit_is_not_whole_the_old_one_is_used(hub: FakeHub, cache: Path) -> None:
    hub.commit(NAME, WHOLE)
    old = resolve(NAME, cache_folder=cache)
    hub.commit(NAME, {**WHOLE, "config.json": b"{}", "model.safetensors": WEIGHTS[::-1]})
    hub.break_off("model.safetensors", after=50_000, times=2, reset=True)
    with pytest.warns(CrossRankWarning, match=f"The copy in the cache is used, commit {old.revision}"):
        assert resolve(NAME, cache_folder=cache) == old
    assert resolve(NAME, cache_folder=cache, local_files_only=True) == old
