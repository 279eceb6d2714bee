"""What goes where: results on stdout, everything else on stderr. The only importer of rich.

    console = Console(quiet=False, verbose=False)
    console.write("the answer")            # stdout
    console.note("nano knows shapes only") # stderr: "note: nano knows shapes only"

Nothing here decides what to say, only where and how it is shown.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TextIO

import typer

from vidllava.errors import ResourceError

_PIPE_COLUMNS = 1000


def printable(text: str) -> str:
    """``text`` with control characters spelled out: a model or a file name must not drive the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _encodable(text: str, stream: TextIO | None) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def counted(number: int, noun: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, kw_only=True)
class Console:
    """The two streams of a command. ``quiet`` leaves only warnings and errors on stderr."""

    quiet: bool = False
    verbose: bool = False
    carries_on: bool = False
    """The command has another output than stdout: nobody reading that does not end it."""
    _read: list[bool] = field(default_factory=list, repr=False)
    """Holds something once a write to stdout succeeded."""

    def write(self, text: str, *, end: str = "\n") -> None:
        """A result, on stdout and flushed. A reader that has gone away ends the command without a word.

        Raises ResourceError where nothing can be written.
        """
        self._emit(printable(text) + end)

    def answer(self, text: str, *, end: str = "\n") -> None:
        """A result that must arrive: a reader that goes away before the first one is an error too."""
        self._emit(printable(text) + end, must_arrive=True)

    def json(self, value: object, *, indent: int | None = None, is_answer: bool = False) -> None:
        """A value as JSON on stdout, which stays JSON in every locale and drives no terminal."""
        text = json.dumps(value, indent=indent, ensure_ascii=False)
        if not (text.replace("\n", "").isprintable() and _encodable(text, sys.stdout)):
            text = json.dumps(value, indent=indent)
        self._emit(text + "\n", must_arrive=is_answer)

    def check_stdout(self) -> None:
        """Raises ResourceError where the command was started with stdout closed (``>&-``)."""
        if sys.stdout is None:
            what, hint = "is closed, and the result would be lost", "leave it open; /dev/null takes anything"
            raise ResourceError("standard output", what, hint)

    def note(self, message: str) -> None:
        """Something the user should know and need not act on."""
        if not self.quiet:
            self._say("note", message)

    def reply(self, text: str) -> None:
        """What was asked for in a session, line by line on stderr: stdout holds answers only."""
        self._tell(printable(text))

    def warn(self, message: str) -> None:
        """Something that changed the result."""
        self._say("warning", message)

    def detail(self, message: str) -> None:
        """Something for those who asked with -v."""
        if self.verbose:
            self._say("detail", message)

    def error(self, message: str) -> None:
        self._say("error", message)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table on stdout, without frames, so that it can be read, cut and pasted."""
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        on_screen = sys.stdout is not None and sys.stdout.isatty()
        # In a pipe no line is folded: a program reads it.
        screen = RichConsole(file=sys.stdout, width=None if on_screen else _PIPE_COLUMNS, highlight=False)
        with screen.capture() as drawn:
            screen.print(table)
        self._emit("".join(line.rstrip() + "\n" for line in drawn.get().splitlines()))

    def _emit(self, text: str, *, must_arrive: bool = False) -> None:
        if self.carries_on and sys.stdout is None:
            return
        self.check_stdout()
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._read.append(True)
        except OSError as fault:
            _write_nowhere(sys.stdout)
            if isinstance(fault, BrokenPipeError):
                if self.carries_on:
                    return
                if must_arrive and not self._read:
                    what = "was closed before the answer came, which is lost"
                    raise ResourceError("standard output", what, "keep its reader, or use a file") from None
                raise typer.Exit(0) from None
            what = f"cannot be written: {fault.strerror}"
            raise ResourceError("standard output", what, "make room, or send it elsewhere") from None

    def _say(self, kind: str, message: str) -> None:
        self._tell(f"{kind}: {printable(message)}")

    def _tell(self, line: str) -> None:
        """One line on stderr. Where it cannot be written, the answer and the exit code still tell."""
        if sys.stderr is None:
            return
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            _write_nowhere(sys.stderr)


def _write_nowhere(stream: TextIO) -> None:
    """What is still in the buffer must not fail again when the interpreter closes the stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):  # a stand-in without a descriptor
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
