"""A test collection by its name on the hub, over real requests to the loopback hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crossrank.errors import DownloadError, InputError
from crossrank.evaluation.hub_datasets import fetch
from crossrank.evaluation.sources import open_dataset, read_beir
from small_collection import CANDIDATES, QUERIES, write_beir

if TYPE_CHECKING:
    from fake_hub import FakeHub


def put(hub: FakeHub, name: str, folder: Path) -> None:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.commit(f"datasets/{name}", files)


def test_a_repository_in_beirs_layout(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    put(hub, "owner/questions", write_beir(tmp_path / "made"))
    dataset = read_beir(fetch("owner/questions", "test", cache_folder=cache), name="questions")
    assert dict(dataset.queries) == QUERIES
    assert dataset.candidates is not None
    assert dataset.candidates.counts.tolist() == [len(found) for found in CANDIDATES.values()]
    assert len(hub.fetched()) == 4


def test_a_short_name_stands_for_its_repository(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    put(hub, "mteb/scifact", write_beir(tmp_path / "made", candidates=None))
    assert (fetch("scifact", "test", cache_folder=cache) / "corpus.jsonl").is_file()
    assert fetch("BeIR/SciFact", "test", cache_folder=cache).is_dir()


def test_what_is_not_there_is_told(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    hub.commit("datasets/owner/parquet", {"data/test.parquet": b"PAR1"})
    put(hub, "owner/questions", write_beir(tmp_path / "made"))
    with pytest.raises(InputError, match="Parquet files, which are not read"):
        fetch("owner/parquet", "test", cache_folder=cache)
    with pytest.raises(InputError, match=r"qrels/dev\.tsv"):
        fetch("owner/questions", "dev", cache_folder=cache)
    with pytest.raises(DownloadError, match="owner/none"):
        fetch("owner/none", "test", cache_folder=cache)
    with pytest.raises(InputError, match="known by name"):
        open_dataset("nothing-of-this-name")
    hub.stop()
    with pytest.raises(DownloadError, match="can't be fetched"):
        fetch("owner/questions", "test", cache_folder=cache / "empty")
