"""The number of threads that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from crossrank.errors import InputError

_VARIABLE = "CROSSRANK_NUM_THREADS"
# More than any machine has. OpenVINO can't handle numbers above 32 bits.
_MOST = 4096


def available_threads(requested: int | None = None, *, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The requested number, else ``CROSSRANK_NUM_THREADS``, else the number of processors that this process may use.

    A container's CPU quota counts, because threads beyond it only wait for each other.

    :param requested: The number that the caller requested.
    :param cgroup: The folder in which the kernel shows the quota.
    :raises InputError: If the number is not a positive integer, or above 4096.
    """
    if requested is not None:
        if isinstance(requested, bool) or not isinstance(requested, int) or requested < 1:
            raise InputError(
                f"num_threads={requested!r} is not a positive integer. Leave it out to use all processors."
            )
        return _within("num_threads", requested)
    setting = os.environ.get(_VARIABLE, "").strip()
    if setting:
        if not setting.isdigit() or int(setting) < 1:
            raise InputError(
                f"{_VARIABLE}={setting!r} is not a positive integer. Unset it, or set it to a number of threads."
            )
        return _within(_VARIABLE, int(setting))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(allowed, int(quota))) if quota else allowed


def _within(name: str, threads: int) -> int:
    if threads > _MOST:
        raise InputError(f"{name}={threads} is above {_MOST}. Leave it out to use all processors.")
    return threads


def _quota(cgroup: Path) -> float | None:
    """Processors that the control group allows, from version 2's ``cpu.max`` or version 1's two files."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return None if quota.strip() in ("max", "-1") else max(1.0, int(quota) / int(period))
    except (OSError, ValueError):
        return None
