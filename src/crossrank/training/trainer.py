"""Train a base on judged pairs and write a checkpoint with a model card.

The loop is sentence-transformers' CrossEncoderTrainer. In addition, frozen modules stay in evaluation mode, save points
hold only the weights that are trained, a batch that does not fit in memory is halved, and the model is written
completely or not at all.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainingArguments, losses
from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

from crossrank.data.judgements import ReadSettings, is_positive
from crossrank.engines.threads import available_threads
from crossrank.errors import CrossRankError, InputError
from crossrank.optional import require
from crossrank.training import base_model
from crossrank.training.checks import digest_of_query
from crossrank.training.data_split import Data, DataSplit, count_long, lengths, split_data
from crossrank.training.held_out import HeldOutEvaluator, compare_held_out, sentence_transformers_logits
from crossrank.training.hf_trainer import EpochNumbers, Marks, Trainer, TrainingLog, last_complete, quiet
from crossrank.training.in_batch import SimilarBatches
from crossrank.training.loss_inputs import Columns
from crossrank.training.losses import IN_BATCH, LOSSES
from crossrank.training.model_card import write_card
from crossrank.training.saving import RUN, check_output, explain_full_disk, only_one, queries_learnt, write_folder
from crossrank.training.settings import Settings
from crossrank.training.training_result import TrainingResult
from crossrank.validation import check_settings_names

Progress = Callable[[int, int, dict[str, float]], object]


def train(
    data: Data | DataSplit,
    output: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    base: str | os.PathLike[str] | None = None,
    evaluation: Data = (),
    general: Data = (),
    reading: ReadSettings | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], object] = lambda message: None,
    **changes: Any,
) -> TrainingResult:
    """Train a model and write it with its model card.

    :param data: What to train on: dictionaries, a DataFrame, a dataset or files, see :func:`.data_split.split_data`; or
        the result of that function.
    :param output: The folder for the model. A model that is already there is replaced once the new one is complete.
    :param base: A name on the hub, a folder, or ``None`` for the bundled model.
    :param evaluation: Held-out data, as ``data``; by default a part of ``data`` is held out.
    :param general: General pairs to mix in, as ``data``.
    :param reading: How the data is read.
    :param resume: Continue from the last save point of a stopped run. Data, settings and base must be the same.
    :param progress: Called with the step, the number of steps, and figures if there are new ones.
    :param tell: Called with a sentence that the user should read.
    :param changes: Fields of :class:`.settings.Settings`, such as ``epochs=1``.
    :raises InputError: If something can't be used.
    :raises ModelError: If the base can't be loaded or is not a cross-encoder.
    :raises MissingExtraError: If a package is not installed.
    :raises OSError: If the disk is full. An existing model is kept.
    :raises CrossRankError: If another process trains a model in the same folder.
    """
    for module in ("datasets", "accelerate"):
        require(module, extra="train", purpose="Training")
    started = time.perf_counter()
    check_settings_names("train()", changes, (one.name for one in fields(Settings)))
    settings, folder, name = replace(settings or Settings(), **changes), Path(output), os.fspath(base) if base else None
    if isinstance(data, DataSplit):
        split = data
    else:
        split = split_data(data, settings, evaluation=evaluation, general=general, reading=reading)
    work = folder.parent / f".{folder.name}.run"
    full_disk = explain_full_disk(folder, "Free some space and continue with --resume.")
    with quiet(), _own_threads(), full_disk, only_one(folder):
        check_output(folder)
        try:
            return _train(split, folder, settings, name, resume, progress, tell, work, started)
        except CrossRankError:
            # Refused before there was a save point.
            if not any(work.glob("checkpoint-*")):
                shutil.rmtree(work, ignore_errors=True)
            raise


@contextmanager
def _own_threads() -> Iterator[None]:
    """Use all threads that the process may use, even if it set another number before.

    The last bits of sums depend on the number of threads, and a resumed run must give the same result in a new process.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(available_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    split: DataSplit,
    output: Path,
    settings: Settings,
    base_name: str | None,
    resume: bool,
    progress: Progress | None,
    tell: Callable[[str], object],
    work: Path,
    started: float,
) -> TrainingResult:
    prepared = LOSSES[settings.loss].rows(split.train, settings)
    if not prepared.rows:
        raise InputError(f"None of the {len(split.train)} queries has what --loss {settings.loss} reads. Take another.")
    for what, count in prepared.left_out.items():
        tell(f"{what.capitalize()}: {count}, which --loss {settings.loss} can't use")
    point = _save_point(work, split, base_name, resume, tell)
    base = base_model.find_base(base_name, work)
    if base.folder.resolve() == output.resolve():
        raise InputError(f"{str(output)!r} is the base itself. Name another folder, to keep the base.")
    if (output / "config.json").is_file():
        tell(f"The model in {str(output)!r} is replaced once the new one is complete")
    count_long(split, base.folder, settings)
    in_batch = settings.loss in IN_BATCH
    most_rows = max(1, settings.batch_size // (1 if in_batch else prepared.pairs_per_row))
    rows, accumulate = min(most_rows, prepared.rows), settings.accumulate
    least = 2 if in_batch and prepared.pairs_per_row == 1 else 1
    if rows < least:
        raise InputError(
            f"A batch of {rows} has no document to compare a positive with. Give negatives (crossrank mine finds "
            "some), or at least two queries and a --batch-size of 2 or more."
        )
    while True:
        try:
            set_seed(settings.seed)
            model = base_model.open_model(base, settings, "cuda" if torch.cuda.is_available() else "cpu")
            before = base_model.weights_of(model)
            trainer = _trainer(model, base, split, prepared, settings, work, rows, accumulate, progress)
            trainer.train(resume_from_checkpoint=str(point) if point else None)
            break
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            if rows // 2 < least:
                fewer = (
                    ", --negatives, --in-batch" if in_batch else ", --list-size" if prepared.pairs_per_row > 2 else ""
                )
                reason = str(error).partition("\n")[0] or type(error).__name__
                raise InputError(
                    f"Not even a batch of {rows} fits in memory ({reason}). Use a smaller --train-length{fewer} or a "
                    "smaller base."
                ) from error
            rows, accumulate = rows // 2, accumulate * 2
            tell(
                f"A batch of {rows * 2} does not fit in memory. Continuing with batches of {rows} and {accumulate} "
                "batches per step"
            )
            point = last_complete(work)
    if settings.lora_rank:
        base_model.merge_lora(model)
    logits = sentence_transformers_logits(model, _at_once(settings, prepared, rows))
    comparison = None
    if settings.average_with_base:
        base_model.average(model, before, settings.average_with_base)
    if split.held_out:
        trained = base_model.weights_of(model)

        def of_base(pairs: list[tuple[str, str]]) -> Any:
            model.model.load_state_dict(before)
            try:
                return logits(pairs)
            finally:
                model.model.load_state_dict(trained)

        comparison = compare_held_out(
            split.held_out,
            result=logits,
            base=of_base,
            learnt={one.document for group in split.train for one in group.judged if is_positive(one.label)},
        )
    result = TrainingResult(
        output,
        trainer.state.global_step,
        trainer.state.global_step < trainer.state.max_steps,
        rows,
        accumulate,
        time.perf_counter() - started,
        comparison,
    )

    def write(folder: Path) -> None:
        model.model.eval()
        model.save_pretrained(str(folder))
        shutil.copyfile(work / "training_log.csv", folder / "training_log.csv")
        if (work / "runs").is_dir():  # TensorBoard's
            shutil.copytree(work / "runs", folder / "runs")
        write_card(folder, split, settings, base, result, _machine(model.device.type))
        facts = {
            "fingerprint": _fingerprint(split, base_name),
            "settings": settings.as_dict(),
            "queries": sorted(queries_learnt(base.files.folder) | {digest_of_query(one.query) for one in split.train}),
        }
        (folder / RUN).write_text(json.dumps(facts, indent=1), encoding="utf-8")

    write_folder(output, write)
    shutil.rmtree(work)
    return result


def _trainer(
    model: CrossEncoder,
    base: base_model.Base,
    split: DataSplit,
    prepared: Columns,
    settings: Settings,
    work: Path,
    rows: int,
    accumulate: int,
    progress: Progress | None,
) -> Trainer:
    datasets = require("datasets", extra="train", purpose="Training")
    frozen = base_model.freeze(model, base, settings)
    rate = base_model.learning_rate(model, settings)
    if settings.lora_rank:
        base_model.add_lora(model, settings.lora_rank)
        frozen = []
    total = math.ceil(math.ceil(prepared.rows / (rows * accumulate)) * settings.epochs)
    interval = max(1, math.ceil(total / settings.evaluations))
    on_cpu = model.device.type == "cpu"
    evaluates = bool(split.held_out) and settings.patience > 0
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulate,
        learning_rate=rate,
        lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        # Rounded down, because the first step of a warm-up has a rate of 0 and there may be few steps.
        warmup_steps=math.floor(settings.warmup * total),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=_bfloat16(settings, on_cpu),
        use_cpu=on_cpu,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        # A resumed run must know how long there has been no improvement.
        restore_callback_states_from_checkpoint=True,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=interval if evaluates else None,
        load_best_model_at_end=evaluates,
        metric_for_best_model="eval_held_out" if evaluates else None,
        greater_is_better=True if evaluates else None,
        logging_steps=max(1, min(interval, total // 50)),
        report_to="tensorboard" if find_spec("tensorboard") is not None else "none",
        disable_tqdm=True,
        dataloader_pin_memory=not on_cpu,
    )
    callbacks: list[Any] = [Marks(), TrainingLog(work / "training_log.csv", progress)]
    if evaluates:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(dict(prepared.data)),
        loss=LOSSES[settings.loss].make(losses, model, replace(settings, batch_size=rows), prepared),
        evaluator=HeldOutEvaluator(split.held_out, _at_once(settings, prepared, rows)) if evaluates else None,
        callbacks=callbacks,
    )
    trainer.frozen, trainer.lengths = frozen, lengths(base.config, settings)
    if settings.loss in IN_BATCH:
        trainer.batches = SimilarBatches(prepared, rows, settings.seed)
        trainer.add_callback(EpochNumbers(trainer.batches))
    trainer.remove_callback(PrinterCallback)
    return trainer


def _at_once(settings: Settings, prepared: Columns, rows: int) -> int:
    """How many pairs to score at once: as many as a training batch, which may have been halved to fit in memory."""
    return min(settings.batch_size, rows * prepared.pairs_per_row)


def _save_point(
    work: Path, split: DataSplit, base: str | None, resume: bool, tell: Callable[[str], object]
) -> Path | None:
    """Find the save point to continue from, and prepare the folder for the run."""
    marker, print_of_this = work / RUN, _fingerprint(split, base)
    if resume and marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) != print_of_this:
            raise InputError(
                f"The stopped run ({str(work)!r}) had other data, settings or another base, so it can't be "
                "continued. Use the same arguments as then, or delete that folder to start again."
            )
        point = last_complete(work)
        step = point.name.rpartition("-")[2] if point else None
        tell(
            f"Continuing from step {step}"
            if step
            else "The run was stopped before its first save point: starting again"
        )
        return point
    if point := last_complete(work):
        raise InputError(
            f"There is a stopped run ({str(work)!r}, step {point.name.rpartition('-')[2]}). Give --resume to "
            "continue it, or delete that folder to start again."
        )
    if resume:
        tell("There is no stopped run to continue: starting from the beginning")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    marker.write_text(json.dumps(print_of_this), encoding="utf-8")
    return None


def _fingerprint(split: DataSplit, base: str | None) -> str:
    return f"{split.fingerprint} {base or 'bundled'}"


def _out_of_memory(error: BaseException) -> bool:
    is_known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_known or "can't allocate memory" in str(error).lower()


def _bfloat16(settings: Settings, on_cpu: bool) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    # Other processors emulate it, which is slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported() if on_cpu else torch.cuda.is_bf16_supported())


def _machine(device: str) -> str:
    if device == "cuda":
        return str(torch.cuda.get_device_name(0))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
