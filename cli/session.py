"""What may be said in a `chat`: a question is answered, a word after a slash is a command.

Nothing but /exit and the end of the lines ends a session; Ctrl-C stops an answer at a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli.intake import Intake
from vidllava.cli.lines import Telling
from vidllava.cli.report import answer_json, frames_json, media_json
from vidllava.errors import UsageError, VidllavaError
from vidllava.files.writing import write_json

if TYPE_CHECKING:
    from vidllava.backbone.answer import Conversation, Exchange
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
