"""The two ends of a `chat`: where its lines come from, and where what it has to say goes.

Answers go to stdout, whatever else there is to say to stderr. At a terminal words are shown as they come;
from a pipe each question gives one line of output, and as JSON each command too.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vidllava.cli.console import Console
from vidllava.cli.report import answer_json, tell_cut, tell_work
from vidllava.errors import UsageError

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer

PROMPT = "> "


class Telling:
    """What a session says. ``streams``: words are shown as they come, where a person reads them."""

    def __init__(
        self,
        console: Console,
        *,
        as_json: bool,
        streams: bool,
        max_new_tokens: int,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """``before`` is called once, before the first words of the first answer."""
        self.console = console
        self._before: Callable[[], None] | None = before
        self.at_terminal = _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
        self.streams = streams and self.at_terminal and not as_json
        self._as_json = as_json
        self._max_new_tokens = max_new_tokens
        self._told: set[str] = set()
        self._factor: float | None = None

    def piece(self, text: str) -> None:
        """A part of an answer, as it comes."""
        self._begin()
        self.console.write(text, end="")

    def answer(self, answer: Answer, model: str, turn: int, seconds: dict[str, float]) -> None:
        """A whole answer, and what a reader of it must know."""
        self._begin()
        if self.streams:
            self.console.write("")
        elif self._as_json:
            row = answer_json(answer, model, seconds) | {"turn": turn}
            self.console.json(row, is_answer=True)
        elif self.at_terminal:
            self.console.answer(answer.text)
        else:
            self.console.answer(" ".join(answer.text.splitlines()))
        self.once(answer.notes)
        tell_cut(answer, self._max_new_tokens, self.console)
        tell_work(answer, seconds, self.console)

    def _begin(self) -> None:
        if self._before is not None:
            self._before()
            self._before = None

    def refusal(self, text: str, fault: UsageError, *, is_first: bool) -> None:
        """A question that cannot be asked takes a line too: the n-th answer is the n-th question's."""
        hint = "" if is_first else "; /reset forgets the conversation"
        self.console.error(f"{fault}{hint}")
        if self._as_json:
            row = {"question": text, "answer": None, "error": str(fault)}
            self.console.json(row, is_answer=True)
        elif not self.at_terminal:
            self.console.write("")

    def command(self, text: str, error: str | None) -> None:
        """A command was dealt with: for programs a line of its own, so that each line in has its line out."""
        if error is not None:
            self.console.error(error)
        if self._as_json:
            self.console.json({"command": text, "error": error})

    def factor(self, notice: str | None, factor: float, *, is_first: bool) -> None:
        """A RoPE factor above 1, where it was another one before."""
        if notice is not None and factor != self._factor:
            again = "" if is_first else "; all that was said is read again"
            self.console.warn(f"{notice}{again}")
        self._factor = factor

    def once(self, notes: Sequence[str]) -> None:
        """What was not said before."""
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                self.console.warn(note)


def read_lines(told: Telling) -> Iterator[str]:
    """The lines of standard input, with a prompt and a history where a person types them."""
    if sys.stdin is None:
        raise UsageError("chat", "standard input is closed", "leave it open: the questions come from there")
    if told.at_terminal:
        yield from _typed()
        return
    asks = _is_terminal(sys.stdin)
    while True:
        if asks and sys.stderr is not None:  # stdout goes elsewhere: the prompt must not go with it
            print(PROMPT, end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as fault:
            raise UsageError(
                "question", f"standard input is not {fault.encoding} text", f"convert it to {fault.encoding}"
            ) from None
        if not line:
            return
        yield line


def _typed() -> Iterator[str]:
    # Editing and history for input(); a Python without it reads lines all the same.
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    while True:
        try:
            yield input(PROMPT)
        except KeyboardInterrupt:  # at the prompt: a fresh line
            print()
        except EOFError:
            print()
            return


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
