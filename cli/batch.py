"""``vidllava ask --batch``: many questions, one model, several clips in flight, and nothing lost.

    vidllava ask --batch questions.jsonl -o answers.jsonl

An answer is on disk before the next is begun, so a run may be ended in any way: the same command goes on. A
clip that cannot be read is never answered; its row says why, and the next run tries it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli import bounds, outputs
from vidllava.cli.asking import Answering, Asking, Seeing, Weights
from vidllava.cli.console import Console
from vidllava.cli.progress import BatchProgress
from vidllava.data.media_root import MediaRoot, OutsideRoot
from vidllava.data.row_frames import NUMBERS, RATE, TIMES, WORDS, own_frames
from vidllava.data.source import RowFault
from vidllava.errors import (
    DatasetError,
    MediaError,
    PartialFailure,
    ResourceError,
    UnfamiliarMedia,
    UsageError,
    VidllavaError,
)
from vidllava.evaluation.answer_file import SETTINGS_FORMAT, AnswerFile, Record
from vidllava.files.identity import media_identity
from vidllava.files.writing import refuse_inputs
from vidllava.media.files import is_file_name

if TYPE_CHECKING:
    from vidllava.backbone.ahead import Plan, Prepared
    from vidllava.backbone.answer import Answer
    from vidllava.backbone.settings import GenerateOptions
    from vidllava.media.sampler import Sampler
    from vidllava.visuals.question import AskOptions, Question

MAX_SHOWN = 5  # faults named in the error; the rest are counted
_NAME_CHARACTERS = 50  # shown of a name that is none
_MEDIA = ("media", "video", "image")
_KNOWN = {"id", "question", *_MEDIA, *NUMBERS, *TIMES, *WORDS, RATE}


@dataclass(frozen=True)
class Row:
    """One question."""

    id: str | int
    media: tuple[str, ...]
    """As the row has them."""
    paths: tuple[str, ...]
    question: str
    own: tuple[tuple[str, Any], ...]
    """Options of ``AskOptions`` that this row sets itself."""

    @cached_property
    def key(self) -> str:
        """Names what was asked, the content of the media with it."""
        contents = [media_identity(path) for path in self.paths]
        words = json.dumps([self.id, self.question, self.media, contents, self.own])
        return hashlib.blake2b(words.encode(), digest_size=12).hexdigest()


def read_rows(path: Path, media_root: Path | None) -> tuple[list[Row], list[str]]:
    """(the rows, keys that mean nothing here). Raises DatasetError naming the line of every fault."""
    root = MediaRoot(media_root if media_root is not None else path.parent)
    rows: list[Row] = []
    faults: list[str] = []
    first_line: dict[str, int] = {}
    outside = False
    ignored: dict[str, None] = {}
    number = 0
    for line, text in _lines(path):
        number += 1
        try:
            record = _decode(text)
            row = _row(record, line, root)
            if str(row.id) in first_line:
                raise RowFault(f"id {row.id!r} was used by line {first_line[str(row.id)]}")
            first_line[str(row.id)] = line
            rows.append(row)
            ignored |= dict.fromkeys(key for key in record if key not in _KNOWN)
        except RowFault as fault:
            # The error names the media root once, in its hint.
            faults.append(f"line {line}: {fault}".removesuffix(f" {root.path}"))
            outside |= isinstance(fault, OutsideRoot)
    if faults:
        more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
        listed = "; ".join(faults[:MAX_SHOWN]) + more
        hint = "mend or remove these lines"
        if outside:
            hint = f"the media root is {root.path}; --media-root / allows every path"
        raise DatasetError(path, f"{len(faults)} of {number} rows cannot be used: {listed}", hint)
    if not rows:
        raise DatasetError(path, "holds no rows", "one JSON object a line")
    return rows, list(ignored)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DatasetError(path, f"is not UTF-8 (byte {fault.start})", "convert it to UTF-8") from None
    except OSError as fault:
        raise DatasetError(path, fault.strerror or "cannot be read", "check the path") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _decode(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as fault:
        raise RowFault(f"invalid JSON: {fault.msg}") from None
    except ValueError:
        raise RowFault("invalid JSON: a number of too many digits") from None
    except RecursionError:
        raise RowFault("invalid JSON: nested too deeply") from None
    if not isinstance(record, dict):
        raise RowFault("must be an object")
    return record


def _row(record: dict[str, Any], line: int, root: MediaRoot) -> Row:
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise RowFault("needs `question`, a text")
    identity = record.get("id", line)
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise RowFault("`id` must be a text or a whole number")
    named = [key for key in _MEDIA if record.get(key) is not None]
    if len(named) != 1:
        raise RowFault("needs one of `media`, `video` and `image`")
    value = record[named[0]]
    media = [value] if isinstance(value, str) else value
    if not isinstance(media, list) or not media or not all(isinstance(name, str) for name in media):
        raise RowFault(f"`{named[0]}` must be a file name or a list of file names")
    paths = tuple(_path(name, root) for name in media)
    return Row(identity, tuple(media), paths, question.strip(), own_frames(record))


def _path(name: str, root: MediaRoot) -> str:
    if "://" in name:
        raise RowFault(f"{name[:_NAME_CHARACTERS]!r}: only local files are read in a batch")
    if not name or "\0" in name:
        raise RowFault(f"{name[:_NAME_CHARACTERS]!r} is no file name")
    if not is_file_name(name):  # half a surrogate pair: the look-up says so in this row's answer
        return os.path.join(root.path, name)
    return root.place(name)


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
