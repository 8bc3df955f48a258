"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

FLAGS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx2")


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """The commit that runs, with a ``+`` if files differ from it; empty outside a clone."""
    command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def machine() -> dict[str, object]:
    """Processor, cores, instructions that matter, system, and the commit."""
    rows: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            rows.setdefault(key.strip(), value.strip())
    flags = set(rows.get("flags", rows.get("Features", "")).split())
    family = f", family {rows['cpu family']} model {rows['model']}" if "cpu family" in rows else ""
    return {
        "processor": rows.get("model name", platform.processor() or platform.machine()) + family,
        "cores": available_cores(),
        "flags": {flag: flag in flags for flag in FLAGS},
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit(),
    }


def in_words(facts: dict[str, object]) -> str:
    """One line."""
    flags = facts["flags"]
    assert isinstance(flags, dict)
    has = ", ".join(flag for flag, there in flags.items() if there) or "none of " + ", ".join(flags)
    return (
        f"{facts['processor']}; {facts['cores']} cores; {has}; {facts['memory_gb']} GB; {facts['system']}; "
        f"Python {facts['python']}"
    )
