"""A question and its media as a conversation: placement of the visuals, and the door to the rest.

turns = build_prompt("What happens?", ["video"])          # user: <video>\\nWhat happens?
turns = place(turns, 3, "mixed", seed=f"{run}:{epoch}:{sample_id}")
prompt = tokenize(turns, CHATML, encoder, add_generation_prompt=True)
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from vidllava.errors import UsageError
from vidllava.prompting.template import (
    CHATML,
    IGNORE,
    MISTRAL,
    SLOT,
    TEMPLATES,
    VICUNA,
    Control,
    Encoder,
    LabelRule,
    Template,
    TokenizedPrompt,
    tokenize,
)
from vidllava.prompting.turns import (
    MediaKind,
    Placeholder,
    Role,
    Turn,
    bad_character,
    check_turns,
    check_visuals,
    num_placeholders,
)

__all__ = [
    "CHATML",
    "IGNORE",
    "MISTRAL",
    "SLOT",
    "TEMPLATES",
    "VICUNA",
    "AskPlacement",
    "Control",
    "Encoder",
    "LabelRule",
    "MediaKind",
    "Placeholder",
    "Placement",
    "Role",
    "Template",
    "TokenizedPrompt",
    "Turn",
    "build_prompt",
    "check_turns",
    "leading",
    "num_placeholders",
    "place",
    "time_instruction",
    "tokenize",
    "without_marks",
]

Placement = Literal["in-place", "front", "mixed"]
AskPlacement = Literal["auto", "in-place", "front"]


def place(
    turns: Sequence[Turn],
    visuals: int | Sequence[MediaKind],
    placement: Placement,
    *,
    seed: int | str | None = None,
    source: str = "conversation",
) -> tuple[Turn, ...]:
    """The same conversation with its visuals placed as LLaVA-NeXT-Interleave does; their order never changes.

    in-place: where the text has them. front: all at the start of the first question, joined by spaces and
    followed by a line end; where one stood inside the text, its name stands now: "Image 1", "Image 2", ... or
    "Video 1", ..., numbered per kind in order. The original's name is not published, this one is ours. mixed:
    one of the two, each half of the time, as `seed` decides: give each sample its own, such as
    f"{seed}:{epoch}:{id}".

    Raises DatasetError, naming `source`, if placeholders and visuals differ; UsageError for an unknown
    placement.
    """
    if placement not in get_args(Placement):
        raise UsageError(
            f"--placement {placement}", "no such placement", f"one of {', '.join(get_args(Placement))}"
        )
    check_visuals(turns, visuals, source=source)
    if placement == "mixed":
        if seed is None:
            raise ValueError("placement 'mixed' needs a seed of the sample's own")
        placement = random.Random(str(seed)).choice(("in-place", "front"))
    if placement == "in-place" or num_placeholders(turns) == 0:
        return tuple(turns)
    return _to_front(turns, visuals)


def _to_front(turns: Sequence[Turn], visuals: int | Sequence[MediaKind]) -> tuple[Turn, ...]:
    placeholders = [placeholder for turn in turns for placeholder in turn.placeholders]
    names = iter(_names(placeholders, visuals))
    first_question = next(number for number, turn in enumerate(turns) if turn.role == "user")
    placed = []
    for number, turn in enumerate(turns):
        parts = list(turn.parts)
        front: list[str | Placeholder] = []
        if number == first_question:
            # Visuals that lead the conversation already leave no gap in a sentence, so no name stands in.
            while parts and (isinstance(parts[0], Placeholder) or not parts[0].strip()):
                if isinstance(parts.pop(0), Placeholder):
                    next(names)
            if parts and isinstance(parts[0], str):
                parts[0] = parts[0].lstrip()
            front = [*_joined(placeholders), "\n"]
        named = [next(names) if isinstance(part, Placeholder) else part for part in parts]
        placed.append(Turn.from_parts(turn.role, [*front, *named], learned=turn.learned))
    return tuple(placed)


def _names(placeholders: Sequence[Placeholder], visuals: int | Sequence[MediaKind]) -> list[str]:
    """What a text calls each visual once it has moved to the front."""
    if isinstance(visuals, int):
        words = ["Video" if placeholder is Placeholder.VIDEO else "Image" for placeholder in placeholders]
    else:
        words = ["Video" if kind == "video" else "Image" for kind in visuals]
    return [f"{word} {words[: number + 1].count(word)}" for number, word in enumerate(words)]


def leading(kinds: Sequence[MediaKind], around: tuple[str, str] | None = None) -> list[str | Placeholder]:
    """What stands before a question that names no places: a placeholder per visual, as the template does."""
    wanted = [Placeholder.VIDEO if kind == "video" else Placeholder.IMAGE for kind in kinds]
    return _leading(wanted, [], around)


def _joined(placeholders: Sequence[Placeholder]) -> list[str | Placeholder]:
    """The placeholders with single spaces between them."""
    return [part for placeholder in placeholders for part in (" ", placeholder)][1:]


def build_prompt(
    question: str,
    kinds: Sequence[MediaKind],
    system: str | None = None,
    *,
    placement: AskPlacement = "auto",
    time_instructions: Sequence[str | None] = (),
    around: tuple[str, str] | None = None,
) -> tuple[Turn, ...]:
    """The conversation that asks `question` of media of these kinds, given in the order of the visuals.

    front: all placeholders, joined by spaces, a line end, the question as plain text whatever it holds; where
    the template has texts of its own `around` each visual, these instead of spaces and line end.
    in-place: the question's own `<image>` and `<video>` are the places. auto: in-place if they match the
    media one by one (`<image>` may stand for a video, as in LLaVA's data), else front.

    `time_instructions`, one per visual or None (see `time_instruction`), follow the visual on a line of their
    own; in-place they stand before the question. `system=None` leaves the system line to the template.
    Raises UsageError for an empty question, and for in-place placeholders that do not match.
    """
    if placement not in get_args(AskPlacement):
        raise UsageError(
            f"--placement {placement}", "no such placement", f"one of {', '.join(get_args(AskPlacement))}"
        )
    if not question.strip():
        raise UsageError("question", "is empty", "for example: what happens")
    if (position := bad_character(question)) is not None:
        what = f"is not valid Unicode text at character {position}"
        raise UsageError("question", what, "write it in UTF-8")
    wanted = [Placeholder.VIDEO if kind == "video" else Placeholder.IMAGE for kind in kinds]
    asked = Turn("user", question)
    matches = _fit(asked.placeholders, wanted)
    if placement == "in-place" and not matches:
        raise UsageError(
            "question",
            f"has the places [{_listed(asked.placeholders)}] for the media [{_listed(wanted)}]",
            "write one <image> per picture and one <video> per video, in order",
        )
    instructions = list(time_instructions) or [None] * len(kinds)
    parts: list[str | Placeholder]
    if matches and placement != "front":
        parts = [f"{line}\n" for line in instructions if line is not None]
        parts += asked.parts
    else:
        parts = [*_leading(wanted, instructions, around), question]
    turn = Turn.from_parts("user", parts)
    return (turn,) if system is None else (Turn("system", system), turn)


def without_marks(
    question: str, kinds: Sequence[MediaKind], controls: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    """(the question without `controls` and placeholders, what was taken out, each once and in order).

    Placeholders that match the media one by one are places, and stay.
    """
    wanted = [Placeholder.VIDEO if kind == "video" else Placeholder.IMAGE for kind in kinds]
    places = {placeholder.value for placeholder in Placeholder}
    fit = bool(kinds) and _fit(Turn("user", question).placeholders, wanted)
    marks = set(controls) - places if fit else places.union(controls)
    found = re.compile(
        "|".join(re.escape(mark) for mark in sorted(marks, key=lambda mark: (-len(mark), mark)))
    )
    taken: dict[str, None] = {}
    # Until nothing is left: what stands around a mark may spell another one.
    while marks and (match := found.search(question)) is not None:
        before, after = question[: match.start()], question[match.end() :]
        taken[match.group()] = None
        question = before + (after.lstrip(" ") if not before or before.endswith((" ", "\n")) else after)
    return question, tuple(taken)


def _fit(found: Sequence[Placeholder], wanted: Sequence[Placeholder]) -> bool:
    """Whether a question's own placeholders are one for each visual, none of a picture a `<video>`."""
    return len(found) == len(wanted) and all(
        one is Placeholder.IMAGE or one is kind for one, kind in zip(found, wanted, strict=True)
    )


def _leading(
    placeholders: Sequence[Placeholder],
    instructions: Sequence[str | None],
    around: tuple[str, str] | None,
) -> list[str | Placeholder]:
    """The lines before a question: placeholders, each followed by its time instruction if there are any."""
    if not placeholders:
        return []
    if around is None and not any(instructions):
        return [*_joined(placeholders), "\n"]
    before, after = around or ("", "\n")
    lines: list[str | Placeholder] = []
    for number, placeholder in enumerate(placeholders):
        instruction = instructions[number] if number < len(instructions) else None
        lines += [before, placeholder, after]
        if instruction:
            lines.append(f"{instruction}\n" if after.endswith("\n") else f"\n{instruction}\n")
    return lines


def _listed(placeholders: Sequence[Placeholder]) -> str:
    return " ".join(placeholder.value for placeholder in placeholders)


def time_instruction(duration_seconds: float, timestamps_seconds: Sequence[float]) -> str:
    """Tell the model when its frames were shown: LLaVA-Video's sentence, word for word.

    The missing space before "Please" is the original's (LLaVA-NeXT `llava/train/train.py`).
    """
    times = ",".join(f"{seconds:.2f}s" for seconds in timestamps_seconds)
    return (
        f"The video lasts for {duration_seconds:.2f} seconds, and {len(timestamps_seconds)} frames "
        f"are uniformly sampled from it. These frames are located at {times}."
        "Please answer the following questions related to this video."
    )
