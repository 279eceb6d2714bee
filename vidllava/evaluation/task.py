"""What a data set's reader is: how its records are told from others, and how one becomes questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidllava.data.row import RowFault
from vidllava.evaluation.item import LETTERS, EvalItem, Groups
from vidllava.evaluation.media_finder import MediaFinder
from vidllava.evaluation.tables import Record
from vidllava.media.timeline import Sampling


@dataclass(frozen=True)
class Context:
    """What a reader must know besides the record: which row of which file, and where the media lie."""

    number: int
    path: Path
    finder: MediaFinder


@dataclass(frozen=True)
class Task:
    """One data set in its published format."""

    name: str
    recognises: Callable[[Record, Path], bool]
    """By the first record of a file and the file's name."""
    read: Callable[[Record, Context], Sequence[EvalItem]]
    """The questions of one record. Raises RowFault."""
    files: Callable[[Path], Sequence[Path]] | None = None
    """The files with questions in a folder; None: every file in it that the task recognises."""
    average_over: str | None = None
    """The group whose plain mean is the published figure, where it is not the mean over questions."""
    sampling: Sampling | None = "index"
    """How a number of frames is spread where no flag says so: published figures were measured by index. None
    leaves it to the model."""
    submission: bool = False
    """Whether hidden labels are scored elsewhere, from a file of answers."""


def text_of(record: Record, key: str) -> str:
    """A text that is not empty. Raises RowFault."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RowFault(f"needs `{key}`, a text")
    return value.strip()


def texts_of(record: Record, key: str) -> tuple[str, ...]:
    """A list of texts. Raises RowFault."""
    value = record.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise RowFault(f"needs `{key}`, a list of texts")
    if len(value) > len(LETTERS):
        raise RowFault(f"`{key}` has {len(value)} options, and there are {len(LETTERS)} letters")
    return tuple(each.strip() for each in value)


def name_of(record: Record, key: str) -> str:
    """A name: a text, or a number as text. Raises RowFault."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowFault(f"needs `{key}`, a name")
    return str(value)


def index_of(record: Record, key: str, number: int) -> str:
    """The letter of an option that is given by its number from 0. Raises RowFault."""
    value = record.get(key)
    try:
        place = int(str(value))
    except ValueError:
        raise RowFault(f"needs `{key}`, the number of an option") from None
    if not 0 <= place < number:
        raise RowFault(f"`{key}` is {place}, and there are {number} options")
    return LETTERS[place]


def unlettered(options: Sequence[str]) -> tuple[str, ...]:
    """ "A. red" as "red", where every option begins with its own letter."""
    stripped = []
    for mark, option in zip(LETTERS, options, strict=False):
        for form in (f"{mark}.", f"({mark})", f"{mark})", f"{mark}:"):
            if option.startswith(form):
                stripped.append(option.removeprefix(form).strip())
                break
        else:
            return tuple(options)
    return tuple(stripped)


def groups_of(record: Record, *keys: str) -> Groups:
    """The groups that a record names under ``keys``."""
    found: list[tuple[str, str]] = []
    for key in keys:
        value = record.get(key)
        if isinstance(value, str | int | float):
            found.append((key, str(value)))
        elif isinstance(value, list) and all(isinstance(each, str) for each in value):
            found += [(key, each) for each in dict.fromkeys(value)]
    return tuple(found)


def scalar(value: Any) -> str | None:
    """How a group's value is shown; None for what is no scalar."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) else None
