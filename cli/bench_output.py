"""Where the rows of a benchmark go: a file that grows, standard output, and a table on stderr.

with RowOutput(console, output, as_json=False) as out:
    out.append(row)
show(console, table(out.rows))
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from vidllava.cli.console import Console
from vidllava.errors import ResourceError, UsageError

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Append one JSON line per figure.", rich_help_panel="Output"
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="The rows on stdout, a JSON line each.", rich_help_panel="Output")
]
Repeats = Annotated[
    int, typer.Option(min=1, help="Rounds; the table shows medians.", rich_help_panel="Rounds")
]


class RowOutput:
    """Each row is on disk before the next is measured. Raises UsageError where none can be written."""

    def __init__(self, console: Console, path: Path | None, *, as_json: bool) -> None:
        self.rows: list[dict[str, Any]] = []
        self._console, self._path, self._as_json = console, path, as_json
        self._file = None
        if path is not None:
            if path.is_dir():
                raise UsageError(f"--output {path}", "is a folder", "give a file name")
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as fault:
                raise UsageError(f"--output {path}", f"cannot be written: {fault.strerror}") from None

    def __enter__(self) -> RowOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """One more row. Raises ResourceError where the disk is full."""
        self.rows.append(row)
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        if self._as_json:
            self._console.write(line)
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as fault:
            raise ResourceError(
                str(self._path), f"cannot be written: {fault.strerror}", "make room"
            ) from None


def show(console: Console, lines: Sequence[Sequence[str]]) -> None:
    """A table on stderr, its heading first: columns by spaces, so that it reads without colour."""
    if console.quiet:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        console.reply("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
