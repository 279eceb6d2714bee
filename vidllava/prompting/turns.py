"""Turns of a conversation: what is said, where the visuals stand in it, and their checks.

A turn is text with placeholders: `<image>` for a picture, `<video>` for a video. In a user's turn every one
of them stands for a visual, which is how data sets are written, unless `slots` says which ones do: a question
that merely talks about "<image>" then stays plain text.

    Turn("user", "<video>\\nWhat happens?").parts         # (Placeholder.VIDEO, "\\nWhat happens?")
    Turn("user", "What is <image> in HTML?", ()).parts    # ("What is <image> in HTML?",)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

from vidllava.errors import DatasetError

Role = Literal["user", "assistant", "system"]
MediaKind = Literal["video", "picture", "pictures"]  # "pictures": one of several, as in VisualLayout.kind


class Placeholder(Enum):
    """What stands in a text for a visual. `<image>` may also stand for a video, as in LLaVA's own data."""

    IMAGE = "<image>"
    VIDEO = "<video>"


_PLACEHOLDER = re.compile("|".join(re.escape(placeholder.value) for placeholder in Placeholder))


@dataclass(frozen=True)
class Turn:
    """One turn: who speaks, the text, and which placeholders in it stand for visuals.

    `slots` are the character offsets of those placeholders, ascending. None means all of them in a user's
    turn and none elsewhere: an answer or a system line that mentions "<image>" is plain text.
    """

    role: Role
    text: str
    slots: tuple[int, ...] | None = None
    learned: bool = True
    """An answer that is not learned is read like any other and has no labels."""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise DatasetError(f"role {self.role!r}", "no such role", f"one of {', '.join(get_args(Role))}")
        found = tuple(match.start() for match in _PLACEHOLDER.finditer(self.text))
        if self.slots is None:
            object.__setattr__(self, "slots", found if self.role == "user" else ())
        elif list(self.slots) != sorted(set(self.slots) & set(found)):
            raise ValueError(
                f"slots {self.slots} are not offsets of placeholders in {self.text!r}, ascending"
            )

    @classmethod
    def from_parts(cls, role: Role, parts: Sequence[str | Placeholder], *, learned: bool = True) -> Turn:
        """The turn whose `parts` these are, up to joining neighbouring texts."""
        text, slots = "", []
        for part in parts:
            if isinstance(part, Placeholder):
                slots.append(len(text))
                text += part.value
            else:
                text += part
        return cls(role, text, tuple(slots), learned)

    @property
    def parts(self) -> tuple[str | Placeholder, ...]:
        """The turn in pieces: plain text, never empty, and placeholders that stand for visuals."""
        pieces: list[str | Placeholder] = []
        end = 0
        for start in self.slots or ():
            if start > end:
                pieces.append(self.text[end:start])
            match = _PLACEHOLDER.match(self.text, start)
            assert match is not None  # checked on construction
            pieces.append(Placeholder(match.group()))
            end = match.end()
        if end < len(self.text):
            pieces.append(self.text[end:])
        return tuple(pieces)

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        """The placeholders that stand for visuals, in order."""
        return tuple(part for part in self.parts if isinstance(part, Placeholder))


def num_placeholders(turns: Sequence[Turn]) -> int:
    """How many visuals the conversation has room for."""
    return sum(len(turn.placeholders) for turn in turns)


def check_turns(
    turns: Sequence[Turn], visuals: int | Sequence[MediaKind], *, source: str, answered: bool = True
) -> None:
    """Raises DatasetError, naming `source`, unless this is a conversation that can be trained on or answered.

    An optional system turn, then user and assistant alternating, the user first; the last turn is an answer
    (`answered`) or a question (not). Visuals belong to questions, and there is one placeholder for each, in
    order: given their kinds, a `<video>` must meet a video. No empty turn, no text that UTF-8 cannot write.
    """
    _check_roles(turns, source=source, answered=answered)
    for number, turn in enumerate(turns, start=1):
        where = f"{source}: turn {number} ({turn.role})"
        if turn.role != "system" and not turn.text.strip():
            raise DatasetError(where, "is empty")
        if turn.role != "user" and turn.slots:
            raise DatasetError(where, f"holds {turn.placeholders[0].value}", "visuals belong to questions")
        if (position := bad_character(turn.text)) is not None:
            raise DatasetError(where, f"is not valid Unicode text at character {position}")
    check_visuals(turns, visuals, source=source)


def bad_character(text: str) -> int | None:
    """Where the first character stands that UTF-8 cannot write (half a surrogate pair), or None."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _check_roles(turns: Sequence[Turn], *, source: str, answered: bool) -> None:
    spoken = [turn.role for turn in turns]
    first = 1 if spoken[:1] == ["system"] else 0
    if len(spoken) == first:
        raise DatasetError(source, "has no question")
    for position, role in enumerate(spoken[first:]):
        expected = ("user", "assistant")[position % 2]
        if role != expected:
            what = f"turn {first + position + 1} is the {role}'s, expected the {expected}'s"
            raise DatasetError(source, what, "the user speaks first, then both in turns")
    last = "assistant" if answered else "user"
    if spoken[-1] != last:
        raise DatasetError(source, f"ends with the {spoken[-1]}'s turn, expected the {last}'s")


def check_visuals(turns: Sequence[Turn], visuals: int | Sequence[MediaKind], *, source: str) -> None:
    """Raises DatasetError unless placeholders and visuals agree in number and, where given, in kind."""
    placeholders = [placeholder for turn in turns for placeholder in turn.placeholders]
    num_visuals = visuals if isinstance(visuals, int) else len(visuals)
    if len(placeholders) != num_visuals:
        raise DatasetError(
            source,
            f"{len(placeholders)} placeholders for {num_visuals} visuals",
            "one <image> or <video> in the text for each picture or video",
        )
    if isinstance(visuals, int):
        return
    for number, (placeholder, kind) in enumerate(zip(placeholders, visuals, strict=True), start=1):
        if placeholder is Placeholder.VIDEO and kind != "video":
            raise DatasetError(source, f"placeholder {number} is <video>, visual {number} is a picture")
