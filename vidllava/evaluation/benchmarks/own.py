"""The project's own labelled sets: JSON lines of a question, its media, its options, and the right answer.

{"id": "7", "video": "a.mp4", "question": "which colour?", "options": ["red", "blue"], "answer": "B",
 "category": "colour", "start": "0:10", "end": "0:20", "duration_seconds": 64}

``image`` or ``images`` or ``media`` may stand for ``video``. ``answer``: an option's text, its letter, both
("B. blue"), or its number from 0; what could mean two options is refused. Without options a text, or a list
of texts each of which is right. Other scalars are groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidllava.data.row import NUMBERS, TIMES, WORDS, own_frames
from vidllava.data.source import RowFault
from vidllava.evaluation.item import (
    OPTION_LETTER,
    DataEntry,
    EvalItem,
    Groups,
    Record,
    Scoring,
    Task,
    label_of,
    lettered,
    scalar,
    unlettered,
)

_MEDIA = ("video", "image", "images", "media")
_SCORINGS: tuple[Scoring, ...] = ("exact", "rouge", "judge")
_KNOWN = {
    "id",
    "question",
    "options",
    "answer",
    "scoring",
    "max_new_tokens",
    *_MEDIA,
    *NUMBERS,
    *TIMES,
    *WORDS,
}


def recognises(record: Record, path: Path) -> bool:
    """Whether it has a question and one key for its media; asked last: others have those too."""
    return "question" in record and sum(record.get(key) is not None for key in _MEDIA) == 1


def resembles(record: Record) -> bool:
    """Whether it may be meant as one: with any of its main keys, its faults are told by name."""
    return any(key in record for key in ("question", *_MEDIA))


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """The question of one row. Raises RowFault."""
    record, question = entry.record, entry.text("question")
    media = entry.media(*_MEDIA)
    written = entry.texts("options") if record.get("options") is not None else ()
    options = unlettered(written)
    answers = _answers(record.get("answer"), options, written)
    yield EvalItem(
        id=str(entry.identity()),
        row=entry.number,
        media=media,
        paths=tuple(entry.root.find(name, endings=(), of_pictures=True) for name in media),
        question=question,
        prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}" if options else question,
        scoring=_scoring(record, options),
        options=options,
        answer=answers[0] if answers else None,
        alternatives=answers[1:],
        groups=_groups(record),
        own=own_frames(record),
        max_new_tokens=_max_new_tokens(record),
    )


def _answers(value: Any, options: tuple[str, ...], written: tuple[str, ...]) -> tuple[str, ...]:
    """The right answer and what is as right; empty where the label is hidden."""
    if value is None:
        return ()
    if options:
        return (label_of(value, options, written),)
    texts = value if isinstance(value, list) else [value]
    shown = [scalar(text) for text in texts]
    if not shown or any(text is None or not text.strip() for text in shown):
        raise RowFault("`answer` must be a text or a list of texts")
    return tuple(text for text in shown if text is not None)


def _scoring(record: Record, options: tuple[str, ...]) -> Scoring:
    wanted = record.get("scoring")
    if options:
        if wanted not in (None, "choice"):
            raise RowFault(f"`scoring` {wanted!r} does not go with options")
        return "choice"
    if wanted is None:
        return "exact"
    if wanted not in _SCORINGS:
        raise RowFault(f"`scoring` must be one of {', '.join(_SCORINGS)}")
    return _SCORINGS[_SCORINGS.index(wanted)]


def _groups(record: Record) -> Groups:
    shown = {key: scalar(value) for key, value in record.items() if key not in _KNOWN}
    return tuple((key, value) for key, value in shown.items() if value is not None)


def _max_new_tokens(record: Record) -> int | None:
    value = record.get("max_new_tokens")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RowFault("`max_new_tokens` must be a whole number above 0")
    return value


TASKS = (Task("own", recognises, read, sampling=None, resembles=resembles, is_general=True),)
