"""The lines of a `chat`: a question is answered, a word after a slash is a command, and nothing else ends it.

Answers go to stdout; whatever commands have to say goes to stderr. At a terminal Ctrl-C stops an answer and
Ctrl-D ends the session; from a pipe each line of input gives one line of output.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli.console import Console
from vidllava.cli.report import answer_json, frames_json, media_json
from vidllava.cli.telling import tell_cut, tell_work
from vidllava.errors import UsageError, VidllavaError

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer
    from vidllava.backbone.chat import Conversation, Exchange
    from vidllava.backbone.question import AskOptions, Question
    from vidllava.backbone.settings import ModelSettings

PROMPT = "> "
HELP = """\
/frames             the frames that are looked at
/frames N           look at N frames, evenly
/fps X              look at X frames for each second
/range START END    look at this part only (seconds or mm:ss); /range alone: at the whole clip
/reset              forget the conversation, keep the clip
/save FILE          write the conversation as JSON
/exit               end; so does Ctrl-D. Ctrl-C stops an answer"""


class Session:
    """One `chat`. ``streams``: words are shown as they come, where a person reads them."""

    def __init__(
        self,
        conversation: Conversation,
        console: Console,
        media: Sequence[str],
        settings: ModelSettings,
        options: AskOptions,
        max_new_tokens: int,
        *,
        as_json: bool,
        streams: bool,
    ) -> None:
        self.at_terminal = _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
        self._talk = conversation
        self._console = console
        self._media = media
        self._settings = settings
        self._options = options
        self._max_new_tokens = max_new_tokens
        self._as_json = as_json
        self._streams = streams and self.at_terminal and not as_json
        self._told: set[str] = set()
        self._factor: float | None = None
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "/help": lambda _: self._console.reply(HELP),
            "/frames": self._frames,
            "/fps": self._fps,
            "/range": self._range,
            "/reset": lambda _: self._talk.reset(),
            "/save": self._save,
        }

    def run(self, lines: Iterator[str]) -> None:
        """Deal with every line until /exit or the last one."""
        if self.at_terminal:
            self._tell_frames()
            self._console.note("/help lists the commands")
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
        try:
            if command is None:
                raise UsageError(words[0], "no such command", "/help lists them")
            command(words[1:])
        except VidllavaError as fault:
            self._console.error(str(fault))

    def _ask(self, text: str) -> None:
        start = time.perf_counter()
        try:
            question = self._talk.plan(text)
            self._tell_plan(question)
            answer = self._talk.ask(question, on_text=self._show if self._streams else None)
        except UsageError as fault:  # among them: it does not fit
            self._refuse(text, fault)
            return
        except VidllavaError as fault:
            if not self.at_terminal:
                raise
            self._console.error(str(fault))
            return
        except KeyboardInterrupt:
            if not self.at_terminal:
                raise
            self._console.write("")
            self._console.note("stopped; what was shown of the answer stays in the conversation")
            return
        seconds = {**answer.seconds, "total": time.perf_counter() - start}
        self._write(answer, seconds)
        self._tell_once(answer.notes)
        tell_cut(answer, self._max_new_tokens, self._console)
        tell_work(answer, seconds, self._console)

    def _show(self, piece: str) -> None:
        self._console.write(piece, end="")

    def _write(self, answer: Answer, seconds: dict[str, float]) -> None:
        if self._streams:
            self._console.write("")
        elif self._as_json:
            row = answer_json(answer, self._settings.name, seconds) | {"turn": len(self._talk.exchanges)}
            self._console.write(json.dumps(row, ensure_ascii=False))
        elif self.at_terminal:
            self._console.write(answer.text)
        else:
            self._console.write(" ".join(answer.text.splitlines()))

    def _refuse(self, text: str, fault: UsageError) -> None:
        """A question that cannot be asked takes a line too: the n-th answer is the n-th question's."""
        hint = "; /reset forgets the conversation" if self._talk.exchanges else ""
        self._console.error(f"{fault}{hint}")
        if self._as_json:
            row = {"question": text, "answer": None, "error": str(fault)}
            self._console.write(json.dumps(row, ensure_ascii=False))
        elif not self.at_terminal:
            self._console.write("")

    def _tell_plan(self, question: Question) -> None:
        """What changed the plan; of the factor, only where it changes."""
        notice, factor = question.budget.notice, question.budget.rope_factor
        self._tell_once([note for note in question.notes if note != notice])
        if notice is not None and factor != self._factor:
            again = "; all that was said is read again" if self._talk.exchanges else ""
            self._console.warn(f"{notice}{again}")
        self._factor = factor

    def _tell_once(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                self._console.warn(note)

    def _tell_frames(self) -> None:
        for item in self._talk.items:
            if item.plan is None:
                self._console.reply(f"{item.path}: picture, {item.width} x {item.height}")
                continue
            self._console.reply(f"{item.path}: {len(item.plan)} frames, {item.plan.reason}")

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
            self._console.reply(f"{item.path}: frames {', '.join(shown)}")

    def _fps(self, words: list[str]) -> None:
        self._look(replace(self._options, fps=_number("/fps", words, float), num_frames=None))

    def _range(self, words: list[str]) -> None:
        if len(words) not in (0, 2):
            raise UsageError("/range", "takes a start and an end, or nothing", "/range 1:10 1:25")
        # Not at the top: the arithmetic of times brings numpy, which --help does not need.
        from vidllava.media.timeline import parse_time

        start, end = (parse_time(word) for word in words) if words else (None, None)
        self._look(replace(self._options, start_seconds=start, end_seconds=end))

    def _look(self, options: AskOptions) -> None:
        """Plan the media anew; where that cannot be, all stays as it was."""
        from vidllava.backbone.question import plan_media, visual_rules

        items = plan_media(self._media, visual_rules(self._settings, options), options)
        self._talk.look_at(items, options)
        self._options = options
        self._tell_frames()

    def _save(self, words: list[str]) -> None:
        if not words:
            raise UsageError("/save", "needs a file name", "for example: /save talk.json")
        path = Path(" ".join(words)).expanduser()
        report = {"model": self._settings.name, "turns": [_saved(one) for one in self._talk.exchanges]}
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(report, file, indent=2, ensure_ascii=False)
                file.write("\n")
        except FileExistsError:
            raise UsageError(f"/save {path}", "exists already", "another name") from None
        except OSError as fault:
            what = f"cannot be written: {fault.strerror}"
            raise UsageError(f"/save {path}", what, "another name") from None
        self._console.reply(f"saved: {path}")


def _saved(exchange: Exchange) -> dict[str, Any]:
    """One turn as /save writes it."""
    answer = exchange.answer
    if answer is None:
        media = [media_json(item) for item in exchange.question.items]
        stopped = {"question": exchange.question.text, "answer": exchange.text, "media": media}
        return {**stopped, "finish_reason": "interrupted"}
    row = answer_json(answer, "", answer.seconds)
    return {
        name: row[name]
        for name in ("question", "answer", "media", "usage", "finish_reason", "budget", "seconds", "notes")
    }


def _number(command: str, words: list[str], kind: type) -> Any:
    try:
        (word,) = words
        return kind(word)
    except ValueError:
        raise UsageError(
            f"{command} {' '.join(words)}".rstrip(), "takes one number", "for example: /frames 16"
        ) from None


def read_lines(session: Session) -> Iterator[str]:
    """The lines of standard input, with a prompt and a history where a person types them."""
    if sys.stdin is None:
        raise UsageError("chat", "standard input is closed")
    if session.at_terminal:
        yield from _typed()
        return
    asks = _is_terminal(sys.stdin)
    while True:
        if asks and sys.stderr is not None:  # stdout goes elsewhere: the prompt must not go with it
            print(PROMPT, end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as fault:
            raise UsageError("question", f"standard input is not {fault.encoding} text") from None
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
