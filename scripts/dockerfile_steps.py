"""Run the steps of deploy/Dockerfile one by one, without Docker, and ask the server that they end in.

    python scripts/dockerfile_steps.py            # needs a network or a mirror for pip, about a minute

Each stage has a clean folder in place of its file system; absolute paths in a step mean paths in there. `FROM` is not
carried out: this Python takes the place of the base image's. What it shows is that the steps name the right files in
the right order, that nothing is missing from the build context, and that the server starts, is healthy, answers and
stops. As root, it runs as the image's user, if others may use this Python.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# The absolute paths that the steps use.
_INSIDE = re.compile(r"(?<![\w./])/(opt|src|models)(?![\w-])")
_OPTION = re.compile(r"--(\w[\w-]*)=(\S+)\s+")


@dataclass
class Stage:
    """A stage: its folder, and what has been said of it so far."""

    root: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: int | None = None
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def inside(self, text: str) -> str:
        """Turn absolute paths in a step into paths in the stage's folder."""
        return _INSIDE.sub(lambda found: f"{self.root}/{found[1]}", text)

    def variables(self) -> dict[str, str]:
        """All variables of a step, with nothing of this process but where to find programs and packages."""
        kept = {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "LANG") if name in os.environ}
        path = f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin"
        own = {name: self.inside(value).replace("$PATH", path) for name, value in self.environment.items()}
        return {"PATH": path, "HOME": str(self.root), **kept, **own}

    def folder(self, path: str) -> Path:
        """The folder or file that a path means."""
        return self.root / (path if path.startswith("/") else f"{self.workdir}/{path}").lstrip("/")


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Dockerfile into instructions and their arguments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines())]


def context(folder: Path) -> Path:
    """Copy the build context, without what the file of exclusions leaves out."""
    rules = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    left_out = shutil.ignore_patterns(*(rule.removeprefix("**/") for rule in rules if rule.startswith("**/")))
    for name in (rule[1:] for rule in rules if rule.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def build(folder: Path) -> Stage:
    """Carry out all steps; the last stage."""
    given = folder / "context"
    given.mkdir()
    context(given)
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions(DOCKERFILE.read_text()):
        print(f"{word} {rest}", flush=True)
        match word:
            case "FROM":
                name = rest.partition(" AS ")[2] or str(len(stages))
                stage = stages[name] = Stage(folder / name)
                (stage.root / "bin").mkdir(parents=True)
                (stage.root / "opt").mkdir()
                base = getattr(sys, "_base_executable", sys.executable)
                (stage.root / "bin" / "python").symlink_to(base)
            case "WORKDIR":
                stage.workdir = rest
                stage.folder(rest).mkdir(parents=True, exist_ok=True)
            case "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    stage.environment[name] = value
            case "COPY":
                copy(stage, rest, given, stages)
            case "RUN":
                subprocess.run(
                    ["sh", "-ec", stage.inside(rest)], cwd=stage.folder("."), env=stage.variables(), check=True
                )
            case "USER":
                stage.user = int(rest.partition(":")[0])
            case "HEALTHCHECK":
                stage.healthcheck = json.loads(rest.partition("CMD ")[2])
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(rest)
            case "EXPOSE":
                pass
            case _:
                raise SystemExit(f"This script does not know {word}. Teach it, or write the step in another way.")
    return stage


def copy(stage: Stage, rest: str, given: Path, stages: dict[str, Stage]) -> None:
    """Copy files of the context, or of another stage."""
    options = dict(_OPTION.findall(rest))
    *sources, to = _OPTION.sub("", rest).split()
    for source in sources:
        old = stages[options["from"]].folder(source) if "from" in options else given / source
        new = stage.folder(to) / ("" if len(sources) == 1 else source)
        if old.is_dir():
            shutil.copytree(old, new, symlinks=True, dirs_exist_ok=True)
        else:
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)
        if "from" in options:
            move_scripts(stages[options["from"]].root, stage.root, new)
        if "chown" in options and os.getuid() == 0:
            os.chown(new, *map(int, options["chown"].split(":")))


def move_scripts(old: Path, new: Path, folder: Path) -> None:
    """Let the programs of an environment point to where it lies now; in an image both are the same path."""
    for path in folder.glob("bin/*"):
        if path.is_symlink():
            target = path.readlink()
            if target.is_relative_to(old):
                path.unlink()
                path.symlink_to(new / target.relative_to(old))
        elif path.is_file():
            path.write_bytes(path.read_bytes().replace(str(old).encode(), str(new).encode()))


def ask(stage: Stage) -> None:
    """Start the server as the image's user, wait until it is healthy, ask it, stop it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {**stage.variables(), "CROSSRANK_HOST": "127.0.0.1", "CROSSRANK_PORT": str(port)}
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    usable = all(folder.stat().st_mode & 0o001 for folder in (python, *python.parents))
    who = {"user": stage.user, "group": stage.user, "extra_groups": []} if usable and os.getuid() == 0 else {}
    print(f"The server runs as user {stage.user if who else os.getuid()}.")

    def program(command: list[str]) -> list[str]:
        return [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]]

    server = subprocess.Popen(program(stage.entrypoint), cwd=stage.root, env=environment, **who)
    try:
        until = time.monotonic() + 60
        while subprocess.run(
            program(stage.healthcheck), cwd=stage.root, env=environment, stderr=subprocess.DEVNULL, check=False, **who
        ).returncode:
            if time.monotonic() > until or server.poll() is not None:
                raise SystemExit("The server does not become healthy.")
            time.sleep(0.2)
        body = json.dumps({"query": "how do I undo a commit", "documents": ["git log", "git reset undoes a commit"]})
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/rerank", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            best = json.load(response)["results"][0]["index"]
        if best != 1:
            raise SystemExit(f"The server ranks the wrong document first: {best}.")
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(40)
    if code not in (0, -signal.SIGTERM):
        raise SystemExit(f"The server ended with {code}.")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="crossrank-image-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        stage = build(folder)
        size = sum(path.stat().st_size for path in stage.root.rglob("*") if path.is_file() and not path.is_symlink())
        ask(stage)
        print(f"All steps run, and the server answers. Above the base image: {size / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()
