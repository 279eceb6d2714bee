"""``vidllava ask --batch``: many questions, one model, several clips in flight, and nothing lost.

    vidllava ask --batch questions.jsonl -o answers.jsonl

An answer is on disk before the next is begun, so a run may be ended in any way: the same command goes on. A
clip that cannot be read is never answered; its row says why, and the next run tries it again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli import bounds, outputs
from vidllava.cli.asking import Answering, Asking, Seeing, Weights
from vidllava.cli.batch_progress import BatchProgress
from vidllava.cli.batch_rows import Row, read_rows
from vidllava.cli.console import Console
from vidllava.errors import (
    MediaError,
    PartialFailure,
    ResourceError,
    UnfamiliarMedia,
    UsageError,
    VidllavaError,
)
from vidllava.evaluation.answer_file import SETTINGS_FORMAT, AnswerFile, Record
from vidllava.files.writing import refuse_inputs

if TYPE_CHECKING:
    from vidllava.backbone.ahead import Plan, Prepared
    from vidllava.backbone.answer import Answer
    from vidllava.backbone.settings import GenerateOptions
    from vidllava.media.sampler import Sampler
    from vidllava.visuals.question import AskOptions, Question

DECODE_SECONDS = 30.0  # a clip among many is given up earlier than the only one
MAX_WORKERS = 4


@dataclass(frozen=True)
class Command:
    """What the command line said."""

    batches: bounds.Batches
    asking: Asking
    seeing: Seeing
    weights: Weights
    answering: Answering
    reading: bounds.Bounds
    overwrite: bool


def answer_batch(command: Command, single: Sequence[str], console: Console) -> None:
    """Answer the rows of ``--batch``; ``single`` names flags that were given and are for one question.

    Raises PartialFailure where some have no answer.
    """
    questions, output = _files(command, single)
    rows, ignored = read_rows(questions, command.batches.media_root)
    asked, chosen = command.asking.checked(), command.answering.checked()
    # Importing it decides nothing and costs a decoder library: only now, after every row was checked.
    from vidllava.media.decode import choose_backend

    choose_backend(asked.video_backend)
    shown, checkpoint = command.weights.locate(asked)
    command.weights.tell_stand_in(shown, console)
    from vidllava.backbone.locate import weights_files
    from vidllava.backbone.settings import read_settings
    from vidllava.visuals.question import check_options

    check_options(read_settings(checkpoint, shown), asked)
    if ignored:
        console.note(f"{questions}: keys without a meaning here: {', '.join(ignored)}")
    media = [path for row in rows for path in row.paths]
    refuse_inputs("--output", output, [*media, *weights_files(checkpoint)])
    settings = settings_key(
        command.weights, asked, chosen, checkpoint, reuse_frames=not command.seeing.no_reuse_frames
    )
    outputs.check_folder(output.absolute().parent)
    keys = {row.key: str(row.id) for row in rows}
    with AnswerFile(
        output, settings=settings, model=shown, asked=keys, overwrite=command.overwrite
    ) as answers:
        for note in answers.notes:
            console.warn(note)
        todo = [row for row in rows if row.key not in answers.done]
        if len(todo) < len(rows):
            console.note(f"{len(rows) - len(todo)} of {len(rows)} questions are answered already")
        failed = _run(todo, answers, command, (shown, checkpoint), asked, chosen, console) if todo else 0
    if failed:
        what = f"{failed} of {len(todo)} questions have no answer"
        raise PartialFailure(output, what, "their rows say why; the same command tries them again")


def _files(command: Command, single: Sequence[str]) -> tuple[Path, Path]:
    questions, output = command.batches.batch, command.batches.output
    if questions is None:
        raise UsageError("--output", "is for --batch", "leave out --output, or give --batch FILE")
    if output is None:
        raise UsageError("--batch", "needs a file for the answers", "-o answers.jsonl")
    for flag in single:
        raise UsageError(flag, "cannot be given with --batch", "the rows name media and questions")
    if command.reading.allow_url:
        what = "cannot be given with --batch: URLs are not read in a batch"
        raise UsageError("--allow-url", what, "download the media first, and leave out --allow-url")
    refuse_inputs("--output", output, [questions], what="is the file of the questions")
    return questions, output


def settings_key(
    weights: Weights, asked: AskOptions, chosen: GenerateOptions, checkpoint: Path, **others: object
) -> str:
    """Names whatever may change an answer besides its row: flags, ``others``, the model's whole content."""
    from vidllava.backbone.locate import weights_identity

    words = [
        asdict(asked),
        asdict(chosen),
        {name: getattr(weights, name) for name in ("device", "dtype", "attn_implementation", "pool_first")},
        weights_identity(checkpoint),
    ]
    words += [others] if others else []
    digest = hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=8)
    return f"{SETTINGS_FORMAT}{digest.hexdigest()}"


