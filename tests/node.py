"""Packages from npm, installed once for all runs of the tests."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

_CACHE = Path(__file__).parents[1] / "build" / "npm"


def installed(folder: Path) -> Path:
    """A copy of a folder with what its package.json asks for beside it; its versions are exact."""
    asked = (folder / "package.json").read_bytes()
    place = _CACHE / f"{folder.name}-{hashlib.sha256(asked).hexdigest()[:12]}"
    if not (place / "node_modules" / ".package-lock.json").exists():  # npm writes it last
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "package.json").write_bytes(asked)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(["npm", "install", *options], cwd=place, check=True, capture_output=True, timeout=300)
    for script in folder.glob("*.mjs"):
        shutil.copy(script, place)
    return place
