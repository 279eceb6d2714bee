"""What may be said in a `chat`, line by line: a question is answered, a word after a slash is a command.

Nothing but /exit and the end of the lines ends a session; Ctrl-C stops an answer at a terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli.console import Console
from vidllava.cli.intake import Intake
from vidllava.cli.report import answer_json, frames_json, media_json, tell_cut, tell_work
from vidllava.errors import UsageError, VidllavaError
from vidllava.files.writing import write_json

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer, Conversation, Exchange
    from vidllava.visuals.options import AskOptions
    from vidllava.visuals.planner import ModelSettings

HELP = """\
/frames             the frames that are looked at
/frames N           look at N frames, evenly
/fps X              look at X frames for each second
/range START END    look at this part only (seconds or mm:ss); /range alone: at the whole clip
/reset              forget the conversation, keep the clip
/save FILE          write the conversation as JSON
/exit               end; so does Ctrl-D. Ctrl-C stops an answer"""


class Session:
    """The questions and commands of one `chat`."""

    def __init__(
        self,
        conversation: Conversation,
        intake: Intake,
        settings: ModelSettings,
        options: AskOptions,
        told: Telling,
    ) -> None:
        self._talk = conversation
        self._intake = intake
        self._settings = settings
        self._options = options
        self._told = told
        self._console = told.console
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "/help": lambda _: self._console.reply(HELP),
            "/frames": self._frames,
            "/fps": self._fps,
            "/range": self._range,
            "/reset": lambda _: self._talk.reset(),
            "/save": self._save,
        }

    def run(self, lines: Iterator[str], first: str | None = None) -> None:
        """Ask ``first``, then deal with every line until /exit or the last one."""
        if self._told.at_terminal:
            self._tell_frames()
            self._console.note("/help lists the commands")
        if first is not None:
            if self._told.at_terminal:
                self._console.reply(f"> {first}")
            self._ask(first)
        for line in lines:
            words = line.split()
            if not words:
                continue
            if words[0] in ("/exit", "/quit"):
                return
            if words[0].startswith("/"):
                self._command(words)
            else:
                self._ask(line.strip())

    def _command(self, words: list[str]) -> None:
        command = self._commands.get(words[0])
        error = None
        try:
            if command is None:
                raise UsageError(words[0], "no such command", "/help lists them")
            command(words[1:])
        except VidllavaError as fault:
            error = str(fault)
        self._told.command(" ".join(words), error)

    def _ask(self, text: str) -> None:
        start = time.perf_counter()
        is_first = not self._talk.exchanges
        try:
            question = self._talk.plan(text)
            notice = question.budget.notice
            self._told.once([note for note in question.notes if note != notice])
            self._told.factor(notice, question.budget.rope_factor, is_first=is_first)
            answer = self._talk.ask(question, on_text=self._told.piece if self._told.streams else None)
        except UsageError as fault:  # among them: it does not fit
            self._told.refusal(text, fault, is_first=is_first)
            return
        except VidllavaError as fault:
            if not self._told.at_terminal:
                raise
            self._console.error(str(fault))
            return
        except KeyboardInterrupt:
            if not self._told.at_terminal:
                raise
            self._console.write("")
            self._console.note("stopped; what was shown of the answer stays in the conversation")
            return
        answer = replace(answer, question=self._intake.named(answer.question))
        seconds = {**answer.seconds, "total": time.perf_counter() - start}
        self._told.answer(answer, self._settings.name, len(self._talk.exchanges), seconds)

    def _tell_frames(self) -> None:
        for item in self._talk.items:
            about = f"picture, {item.width} x {item.height}"
            if item.plan is not None:
                about = f"{len(item.plan)} frames, {item.plan.reason}"
            self._console.reply(f"{self._intake.shown(item.path)}: {about}")

    def _frames(self, words: list[str]) -> None:
        if words:
            number = _number("/frames", words, int)
            self._look(replace(self._options, num_frames=number, fps=None))
            return
        seen = self._talk.exchanges[-1].answer if self._talk.exchanges else None
        used = seen.frames if seen is not None and seen.question.items == self._talk.items else None
        self._tell_frames()
        for number, item in enumerate(self._talk.items):
            if item.plan is None:
                continue
            frames = frames_json(used[number] if used is not None else item.plan)
            shown = (f"{frame['index']} at {frame['timestamp_seconds']:.2f} s" for frame in frames)
            self._console.reply(f"{self._intake.shown(item.path)}: frames {', '.join(shown)}")

    def _fps(self, words: list[str]) -> None:
        # Not at the top: the arithmetic of times brings numpy, which --help does not need.
        from vidllava.media.timeline import parse_rate

        rate = parse_rate(" ".join(words), "/fps")
        self._look(replace(self._options, fps=rate, num_frames=None))

    def _range(self, words: list[str]) -> None:
        if len(words) not in (0, 2):
            raise UsageError("/range", "takes a start and an end, or nothing", "/range 1:10 1:25")
        from vidllava.media.timeline import parse_time

        start, end = (parse_time(word) for word in words) if words else (None, None)
        self._look(replace(self._options, start_seconds=start, end_seconds=end))

    def _look(self, options: AskOptions) -> None:
        """Plan the media anew; where that cannot be, all stays as it was."""
        from vidllava.visuals.question import plan_media, visual_planner

        planner = visual_planner(self._settings, options)
        items = plan_media(self._intake.paths, planner, options, self._intake.sampler)
        self._talk.look_at(items, options)
        self._options = options
        self._tell_frames()

    def _save(self, words: list[str]) -> None:
        if not words:
            raise UsageError("/save", "needs a file name", "for example: /save talk.json")
        path = Path(" ".join(words)).expanduser()
        report = {"model": self._settings.name, "turns": [self._saved(one) for one in self._talk.exchanges]}
        if path.exists():
            raise UsageError(f"/save {path}", "exists already", "another name")
        write_json(path, report)
        self._console.reply(f"saved: {path}")

    def _saved(self, exchange: Exchange) -> dict[str, Any]:
        """One turn as /save writes it."""
        question = self._intake.named(exchange.question)
        if exchange.answer is None:
            media = [media_json(item) for item in question.items]
            stopped = {"question": question.text, "answer": exchange.text, "media": media}
            return {**stopped, "finish_reason": "interrupted"}
        answer = replace(exchange.answer, question=question)
        row = answer_json(answer, self._settings.name, answer.seconds)
        return {name: value for name, value in row.items() if name != "model"}


def _number(command: str, words: list[str], kind: type) -> Any:
    try:
        (word,) = words
        return kind(word)
    except ValueError:
        raise UsageError(
            f"{command} {' '.join(words)}".rstrip(), "takes one number", "for example: /frames 16"
        ) from None


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
