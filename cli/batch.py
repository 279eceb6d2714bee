"""``vidllava ask --batch``: rows of a file asked of one model, several clips in flight, and nothing lost.

    vidllava ask --batch questions.jsonl -o answers.jsonl

An answer is on disk before the next is begun, so a run may be ended in any way: the same command goes on. A
clip that cannot be read is never answered; its row says why, and the next run tries it again. What ``eval``
has in common with it (the flags, the model, the settings by which answers are known) is here too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vidllava.cli import bounds, outputs
from vidllava.cli.asking import Seeing, Weights
from vidllava.cli.console import Console
from vidllava.cli.progress import BatchProgress
from vidllava.data.media_root import MediaRoot, OutsideRoot
from vidllava.data.row import NUMBERS, RATE, TIMES, WORDS, own_frames
from vidllava.data.source import RowFault
from vidllava.errors import DatasetError, PartialFailure, UsageError, VidllavaError
from vidllava.evaluation.engine import ANSWERED, SETTINGS_FORMAT, Batch, PlannedRow
from vidllava.evaluation.item import DataEntry, Record
from vidllava.evaluation.ranks import Ranks
from vidllava.files.identity import media_identity
from vidllava.files.writing import refuse_inputs
from vidllava.media.files import is_file_name
from vidllava.visuals.options import AskOptions, GenerateOptions

if TYPE_CHECKING:
    from vidllava.backbone.ahead import Plan
    from vidllava.media.sampler import Sampler
    from vidllava.visuals.question import Question

Item = TypeVar("Item")
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
            row = _row(DataEntry(record, line, path, root))
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


def _row(entry: DataEntry) -> Row:
    question, media = entry.text("question"), entry.media(*_MEDIA)
    paths = tuple(_path(name, entry.root) for name in media)
    return Row(entry.identity(), media, paths, question, own_frames(entry.record))


def _path(name: str, root: MediaRoot) -> str:
    if "://" in name:
        raise RowFault(f"{name[:_NAME_CHARACTERS]!r}: only local files are read in a batch")
    if not name or "\0" in name:
        raise RowFault(f"{name[:_NAME_CHARACTERS]!r} is not a file name")
    if not is_file_name(name):  # half a surrogate pair: the look-up says so in this row's answer
        return os.path.join(root.path, name)
    return root.place(name)


DECODE_SECONDS = 30.0  # a clip among many is given up earlier than the only one


@dataclass(frozen=True, kw_only=True)
class ManyFlags:
    """What the command line said, as far as ``ask --batch`` and ``eval`` say the same."""

    output: Path
    overwrite: bool
    workers: int | None
    asked: AskOptions
    seeing: Seeing
    weights: Weights
    chosen: GenerateOptions
    reading: bounds.FileBounds


class ManyAsker(Generic[Item]):
    """Rows asked of one model: it is found and held against the flags at once, and loaded by the engine."""

    def __init__(
        self, flags: ManyFlags, asked: AskOptions, chosen: GenerateOptions, console: Console
    ) -> None:
        """Raises UsageError and ModelError."""
        # Importing it decides nothing and costs a decoder library: only now, after every row was checked.
        from vidllava.media.decode import choose_backend

        choose_backend(asked.video_backend)
        self.flags, self.asked, self.chosen, self.console = flags, asked, chosen, console
        self.shown, self.checkpoint = flags.weights.locate(asked)
        flags.weights.tell_stand_in(self.shown, console)
        from vidllava.backbone.settings import read_settings
        from vidllava.visuals.question import check_options

        self.settings = read_settings(self.checkpoint, self.shown)
        check_options(self.settings, asked)

    def batch(
        self,
        rows: Sequence[Item],
        ids: Sequence[str],
        keys: Sequence[str],
        others: dict[str, object],
        **engine: Any,
    ) -> Batch[Item]:
        """The rows for the engine; ``others``: what may change an answer besides flags, model and row."""
        outputs.check_folder(self.flags.output.absolute().parent)
        reuse = not self.flags.seeing.no_reuse_frames
        return Batch(
            rows=rows,
            keys=keys,
            ids=ids,
            output=self.flags.output,
            model=self.shown,
            settings=settings_key(
                self.flags.weights, self.asked, self.chosen, self.checkpoint, reuse_frames=reuse, **others
            ),
            overwrite=self.flags.overwrite,
            workers=self.flags.workers,
            limits=self.flags.reading.limits(default_seconds=DECODE_SECONDS),
            frame_size=self.settings.frame_size,
            repeats=self.flags.seeing.folder() is None,
            **engine,
        )

    def begin(self, total: int, ranks: Ranks) -> None:
        """See ``Asker``."""
        self.progress = BatchProgress(self.console, total)
        weights = replace(self.flags.weights, device=ranks.device(self.flags.weights.device))
        self.backbone, _ = weights.load(self.shown)
        from vidllava.backbone.feature_cache import FeatureCache

        folder = self.flags.seeing.folder()
        self.seeing: dict[str, Any] = {
            "cache": None if folder is None else FeatureCache(self.backbone, folder),
            "reuse_frames": not self.flags.seeing.no_reuse_frames,
        }

    def done(self, record: Record) -> None:
        """See ``Asker``."""
        self.progress.done("ok" if record["status"] in ANSWERED else "failed")
        if record["error"] is not None:
            self.console.detail(f"{record['id']}: {record['error']}")


class RowAsker(ManyAsker[Row]):
    """Rows of ``--batch``: each as ``ask`` would ask it, with its own options before the flags."""

    def planner(self) -> Plan[Row]:
        """See ``Asker``."""
        from vidllava.backbone.tokens import read_codec
        from vidllava.visuals.question import plan_question, row_options

        codec = read_codec(self.checkpoint)

        def plan(row: Row, sampler: Sampler) -> Question:
            options = row_options(self.asked, dict(row.own), row.paths)
            return plan_question(row.paths, row.question, self.settings, codec, options, sampler=sampler)

        return plan

    def answer(self, asked: Sequence[PlannedRow[Row]]) -> list[Record | VidllavaError]:
        """See ``Asker``."""
        return [self._line(one) for one in asked]

    def _line(self, one: PlannedRow[Row]) -> Record | VidllavaError:
        from vidllava.backbone.answer import answer_question
        from vidllava.cli.report import answer_json

        start, prepared, row = time.perf_counter(), one.prepared, one.row
        try:
            answer = answer_question(
                self.backbone,
                prepared.question,
                self.chosen,
                sampler=prepared,
                keep_pixels=False,
                **self.seeing,
            )
        except VidllavaError as fault:
            return fault.with_traceback(None)
        seconds = {"ahead": prepared.seconds, **answer.seconds, "total": time.perf_counter() - start}
        report = answer_json(answer, "", seconds)
        for item, name in zip(report["media"], row.media, strict=True):
            item["media"] = name
        head = {"id": row.id, "status": "ok", "question": row.question, "answer": answer.text, "error": None}
        return {**head, **report, "key": row.key}

    def failed(self, number: int, row: Row, status: str, fault: Exception) -> Record:
        """See ``Asker``."""
        head = {"id": row.id, "status": status, "question": row.question, "answer": None, "error": str(fault)}
        return {**head, "media": [{"media": name} for name in row.media], "key": row.key}


def answer_batch(
    batches: bounds.Batches, many: dict[str, Any], single: Sequence[str], console: Console
) -> None:
    """Answer the rows of ``--batch``; ``single`` names flags that were given and are for one question.

    ``many``: the fields of ``ManyFlags`` that ``batches`` does not hold. Raises PartialFailure where some
    have no answer.
    """
    questions, output = _files(batches, many["reading"], single)
    rows, ignored = read_rows(questions, batches.media_root)
    flags = ManyFlags(output=output, workers=batches.workers, **many)
    ranks = Ranks.of_environment()
    console = console if ranks.is_first else Console(quiet=True)
    asker = RowAsker(flags, flags.asked, flags.chosen, console)
    if ignored:
        console.note(f"{questions}: keys without a meaning here: {', '.join(ignored)}")
    from vidllava.backbone.locate import weights_files

    media = [path for row in rows for path in row.paths]
    refuse_inputs("--output", output, [*media, *weights_files(asker.checkpoint)])
    batch = asker.batch(rows, [str(row.id) for row in rows], [row.key for row in rows], {})
    with ranks, batch.answered(asker, ranks, console) as answers:
        if answers is None:
            return
    answered = {record["key"] for record in answers.records if record["status"] == "ok"}
    failed = sum(key not in answered for key in batch.keys)
    if failed:
        what = f"{failed} of {answers.num_asked} questions have no answer"
        raise PartialFailure(output, what, "their rows say why; the same command tries them again")


def _files(batches: bounds.Batches, reading: bounds.Bounds, single: Sequence[str]) -> tuple[Path, Path]:
    if batches.batch is None:
        raise UsageError("--output", "is for --batch", "leave out --output, or give --batch FILE")
    if batches.output is None:
        raise UsageError("--batch", "needs a file for the answers", "-o answers.jsonl")
    for flag in single:
        raise UsageError(flag, "cannot be given with --batch", "the rows name media and questions")
    if reading.allow_url:
        what = "cannot be given with --batch: URLs are not read in a batch"
        raise UsageError("--allow-url", what, "download the media first, and leave out --allow-url")
    refuse_inputs("--output", batches.output, [batches.batch], what="is the file of the questions")
    return batches.batch, batches.output


def settings_key(
    weights: Weights, asked: AskOptions, chosen: GenerateOptions, checkpoint: Path, **others: object
) -> str:
    """Names whatever may change an answer besides its row: flags, ``others``, the model's whole content."""
    from vidllava.backbone.locate import weights_identity

    planning = asdict(asked)
    # An earlier version knew only whether it was asked for: False in its files is the preset's own way now.
    planning["time_instruction"] = {None: False, True: True, False: "off"}[asked.time_instruction]
    words = [
        planning,
        asdict(chosen),
        {name: getattr(weights, name) for name in ("device", "dtype", "attn_implementation", "pool_first")},
        weights_identity(checkpoint),
    ]
    words += [others] if others else []
    digest = hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=8)
    return f"{SETTINGS_FORMAT}{digest.hexdigest()}"
