"""The batch engine: rows in, a line with a status for each out; one loop for whatever answers many rows.

    batch = Batch(rows=rows, keys=keys, ids=ids, output=path, model="nano", settings="2-3f7a", ...)
    with Ranks.of_environment() as ranks, batch.answered(asker, ranks, console) as answers:
        answers.records

The user of the engine says in an ``Asker`` how rows are planned and answered and what their lines say. The
engine shares the rows out over processes, decodes ahead, has each line on the disk before the next is begun,
and goes on where an earlier run was cut off: what stands is found by the content of row, media and settings.
Which rows are asked together depends on the rows and the batch size alone, never on where an earlier run
ended: a batch of which one answer is missing is asked again as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vidllava.errors import MediaError, ResourceError, UnfamiliarMedia, UsageError, VidllavaError
from vidllava.evaluation.item import Record
from vidllava.evaluation.ranks import Ranks, parts
from vidllava.files.json_log import Check, Found, JsonLog, read_log
from vidllava.media.frames import FrameSize

if TYPE_CHECKING:
    from vidllava.backbone.ahead import Plan, Prepared
    from vidllava.media.limits import Limits

Row = TypeVar("Row")
STATUSES = ("ok", "unparsed", "decode_error", "usage_error", "over_budget", "oom", "unfamiliar")
"""What became of a row. ``unparsed`` is an answer too: one in which a scorer found none of the options."""
ANSWERED = ("ok", "unparsed")
MAX_WORKERS = 4
SETTINGS_FORMAT = "2-"
"""How the settings of a run begin in its records: the form in which weights, media and flags are named."""
_BEGINS = re.compile(
    rb'\{("doc_id": \d+, )?"id": ("([^"\\]|\\.)*"|-?\d+), '
    rb'("key": "[0-9a-f]{24}"|"status": "[a-z_]+", "question": )'
)
"""How a line begins: of ``eval`` with its key, of ``ask --batch`` with its status."""


def status_of(fault: Exception) -> str:
    """What a row says of its fault. Raises ``fault`` where it would meet every other row too."""
    from vidllava.backbone.memory import OutOfMemory
    from vidllava.prompting.budget import OverBudget

    kinds: tuple[tuple[type[Exception], str], ...] = (
        (OverBudget, "over_budget"),
        (OutOfMemory, "oom"),
        (UsageError, "usage_error"),  # asked for what the media do not have: a range beyond the clip
        (UnfamiliarMedia, "unfamiliar"),
        (MediaError, "decode_error"),
        (ResourceError, "decode_error"),  # a limit on size or decoding time: there are no frames to show
    )
    for kind, status in kinds:
        if isinstance(fault, kind):
            return status
    raise fault


class AnswerFile(JsonLog):
    """Locked while it is open: a second run into the same file is refused."""

    def __init__(
        self,
        path: Path,
        *,
        stamp: Mapping[str, str],
        asked: Mapping[str, str],
        overwrite: bool,
        stands: Sequence[str] = ("ok",),
        earlier: Iterable[Path] = (),
        only: bool = False,
    ) -> None:
        """``stamp``: the model and settings, which stand in every line. ``asked``: the id of each row by its
        key. ``stands``: with these statuses an answer is kept. ``earlier``: other files whose answers are
        taken over. ``only``: a file that holds answers to other rows is refused, and left as it is.

        Raises UsageError for a file of other settings, another model, or no answers at all.
        """
        self.notes: list[str] = []
        self._stamp = stamp
        check = answer_check(stamp)
        super().__init__(path, check=check, begins=_BEGINS, overwrite=overwrite)
        try:
            records = list(self.records)
            torn = [path] if self.was_cut_off else []
            for other in () if overwrite else earlier:
                found = read_log(other, check, begins=_BEGINS)
                records += found.records
                torn += [other] if found.end == "cut off" else []
            self.notes += [f"{each}: the last line was cut off and is answered again" for each in torn]
            kept = standing(records, asked, stands)
            others = sum(str(record["key"]) not in asked for record in kept) if only else 0
            if others:
                what = f"holds answers to {others} questions that are not asked now"
                raise UsageError(f"--output {path}", what, "another name, or --overwrite")
            self.replace(kept)
        except BaseException:
            self.close()
            raise
        self.done = frozenset(str(record["key"]) for record in kept)
        """Keys of the questions that are answered."""

    def append(self, record: Record) -> None:
        """One answer, on disk when this returns. Raises ResourceError."""
        super().append({**record, **self._stamp})


def answer_check(stamp: Mapping[str, str] | None) -> Check:
    """What is wrong with a line of a file of answers; ``stamp``: the model and settings that it must have."""

    def check(record: Record) -> str | None:
        if not all(isinstance(record.get(name), str) for name in ("key", "status", "model", "settings")):
            return "is not an answer of a batch"
        if stamp is None or all(record[name] == value for name, value in stamp.items()):
            return None
        if record["model"] != stamp["model"]:
            return f"was made with model {record['model']}"
        if not record["settings"].startswith(SETTINGS_FORMAT):
            return "was made by an earlier version, which did not read the weights and media whole"
        return "was made with other settings or weights"

    return check


def read_answers(path: Path, stamp: Mapping[str, str] | None) -> Found:
    """The answers in a file. Raises UsageError for those of another run."""
    return read_log(path, answer_check(stamp), begins=_BEGINS)


def is_answers(path: Path) -> bool:
    """Whether a file holds answers and nothing else, of whatever run."""
    try:
        return path.is_file() and bool(read_answers(path, None).records)
    except VidllavaError:
        return False


def standing(found: Iterable[Record], asked: Mapping[str, str], stands: Sequence[str]) -> list[Record]:
    """The answers that stand: of these questions as they are now, and of others; each once."""
    ids = frozenset(asked.values())
    kept: dict[str, Record] = {}
    for record in found:
        key = str(record["key"])
        if record.get("status") in stands and (key in asked or str(record.get("id")) not in ids):
            kept.setdefault(key, record)
    return list(kept.values())


@dataclass(frozen=True, eq=False)
class PlannedRow(Generic[Row]):
    """A row whose question is planned, with the frames of its clips."""

    number: int
    """Its place among the rows."""
    row: Row
    prepared: Prepared


class Asker(Protocol[Row]):
    """What the engine leaves to its user: how a row is asked, and what its line says."""

    def planner(self) -> Plan[Row]:
        """What plans a row's question: made once, in the main thread, and called in several."""

    def begin(self, total: int, ranks: Ranks) -> None:
        """Load the model for ``total`` rows of this process, while the first clips are being decoded."""

    def answer(self, asked: Sequence[PlannedRow[Row]]) -> Sequence[Record | VidllavaError]:
        """A line for each, or the fault that says why there is no answer."""

    def failed(self, number: int, row: Row, status: str, fault: Exception) -> Record:
        """The line of a row that has no answer."""

    def done(self, record: Record) -> None:
        """A line is on the disk."""


