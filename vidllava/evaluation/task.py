"""A data set's reader: how its records are told from others and become questions, how labels are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidllava.data.row import RowFault
from vidllava.evaluation.item import LETTERS, EvalItem, Groups
from vidllava.evaluation.media_finder import MediaFinder
from vidllava.evaluation.tables import Record
from vidllava.evaluation.texts import normalised
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


_MARKED = re.compile(r"(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Za-z])[.):])\s*", re.ASCII)
_BARE = re.compile(r"(?:(?:option|choice)\s+)?[(\[]?([A-Za-z])[)\]]?[.:]?", re.IGNORECASE | re.ASCII)
_NUMBERED = re.compile(r"\(?(\d+)[.):]\s+", re.ASCII)


def unlettered(options: Sequence[str]) -> tuple[str, ...]:
    """ "A. red" as "red", where every option begins with its own letter, all large or all small."""
    marks = [_MARKED.match(option) for option in options]
    letters = "".join("?" if mark is None else mark[1] or mark[2] for mark in marks)
    stripped = tuple(
        option[mark.end() :].strip() for option, mark in zip(options, marks, strict=True) if mark is not None
    )
    own = LETTERS[: len(options)]
    return stripped if letters in (own, own.lower()) and all(stripped) else tuple(options)


def label_of(value: Any, options: Sequence[str], written: Sequence[str]) -> str:
    """The letter of the option that a row's ``answer`` names.

    ``written``: the options as the row has them; ``options``: without their letters. A label is an option's
    text (word for word, else but for case and marks), its letter ("B", "b", "(B)"), both ("B. right"), or, as
    a number, its place counted from 0. Raises RowFault for none of these, and where two readings differ: a
    number or letter that is one option's text and names another one, a letter beside another one's text.
    """
    if len(set(written)) < len(written):
        raise RowFault("two `options` are the same")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowFault("`answer` must be an option's text, its letter or its number")
    is_number = not isinstance(value, str)
    said = str(scalar(value) if is_number else value).strip()
    named = _by_text(said, options, written)
    if len(named) > 1:
        raise RowFault(f"`answer` {value!r} is two options' text but for case and marks")
    what, hint = "text and another one's letter", ""
    if is_number:
        what, hint = (
            "text and another one's place, counted from 0",
            "; give the letter, or the text in quotes",
        )
        if float(value) == int(value) and 0 <= int(value) < len(options):
            named.add(int(value))
        elif not named:
            raise RowFault(f"`answer` is option {said}, counted from 0, and there are {len(options)}")
    else:
        named |= _by_letter(said, options)
    if len(named) != 1:
        raise RowFault(f"`answer` {value!r} is " + (f"one option's {what}{hint}" if named else "no option"))
    return LETTERS[named.pop()]


def _by_text(said: str, options: Sequence[str], written: Sequence[str]) -> set[int]:
    """Places of the options with that text: word for word if there is one, else but for case and marks."""
    for texts in (written, options):
        if said in texts:
            return {list(texts).index(said)}
    return {
        place
        for place, option in enumerate(options)
        if normalised(said) and normalised(option) == normalised(said)
    }


def _by_letter(said: str, options: Sequence[str]) -> set[int]:
    """Places that a letter names, alone or before a text; a number before a text counts from 0 or from 1."""
    if bare := _BARE.fullmatch(said):
        place = LETTERS.index(bare[1].upper())
        return {place} if place < len(options) else set()
    marked, numbered = _MARKED.match(said), _NUMBERED.match(said)
    mark = marked or numbered
    beside = _by_text(said[mark.end() :], options, options) if mark is not None else set()
    if not beside:
        return set()
    if marked is not None:
        return beside | {LETTERS.index((marked[1] or marked[2]).upper())}
    assert numbered is not None  # one of both matched
    number = int(numbered[1])
    return beside if beside <= {number, number - 1} else beside | {number}


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