def _run(
    rows: Sequence[Row],
    answers: AnswerFile,
    command: Command,
    model: tuple[str, Path],
    asked: AskOptions,
    chosen: GenerateOptions,
    console: Console,
) -> int:
    """Answer ``rows`` in order; how many have no answer."""
    from vidllava.backbone.ahead import Ahead
    from vidllava.backbone.settings import read_settings
    from vidllava.media.container import num_threads

    shown, checkpoint = model
    settings = read_settings(checkpoint, shown)
    limits = command.reading.limits(default_seconds=DECODE_SECONDS)
    num_workers = min(command.batches.workers or min(num_threads(), MAX_WORKERS), len(rows))
    folder = command.seeing.folder()
    progress = BatchProgress(console, len(rows))
    with Ahead(
        rows,
        _planner(shown, checkpoint, asked),
        size=settings.image_size,
        num_workers=num_workers,
        limits=limits,
        repeats=folder is None,
    ) as ahead:
        backbone, _ = command.weights.load(shown)
        from vidllava.backbone.answer import answer_question
        from vidllava.backbone.feature_cache import FeatureCache

        ahead.torch_is_here.set()
        seeing: dict[str, Any] = {
            "cache": None if folder is None else FeatureCache(backbone, folder),
            "reuse_frames": not command.seeing.no_reuse_frames,
            "keep_pixels": False,
        }

        def answer(prepared: Prepared) -> Answer:
            return answer_question(backbone, prepared.question, chosen, sampler=prepared, **seeing)

        for row, prepared in zip(rows, ahead, strict=True):
            record = _record(row, prepared, answer)
            answers.append(record)
            progress.done(record["status"])
            if record["error"] is not None:
                console.detail(f"{row.id}: {record['error']}")
    return progress.num_failed


def _planner(shown: str, checkpoint: Path, asked: AskOptions) -> Plan[Row]:
    """Plans a row as ``ask`` would plan it, with the row's own options before the flags."""
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.visuals.question import plan_question, row_options

    settings, codec = read_settings(checkpoint, shown), read_codec(checkpoint)

    def plan(row: Row, sampler: Sampler) -> Question:
        options = row_options(asked, dict(row.own), row.paths)
        return plan_question(row.paths, row.question, settings, codec, options, sampler=sampler)

    return plan


def _record(row: Row, prepared: Prepared | Exception, answer: Any) -> Record:
    """One line of the answers. Raises what is no fault of the row."""
    start = time.perf_counter()
    try:
        if isinstance(prepared, Exception):
            raise prepared
        answered: Answer = answer(prepared)
    except VidllavaError as fault:
        status = _status(fault)
        if status is None:
            raise
        return {
            **{"id": row.id, "status": status, "question": row.question, "answer": None, "error": str(fault)},
            **{"media": [{"media": name} for name in row.media], "key": row.key},
        }
    from vidllava.cli.report import answer_json

    seconds = {"ahead": prepared.seconds, **answered.seconds, "total": time.perf_counter() - start}
    report = answer_json(answered, "", seconds)
    for item, name in zip(report["media"], row.media, strict=True):
        item["media"] = name
    head = {"id": row.id, "status": "ok", "question": row.question, "answer": report["answer"], "error": None}
    return {**head, **report, "key": row.key}


def _status(fault: VidllavaError) -> str | None:
    """What a row says of its fault; None for one that would meet every other row too."""
    from vidllava.prompting.budget import OverBudget

    if isinstance(fault, OverBudget):
        return "over_budget"
    kinds = {MediaError: "media_error", ResourceError: "resource_error", UsageError: "usage_error"}
    kinds |= {UnfamiliarMedia: "unfamiliar"}
    return next((status for kind, status in kinds.items() if isinstance(fault, kind)), None)
