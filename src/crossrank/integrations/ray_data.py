"""Ray Data: runs the parts of a batch job on a cluster, and has a class for your own ``map_batches``.

>>> dataset.map_batches(RankBatch, fn_constructor_kwargs={"model": "..."}, batch_format="pyarrow", concurrency=4)
... # doctest: +SKIP
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from crossrank.batch.input_files import Part
from crossrank.batch.job import PartRunner
from crossrank.batch.score_table import RankBatch
from crossrank.errors import CrossRankError, InputError
from crossrank.optional import require

__all__ = ["RankBatch", "ray_engine"]


class _PartActor:
    """An actor: loads the model once and does parts."""

    def __init__(self, runner: PartRunner) -> None:
        self._runner = runner
        runner.rank.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the parts of a batch. Input errors are returned as text, because Ray would retry an exception."""
        return {"record": [self._record(Part(**part)) for part in batch["part"]]}

    def _record(self, part: Part) -> dict[str, Any]:
        try:
            return self._runner(part)
        except InputError as error:
            return {"error": str(error)}


def ray_engine(
    *, address: str | None = None, workers: int | None = None, cpus: float = 1.0, gpus: float = 0.0
) -> Callable[[PartRunner, list[Part]], Iterable[Mapping[str, Any]]]:
    """Make an engine for :class:`~crossrank.batch.BatchJob` that does parts on actors of Ray Data.

    Each actor loads the model once. If an actor or its node fails, another one does its part again. All machines need
    access to the input and the output, through a shared file system or cloud addresses.

    :param address: Of a running cluster; ``"auto"`` for the cluster of this machine; ``None`` starts a local one.
    :param workers: The most actors; by default as many as the cluster's processors allow.
    :param cpus: Processors of each actor.
    :param gpus: GPUs of each actor, such as 0.5.
    :raises MissingExtraError: If Ray is not installed.
    :raises InputError: If there is no cluster at the address.
    """
    require("ray.data", extra="ray", purpose="--engine ray")
    import ray
    import ray.data

    def run(runner: PartRunner, parts: list[Part]) -> Iterator[Mapping[str, Any]]:
        if not parts:
            return
        started = not ray.is_initialized()
        if started:
            _check_address(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                raise InputError(f"There is no Ray cluster at {address!r}: {error}.") from error
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            room = max(1, int(ray.cluster_resources().get("CPU", 1) // max(cpus, 1e-9)))
            most = min(len(parts), workers or room)
            dataset = ray.data.from_items(
                [{"part": asdict(part)} for part in parts], override_num_blocks=len(parts)
            ).map_batches(
                _PartActor,
                fn_constructor_args=(runner,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, max_tasks_in_flight_per_actor=2),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            for row in dataset.iter_rows():
                record = row["record"]
                if record.get("error") is not None:
                    raise InputError(record["error"])
                yield record
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            raise CrossRankError(f"A part failed on the cluster: {cause or error}") from error
        finally:
            if started:
                ray.shutdown()

    return run


def _check_address(address: str | None) -> None:
    """Check that a cluster answers; Ray itself would try for minutes.

    :raises InputError: If it does not.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(f"There is no Ray cluster at {address!r}: {error}.") from error