class Says(Protocol):
    """Who is told what happens."""

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass(frozen=True, eq=False)
class Answers:
    """The answered batch."""

    file: AnswerFile
    records: list[Record]
    num_asked: int
    """Rows that had no answer before."""


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Row]):
    """Rows that are answered into one file."""

    rows: Sequence[Row]
    keys: Sequence[str]
    """Of each row: its content, and that of its media. Found again, an answer stands."""
    ids: Sequence[str]
    output: Path
    model: str
    settings: str
    """Whatever may change an answer besides its row."""
    overwrite: bool
    stands: tuple[str, ...] = ("ok",)
    """With these statuses an answer is kept; rows with another one are asked again."""
    only: bool = False
    """A file that holds answers to other rows is refused, and left as it is."""
    stale: Sequence[Path] = ()
    """Files on an earlier state of the answers: removed before the first row is asked."""
    size: int = 1
    """Rows asked together."""
    workers: int | None
    """Clips decoded at once; None: as many as there are cores, at most ``MAX_WORKERS``."""
    limits: Limits
    frame_size: FrameSize
    repeats: bool
    """Clips that an earlier row decodes are decoded again: no cache keeps their features."""

    @contextmanager
    def answered(self, asker: Asker[Row], ranks: Ranks, says: Says) -> Iterator[Answers | None]:
        """Answer what has no answer yet; the file is locked within. None in every process but the first.

        Raises what is not a fault of a single row.
        """
        asked = dict(zip(self.keys, self.ids, strict=True))
        if not ranks.is_first:
            ranks.wait()  # the first one takes over what an earlier run has left
            found = standing(read_answers(self.output, self._stamp).records, asked, self.stands)
            self._answer_part(asker, ranks, asked, frozenset(str(one["key"]) for one in found))
            yield None
            return
        with AnswerFile(
            self.output,
            stamp=self._stamp,
            asked=asked,
            overwrite=self.overwrite,
            stands=self.stands,
            earlier=() if self.overwrite else parts(self.output.absolute()),
            only=self.only,
        ) as file:
            for note in file.notes:
                says.warn(note)
            self._forget_parts()
            num_done = len(file.done.intersection(asked))
            if num_done:
                says.note(f"{num_done} of {len(asked)} questions are answered already")
            for path in self.stale:
                path.unlink(missing_ok=True)
            ranks.wait()
            try:
                if ranks.world == 1:
                    self._answer(asker, ranks, file, file.done)
                else:
                    self._answer_part(asker, ranks, asked, file.done)
                    file.replace(self._in_order([*file.read(), *self._of_parts()]))
            except KeyboardInterrupt:
                says.warn("interrupted: the same command goes on where it stopped")
                raise
            yield Answers(file, file.read(), len(asked) - num_done)
            self._forget_parts()

    @property
    def _stamp(self) -> dict[str, str]:
        """What stands in every line."""
        return {"model": self.model, "settings": self.settings}

    def _answer_part(
        self, asker: Asker[Row], ranks: Ranks, asked: Mapping[str, str], done: Collection[str]
    ) -> None:
        """This process's share, into a file of its own; returns when every process has done its share."""
        path = ranks.part(self.output)
        with AnswerFile(path, stamp=self._stamp, asked=asked, overwrite=True) as part:
            self._answer(asker, ranks, part, done)
        ranks.wait()

    def _of_parts(self) -> Iterable[Record]:
        for path in parts(self.output.absolute()):
            yield from read_answers(path, self._stamp).records

    def _forget_parts(self) -> None:
        for path in parts(self.output.absolute()):
            path.unlink(missing_ok=True)

    def _in_order(self, records: Iterable[Record]) -> list[Record]:
        """As the rows are; answers to other rows stand before them."""
        places = {key: place for place, key in enumerate(self.keys)}
        return sorted(records, key=lambda record: places.get(str(record["key"]), -1))

    def _answer(self, asker: Asker[Row], ranks: Ranks, file: AnswerFile, done: Collection[str]) -> None:
        """Ask this process's share of what has no answer yet."""
        from vidllava.backbone.ahead import Ahead
        from vidllava.media.container import num_threads

        batches = batches_of(self.keys, self.size, done, rank=ranks.rank, world=ranks.world)
        if not batches:
            return
        rows = [self.rows[number] for batch in batches for number in batch]
        with Ahead(
            rows,
            asker.planner(),
            size=self.frame_size,
            num_workers=min(self.workers or min(num_threads(), MAX_WORKERS), len(rows)),
            limits=self.limits,
            repeats=self.repeats,
        ) as ahead:
            asker.begin(sum(self.keys[number] not in done for batch in batches for number in batch), ranks)
            ahead.torch_is_here.set()
            coming = iter(ahead)
            for batch in batches:
                records = self._records(asker, {number: next(coming) for number in batch})
                for number in batch:
                    if self.keys[number] not in done:
                        file.append(records[number])
                        asker.done(records[number])

    def _records(self, asker: Asker[Row], found: Mapping[int, Prepared | Exception]) -> dict[int, Record]:
        """The lines of rows that are asked together. Raises what is not a fault of a single row."""
        asked = [
            PlannedRow(number, self.rows[number], one)
            for number, one in found.items()
            if not isinstance(one, Exception)
        ]
        replies: dict[int, Record | Exception] = {
            number: one for number, one in found.items() if isinstance(one, Exception)
        }
        for one, reply in zip(asked, asker.answer(asked) if asked else (), strict=True):
            replies[one.number] = reply
        return {
            number: asker.failed(number, self.rows[number], status_of(reply), reply)
            if isinstance(reply, Exception)
            else reply
            for number, reply in replies.items()
        }


def batches_of(
    keys: Sequence[str], size: int, done: Collection[str], *, rank: int = 0, world: int = 1
) -> list[range]:
    """The batches of process ``rank`` in which an answer is missing: numbers of rows, counted from 0."""
    every = [range(start, min(start + size, len(keys))) for start in range(0, len(keys), size)]
    return [batch for batch in every[rank::world] if any(keys[number] not in done for number in batch)]
