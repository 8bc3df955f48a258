"""A job: scores an input part by part, and can be resumed after it was stopped.

The output folder::

    part-00000.parquet ...      the rows with their scores
    _job.json                   the job: input, columns, model, settings
    _parts/part-00000.json      the record of a finished part: counts, size and checksum of its file
    _bad/part-00000.jsonl       rows that were left out, with the reason

Readers of Parquet folders skip names that start with ``_``. A part is written under another name, then renamed, then
recorded. A part without a record is repeated.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from crossrank.batch.input_files import PART_BYTES, PART_PAIRS, InputFile, Part, file_system, find_files, split
from crossrank.batch.read_part import BadRow, Chunk, read_part, schema_of
from crossrank.batch.score_table import ERROR, Counts, RankBatch
from crossrank.errors import InputError

_BLOCK = 1 << 20
# Settings that don't change the scores: a job can be resumed with others.
_NO_MATTER = frozenset({"num_threads", "token", "cache_folder", "local_files_only"})


@dataclass
class BatchSummary(Counts):
    """The result of a job.

    :param rows: Rows that were read.
    :param pairs: Pairs that were scored.
    :param cut: Pairs whose text did not fit the model.
    :param bad: Rows that were left out; see ``bad_rows``.
    :param documents: Distinct documents of each part, for a model that encodes them separately; 0 with a pipeline.
    :param documents_prepared: How many of them were prepared.
    :param seconds: Seconds of scoring, summed over all processes.
    :param parts: Parts of the job.
    :param resumed: Parts that an earlier run had finished.
    :param redone: Finished parts whose files were missing or damaged.
    :param output: Where the result is.
    :param bad_rows: The folder or file with the rows that were left out; ``None`` if there are none.
    """

    parts: int = 0
    resumed: int = 0
    redone: list[str] = field(default_factory=list)
    output: str = ""
    bad_rows: str | None = None

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second of scoring."""
        return self.pairs / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All fields, and ``pairs_per_second``."""
        return {**asdict(self), "pairs_per_second": self.pairs_per_second}


@dataclass(frozen=True)
class PartRunner:
    """Scores one part. It can be sent to another process, which loads the model for its first part.

    :param files: The input files by path, as they were when the job started.
    """

    input: str
    folder: str
    schema: pa.Schema
    files: Mapping[str, InputFile]
    rank: RankBatch

    def __call__(self, part: Part, advance: Callable[[int], object] = lambda done: None) -> dict[str, Any]:
        """Read, score, write and record a part; return the record.

        :param advance: Called with the finished share of the part's weight.
        :raises InputError: If the input is damaged, or changed since the job started.
        :raises CrossRankError: If the model fails.
        :raises OSError: If the output can't be written.
        """
        source, _ = file_system(self.input)
        target, folder = file_system(self.folder)
        self._check_unchanged(source, part)
        written = f"{folder}/_tmp/{part.name}.{os.getpid()}.parquet"
        target.create_dir(f"{folder}/_tmp", recursive=True)
        schema = _output_schema(self.rank, self.schema)
        self.rank.counts = Counts()
        bad: list[BadRow] = []
        rows = 0
        try:
            with target.open_output_stream(written) as stream, pq.ParquetWriter(stream, schema) as writer:
                for chunk in read_part(source, part, self.schema):
                    bad += chunk.bad
                    good, left_out = _without_errors(self.rank.score_table(chunk.table), chunk, part)
                    bad += left_out
                    rows += good.num_rows
                    writer.write_table(good)
                    advance(chunk.done)
            self._check_unchanged(source, part)
            counts = self.rank.counts
            counts.bad = len(bad)
            if bad:
                lines = (json.dumps(row.to_dict(), ensure_ascii=False, default=str) + "\n" for row in bad)
                _write(target, f"{folder}/_bad/{part.name}.jsonl", "".join(lines).encode("utf-8", "replace"))
            else:
                _delete(target, f"{folder}/_bad/{part.name}.jsonl")
            size, checksum = _checksum(target, written)
            target.move(written, f"{folder}/{part.name}.parquet")
        except BaseException:
            _delete(target, written)
            raise
        record = {"part": asdict(part), **asdict(counts), "written": rows, "size": size, "crc32": checksum}
        _write(target, f"{folder}/_parts/{part.name}.json", json.dumps(record, indent=1).encode())
        return record

    def _check_unchanged(self, source: Any, part: Part) -> None:
        info = source.get_file_info(part.path)
        if info.type == pa.fs.FileType.NotFound or InputFile.of(info) != self.files[part.path]:
            raise InputError(
                f"{part.path!r} changed while the job ran, and finished parts are from the old file. Start again with "
                "another output."
            )


class BatchJob:
    """Scores an input of any size. A new run resumes where an earlier run stopped.

    :param input: A Parquet, JSON lines or CSV file, a folder of such files, a glob, or a cloud address
        (``s3://bucket/folder``).
    :param output: A folder; or a file that ends in ``.parquet``, which is written at the end.
    :param rank: Scores the rows.
    :param part_pairs: The most pairs of a part of Parquet, unless a single row has more.
    :param part_bytes: Approximate bytes of a part of JSON lines or CSV.
    :raises InputError: If input, columns or output can't be used, or the output belongs to another job.
    :raises ModelError: If the model can't be loaded.
    """

    def __init__(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        rank: RankBatch | None = None,
        *,
        part_pairs: int = PART_PAIRS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.input, self.output = os.fspath(input), os.fspath(output)
        self.rank = rank or RankBatch()
        self._one_file = self.output.endswith(".parquet")
        self._target, self._output_path = file_system(self.output)
        self._folder = self._output_path + ".parts" if self._one_file else self._output_path
        self._folder_address = self.output + ".parts" if self._one_file else self.output
        self._source, self._files = find_files(self.input)
        self._refuse_output_in_input()
        self._schema = schema_of(self._source, self._files)
        self.rank.columns(self._schema)
        self._parts = list(split(self._source, self._files, pairs=part_pairs, size=part_bytes))
        self._summary = BatchSummary(output=self.output, parts=len(self._parts))

    @property
    def weight(self) -> int:
        """Bytes or rows of the whole input, for a progress bar."""
        return sum(self._weight(part) for part in self._parts)

    def run(
        self,
        *,
        advance: Callable[[int], object] = lambda done: None,
        engine: Callable[[PartRunner, list[Part]], Iterable[Mapping[str, Any]]] | None = None,
    ) -> BatchSummary:
        """Score the unfinished parts.

        :param advance: Called with the finished share of ``weight``.
        :param engine: Scores the parts elsewhere and yields their records, in any order (default: this process).
        :raises InputError: If the output belongs to another job, or another run is writing it.
        :raises CrossRankError: If a part fails. Finished parts stay; run the same job again to resume it.
        """
        with ExitStack() as held:
            held.enter_context(self._lock())
            self._begin()
            todo = self._todo(advance)
            runner = PartRunner(
                self.input, self._folder_address, self._schema, {file.path: file for file in self._files}, self.rank
            )
            if engine is None:
                for part in todo:
                    self._summary.add(runner(part, advance if part.end >= 0 else lambda done: None))
                    if part.end < 0:
                        advance(self._weight(part))
            else:
                weights = {part.number: self._weight(part) for part in todo}
                for record in engine(runner, todo):
                    self._summary.add(record)
                    advance(weights[record["part"]["number"]])
            if self._summary.bad:
                self._summary.bad_rows = self.output + (".bad.jsonl" if self._one_file else "/_bad")
            if self._one_file:
                self._join()
            else:
                self._target.delete_dir_contents(f"{self._folder}/_tmp", missing_dir_ok=True)
        if self._one_file:  # not before, because the folder contains the lock
            self._target.delete_dir(self._folder)
        return self._summary

    # ---- the output

    def _lock(self) -> Any:
        """Allow one run at a time on an output. Only local outputs are locked."""
        if not isinstance(self._target, pa.fs.LocalFileSystem):
            return ExitStack()
        self._target.create_dir(self._folder, recursive=True)
        try:
            return filelock.FileLock(f"{self._folder}/_lock").acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"Another run is writing {self.output!r}. Wait for it to end, or give another output."
            ) from None

    def _begin(self) -> None:
        """Resume the output, or start it.

        :raises InputError: If it belongs to another job or contains other files.
        """
        if self._one_file and self._exists(self._output_path):
            raise InputError(f"{self.output!r} exists already. Delete it or give another output.")
        job = self._description()
        known = self._read_json(f"{self._folder}/_job.json")
        if known is None:
            inside = self._target.get_file_info(pa.fs.FileSelector(self._folder, allow_not_found=True))
            if [one for one in inside if not one.base_name.startswith("_lock")]:
                raise InputError(f"{self.output!r} is a folder with other files. Give a new or an empty folder.")
            _write(self._target, f"{self._folder}/_job.json", json.dumps(job, indent=1).encode())
            return
        for key, now in job.items():
            if known.get(key) != now:
                raise InputError(
                    f"{self.output!r} was started with another {key!r}: {_difference(known.get(key), now)}. "
                    "Give another output, or delete this one."
                )

    def _description(self) -> dict[str, Any]:
        """What must be the same for a run to resume another one."""
        arguments = {
            name: None if value is None else str(value)
            for name, value in self.rank.arguments.items()
            if name not in _NO_MATTER
        }
        return {
            "input": {file.path: [file.size, file.changed] for file in self._files},
            "columns": {field.name: str(field.type) for field in self._schema},
            "settings": arguments,
            "model": self.rank.identity,
            "parts": [[part.path, part.start, part.end] for part in self._parts],
        }

    def _todo(self, advance: Callable[[int], object]) -> list[Part]:
        """The parts that are unfinished or whose files are damaged. Finished parts are counted."""
        todo = []
        for part in self._parts:
            record = self._read_json(f"{self._folder}/_parts/{part.name}.json")
            if record is None:
                todo.append(part)
                continue
            path = f"{self._folder}/{part.name}.parquet"
            if self._exists(path) and _checksum(self._target, path) == (record["size"], record["crc32"]):
                self._summary.add(record)
                self._summary.resumed += 1
                advance(self._weight(part))
            else:
                self._summary.redone.append(part.name)
                _delete(self._target, f"{self._folder}/_parts/{part.name}.json")
                todo.append(part)
        return todo

    def _join(self) -> None:
        """Join the parts into one file, then rename it."""
        unfinished = self._folder + "/_tmp/joined.parquet"
        self._target.create_dir(f"{self._folder}/_tmp", recursive=True)
        schema = _output_schema(self.rank, self._schema)
        with self._target.open_output_stream(unfinished) as stream, pq.ParquetWriter(stream, schema) as writer:
            for part in self._parts:
                with self._target.open_input_file(f"{self._folder}/{part.name}.parquet") as source:
                    file = pq.ParquetFile(source)
                    for number in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(number))
        if self._summary.bad:
            with self._target.open_output_stream(f"{self._output_path}.bad.jsonl") as stream:
                for part in self._parts:
                    if self._exists(path := f"{self._folder}/_bad/{part.name}.jsonl"):
                        with self._target.open_input_stream(path) as source:
                            while block := source.read(_BLOCK):
                                stream.write(block)
        self._target.move(unfinished, self._output_path)

    def _weight(self, part: Part) -> int:
        if part.end >= 0:
            return max(1, part.end - part.start)
        return next(file.size for file in self._files if file.path == part.path)

    def _exists(self, path: str) -> bool:
        return bool(self._target.get_file_info(path).type == pa.fs.FileType.File)

    def _read_json(self, path: str) -> dict[str, Any] | None:
        if not self._exists(path):
            return None
        with self._target.open_input_stream(path) as stream:
            try:
                found: dict[str, Any] = json.loads(stream.read())
            except ValueError:
                return None
            return found

    def _refuse_output_in_input(self) -> None:
        paths = {file.path for file in self._files}
        inside = [path for path in paths if path == self._output_path or path.startswith(self._folder + "/")]
        if inside and type(self._source) is type(self._target) and not self._read_json(f"{self._folder}/_job.json"):
            raise InputError(f"The output {self.output!r} contains the input {inside[0]!r}. Give another output.")


def _output_schema(rank: RankBatch, given: pa.Schema) -> pa.Schema:
    schema = rank.schema(given)
    return schema.remove(schema.get_field_index(ERROR))


def _without_errors(scored: pa.Table, chunk: Chunk, part: Part) -> tuple[pa.Table, list[BadRow]]:
    """Separate the rows that were scored from the others."""
    errors = scored[ERROR].to_pylist()
    bad = [i for i, error in enumerate(errors) if error is not None]
    good = scored.drop_columns([ERROR])
    if not bad:
        return good, []
    start = 0 if part.format == "parquet" else part.start
    rows = chunk.table.take(bad).to_pylist()
    left_out = [BadRow(part.path, chunk.numbers[i], start, errors[i], row) for i, row in zip(bad, rows, strict=True)]
    return good.filter(pa.array([error is None for error in errors])), left_out


def _write(target: Any, path: str, content: bytes) -> None:
    target.create_dir(path.rpartition("/")[0], recursive=True)
    unfinished = f"{path}.{os.getpid()}.tmp"
    with target.open_output_stream(unfinished) as stream:
        stream.write(content)
    target.move(unfinished, path)


def _checksum(target: Any, path: str) -> tuple[int, int]:
    """Size and CRC-32 of a file."""
    size = checksum = 0
    with target.open_input_stream(path) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum


def _delete(target: Any, path: str) -> None:
    if target.get_file_info(path).type == pa.fs.FileType.File:
        target.delete_file(path)


def _difference(known: Any, now: Any) -> str:
    if isinstance(known, dict) and isinstance(now, dict):
        for name in [*known, *now]:
            if known.get(name) != now.get(name):
                return f"{name} was {known.get(name)}, now {now.get(name)}"
    return f"it was {known}, now {now}" if not isinstance(known, list) else "the parts differ"
