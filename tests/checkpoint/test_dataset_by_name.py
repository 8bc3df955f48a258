"""A test collection by its name on the hub, over real requests to the loopback hub."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.parquet
import pytest

from crossrank.data.hub_datasets import fetch
from crossrank.data.open_dataset import open_dataset, read_beir
from crossrank.errors import DownloadError, InputError
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


def parquet(rows: list[dict[str, str]]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def test_nano_beir_as_parquet_tables(hub: FakeHub, cache: Path) -> None:
    tables = {
        "corpus": [{"_id": f"d{i}", "text": f"text {i}"} for i in range(5)],
        "queries": [{"_id": "q1", "text": "one"}, {"_id": "q2", "text": "two"}],
        "qrels": [{"query-id": "q1", "corpus-id": "d1"}, {"query-id": "q2", "corpus-id": "d4"}],
    }
    hub.commit(
        "datasets/zeta-alpha-ai/NanoSciFact",
        {f"{name}/train-00000-of-00001.parquet": parquet(rows) for name, rows in tables.items()},
    )
    dataset = read_beir(fetch("NanoSciFact", "test", cache_folder=cache), name="nano")
    assert dict(dataset.queries) == {"q1": "one", "q2": "two"}
    assert [dataset.corpus.text(i) for i in range(5)] == [f"text {i}" for i in range(5)]
    asked = len(hub.fetched())
    assert read_beir(fetch("nanoscifact", "test", cache_folder=cache), name="nano").queries == dataset.queries
    assert len(hub.fetched()) == asked
    hub.commit("datasets/owner/odd", {f"{name}/0.parquet": parquet([{"a": "b"}]) for name in tables})
    with pytest.raises(InputError, match=r"no identifier in '_id'.*; its fields: 'a'"):
        read_beir(fetch("owner/odd", "test", cache_folder=cache))


@pytest.mark.parametrize("name", ["{}-00000-of-00001", "{}/0000"])
def test_of_parquet_judgements_only_the_split_is_read(name: str, hub: FakeHub, cache: Path) -> None:
    files = {
        "corpus/corpus-00000-of-00001": [{"_id": f"d{i}", "text": f"text {i}"} for i in range(3)],
        "queries/queries-00000-of-00001": [{"_id": "q1", "text": "one"}, {"_id": "q2", "text": "two"}],
        f"qrels/{name.format('train')}": [{"query-id": "q1", "corpus-id": "d1"}],
        f"qrels/{name.format('test')}": [{"query-id": "q2", "corpus-id": "d2"}],
    }
    hub.commit("datasets/owner/splits", {f"{file}.parquet": parquet(rows) for file, rows in files.items()})
    for split, query in (("test", "q2"), ("train", "q1")):
        assert list(read_beir(fetch("owner/splits", split, cache_folder=cache), split=split).queries) == [query]
    with pytest.raises(InputError, match="split 'dev', only for test, train"):
        fetch("owner/splits", "dev", cache_folder=cache)


def test_what_is_not_there_is_told(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    hub.commit("datasets/owner/parquet", {"data/test.parquet": b"PAR1"})
    put(hub, "owner/questions", write_beir(tmp_path / "made"))
    with pytest.raises(InputError, match="Parquet files are not in corpus/, queries/ and qrels/"):
        fetch("owner/parquet", "test", cache_folder=cache)
    with pytest.raises(InputError, match=r"qrels/dev\.tsv"):
        fetch("owner/questions", "dev", cache_folder=cache)
    with pytest.raises(DownloadError, match="owner/none"):
        fetch("owner/none", "test", cache_folder=cache)
    with pytest.raises(InputError, match="name of a known dataset"):
        open_dataset("nothing-of-this-name")
    hub.stop()
    with pytest.raises(DownloadError, match="can't be downloaded"):
        fetch("owner/questions", "test", cache_folder=cache / "empty")
