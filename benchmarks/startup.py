"""From ``python`` to the first score, memory, and the size of an installation.

    python -m benchmarks.startup

Time and memory are the operating system's own count for a whole process (``wait4``): starting Python, imports, loading
the model, scoring. Ours and sentence-transformers' processes run in turns; the first round warms the file cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks import workloads
from benchmarks.checkpoint import prepared
from benchmarks.machine import in_words, machine
from benchmarks.systems import ROOT

# What we promise: seconds of processor time to the first score, MB while ranking 100 documents, MB installed.
FIRST_SCORE, RANKING, INSTALLED = 0.8, 400, 350
MANY_PAIRS = 5000
NOT_COUNTED = ("pip", "setuptools", "pkg_resources", "_distutils_hack")

QUERY = "how do I undo the last commit but keep my changes"
DOCUMENTS = [
    "git reset --soft HEAD~1 takes the last commit back and leaves its changes staged.",
    "git clone copies a repository into a new directory.",
    "git stash puts the changes of the working directory aside.",
]
_RANK = f"model.rank({QUERY!r}, {DOCUMENTS!r})"
_SCORE = "import json, sys; model.predict(json.load(open(sys.argv[1], encoding='utf-8')), show_progress_bar=False)"


@dataclass(frozen=True)
class Run:
    """One process: seconds, and MB of a million bytes."""

    wall: float
    cpu: float
    peak_mb: float


def run(code: str, *arguments: str) -> Run:
    """A Python process from its start to its end.

    :raises SystemExit: If it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{code}\nended with {process.returncode}:\n{errors.decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6)


def first_score(models: dict[str, str], rounds: int) -> dict[str, Run]:
    """Medians of each, run in turns."""
    runs: dict[str, list[Run]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, code in models.items():
            done = run(f"{code}; {_RANK}")
            if number:
                runs[name].append(done)
    fields = ("wall", "cpu", "peak_mb")
    return {
        name: Run(*(statistics.median(getattr(one, field) for one in done) for field in fields))
        for name, done in runs.items()
    }


def installed_mb(folder: Path) -> dict[str, float]:
    """A new environment with the core only: MB on disk of each entry of site-packages, the largest first."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", str(ROOT)], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    sizes = {
        entry.name: sum(file.lstat().st_blocks * 512 for file in (entry, *entry.rglob("*"))) / 1e6
        for entry in site.iterdir()
        if entry.name.split("-")[0] not in NOT_COUNTED
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def kept(value: float, limit: float, unit: str) -> str:
    return f"{'within' if value <= limit else 'OVER'} the limit of {limit:g} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=workloads.DATA, help="folder of the collections")
    parser.add_argument("--synthetic", action="store_true", help="made-up texts instead of Cranfield's")
    parser.add_argument("--rounds", type=int, default=7, help="processes of each (%(default)s)")
    parser.add_argument("--pairs", type=int, default=MANY_PAIRS, help="for the memory of many (%(default)s)")
    parser.add_argument("--no-install", action="store_true", help="leave out the size of an installation")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="where checkpoints are kept")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()

    if args.synthetic:
        pairs = workloads.synthetic(args.pairs, words=160)  # About Cranfield's length.
    else:
        pairs = workloads.collection("cranfield", args.pairs, args.data)
    minilm = str(prepared("minilm", args.folder))
    ours = "from crossrank import CrossEncoder; model = CrossEncoder({})"
    theirs = "from sentence_transformers import CrossEncoder; model = CrossEncoder({}, device='cpu')"
    models = {
        "crossrank, bundled model": ours.format(""),
        "crossrank, MiniLM-L6": ours.format(repr(minilm)),
        "sentence-transformers, MiniLM-L6": theirs.format(repr(minilm)),
    }
    box = next(iter(models))

    started = first_score(models, args.rounds)
    print(f"| to the first score, medians of {args.rounds} | wall time | processor time | peak RSS |")
    print("| --- | ---: | ---: | ---: |")
    for name, done in started.items():
        print(f"| {name} | {done.wall:.2f} s | {done.cpu:.2f} s | {done.peak_mb:.0f} MB |")
    print(f"\n{box}: {kept(started[box].cpu, FIRST_SCORE, 's of processor time')}\n", flush=True)

    memory: dict[str, dict[int, float]] = {}
    print(f"| peak RSS while scoring | 100 documents | {len(pairs)} pairs |\n| --- | ---: | ---: |")
    for name, code in models.items():
        memory[name] = {}
        for count in (100, len(pairs)):
            # At their speed the many take minutes, and the limit is ours.
            if count == 100 or name.startswith("crossrank"):
                memory[name][count] = run(f"{code}; {_SCORE}", _written(args.folder, pairs[:count])).peak_mb
        many = f"{memory[name][len(pairs)]:.0f} MB" if len(pairs) in memory[name] else "-"
        print(f"| {name} | {memory[name][100]:.0f} MB | {many} |", flush=True)
    print(f"\n{box}, 100 documents: {kept(memory[box][100], RANKING, 'MB')}\n")

    sizes: dict[str, float] = {}
    if not args.no_install:
        with tempfile.TemporaryDirectory() as folder:
            sizes = installed_mb(Path(folder))
        print(f"installed, core only: {sum(sizes.values()):.0f} MB, {kept(sum(sizes.values()), INSTALLED, 'MB')}")
        print("the largest: " + ", ".join(f"{name} {size:.0f}" for name, size in list(sizes.items())[:6]))
    facts = machine()
    print(in_words(facts))
    if args.json:
        first = {name: vars(done) for name, done in started.items()}
        figures = {"machine": facts, "first_score": first, "peak_mb": memory, "installed_mb": sizes}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _written(folder: Path, pairs: list[workloads.Pair]) -> str:
    path = folder / f"startup-{len(pairs)}.json"
    path.write_text(json.dumps(pairs), encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    main()
