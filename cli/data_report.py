"""How a look at a data set is shown: a bar while it lasts, a summary at the end, the good rows in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from vidllava.cli.console import Console, counted
from vidllava.cli.progress import BatchProgress
from vidllava.files.writing import replacing

if TYPE_CHECKING:
    from vidllava.data.check import DataSummary

_BAR = 40
_PAUSE_SECONDS = 5.0
_UNWIND = "\r\x1b[K"


class CheckProgress:
    """Rows done of one file, on stderr."""

    def __init__(self, console: Console, name: str, total: int) -> None:
        self._bar = BatchProgress(console, total, pause_seconds=_PAUSE_SECONDS)
        self._live = not console.quiet and sys.stderr is not None and sys.stderr.isatty()
        if not self._live and total:
            console.note(f"{name}: {counted(total, 'row')} in order, now their media")

    def done(self, status: str) -> None:
        """One more row."""
        self._bar.done(status)

    def clear(self) -> None:
        """Make room for a line of the answer on the same screen."""
        if self._live:
            sys.stderr.write(_UNWIND)
            sys.stderr.flush()

    def finish(self) -> None:
        """Take the bar away: what is left to say is said by the summary."""
        self.clear()


class RowWriter:
    """Rows in a JSONL file, written aside and renamed at the end: whole or not at all; None writes none."""

    def __init__(self, path: Path | None) -> None:
        self.num_rows = 0
        self._path = path
        self._file: BinaryIO | None = None
        self._stack = ExitStack()

    def __enter__(self) -> RowWriter:
        if self._path is not None:
            self._file = self._stack.enter_context(replacing(self._path))
        return self

    def write(self, row: bytes) -> None:
        """One row, as it stands in its file; one that is spread over lines is put on one."""
        self.num_rows += 1
        if self._file is None:
            return
        row = row.strip()
        if b"\n" in row or b"\r" in row:
            row = json.dumps(json.loads(row), ensure_ascii=False).encode()
        self._file.write(row + b"\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class Lister:
    """Bad rows on stdout."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console, self._as_json = console, as_json

    def bad(self, file: str, row: int, identity: str | None, reason: str) -> None:
        """One line."""
        if self._as_json:
            values: dict[str, Any] = {"file": file, "row": row, "id": identity, "reason": reason}
            self._console.json(values)
            return
        line = f"{place_of(file, row, identity)}: {reason}"
        self._console.write(
            "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        )


def place_of(file: str, row: int, identity: str | None) -> str:
    """A row in words."""
    known_as = f" (id {identity})" if identity not in (None, f"row-{row}") else ""
    return f"{file} row {row}{known_as}"


def show_summary(summary: DataSummary, say: Callable[[str], None]) -> None:
    """Rows, modalities, tokens and what does not fit, line by line."""
    bad = f", {summary.num_bad} cannot be used" if summary.num_bad else ""
    noted = f", {summary.num_noted} with notes" if summary.num_noted else ""
    say(f"{counted(summary.num_rows, 'row')}{bad}{noted}")
    for name, rows in summary.to_json()["modalities"].items():
        say(f"  {name:<9}{rows:>9}")
    spread = summary.spread()
    if spread:
        say(
            f"tokens: {spread['min']} to {spread['max']}, half of the rows up to {spread['median']}, "
            f"95 % up to {spread['p95']}; {spread['total']:,} in all"
        )
    bins = summary.histogram()
    most = max((count for _, _, count in bins), default=1)
    for low, high, count in bins:
        beyond = "  beyond the limit" if low > summary.limit_tokens and count else ""
        say(f"  {low:>7} - {high - 1:<7}{count:>9} {'#' * -(-_BAR * count // most)}{beyond}".rstrip())
    if not bins:
        return
    over = int((summary.lengths > summary.limit_tokens).sum())
    verdict = "all fit" if not over else f"{counted(over, 'row')} would not fit"
    say(f"limit {summary.limit_tokens} tokens: {verdict}")
