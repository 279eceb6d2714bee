"""Labelled questions: what is sent, about which media, how it is scored; and how records become them.

EvalItem(id="7", row=1, media=("a.mp4",), paths=("/data/a.mp4",), question="what moves?",
         prompt="what moves?\nA. the square\nB. the star", options=("the square", "the star"), answer="A",
         scoring="choice")

A data set is a ``Task``: it recognises its records, and reads each as a ``DataEntry`` into questions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vidllava.data.media_root import MediaRoot
from vidllava.data.source import RowFault
from vidllava.evaluation.texts import normalised
from vidllava.files.identity import media_identity
from vidllava.media.timeline import Sampling

Record = dict[str, Any]
Scoring = Literal["choice", "exact", "rouge", "wups", "judge"]
Groups = tuple[tuple[str, str], ...]
OPTION_LETTER = "Answer with the option's letter from the given choices directly."
"""How several benchmarks, and our own sets, ask for a letter."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class EvalItem:
    """One question. Every reader of a data set makes these, and nothing else."""

    id: str
    row: int
    """Of the file, counted from 1: what an error names."""
    media: tuple[str, ...]
    """As the data set names them."""
    paths: tuple[str, ...]
    question: str
    """As the data set has it, without options and instructions."""
    prompt: str
    """What is sent."""
    scoring: Scoring
    options: tuple[str, ...] = ()
    """Their texts, without letters; the letters are A, B, C, ... in order."""
    answer: str | None = None
    """The letter of the right option, or a text; None where the label is hidden."""
    alternatives: tuple[str, ...] = ()
    """Other texts that are as right as ``answer``."""
    groups: Groups = ()
    """(name, value): category, duration, task and the like, for accuracy by group."""
    own: tuple[tuple[str, Any], ...] = ()
    """Fields of ``AskOptions`` that this question sets itself: start_seconds, end_seconds, num_frames, ..."""
    max_new_tokens: int | None = None
    """As the benchmark has it; None leaves it to the flags."""
    subtitles: str | None = None
    """A file whose lines at the sampled frames stand before the prompt; empty for a missing one."""
    earlier: tuple[str, ...] = ()
    """Questions asked before, in the same conversation: the model's own answers stand in the prompt."""

    @cached_property
    def content_key(self) -> str:
        """Names what is asked and how it is scored, the content of the media with it; not where it stands."""
        words = {
            name: value for name, value in asdict(self).items() if name not in ("row", "paths", "subtitles")
        }
        files = [*self.paths, *([self.subtitles] if self.subtitles else [])]
        words["files"] = [media_identity(path) for path in files]
        return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=12).hexdigest()


def lettered(options: tuple[str, ...], form: str = "{letter}. {option}") -> str:
    """The options, one a line."""
    return "\n".join(form.format(letter=LETTERS[n], option=option) for n, option in enumerate(options))


@dataclass(frozen=True)
class DataEntry:
    """One record of a data set's file: its fields read and checked, and where it and its media lie."""

    record: Record
    number: int
    """Of the file's records, from 1."""
    path: Path
    root: MediaRoot

    def clip(self, name: str, *folders: str, of_pictures: bool = False) -> dict[str, Any]:
        """The fields of a question on the clip ``name``, looked for in ``folders`` first. Raises RowFault."""
        path = self.root.find(name, folders=folders, of_pictures=of_pictures)
        return {"row": self.number, "media": (name,), "paths": (path,)}

    def media(self, *keys: str) -> tuple[str, ...]:
        """The file names under the one of ``keys`` that the record has: one, or a list. Raises RowFault."""
        given = [key for key in keys if self.record.get(key) is not None]
        if len(given) != 1:
            listed = ", ".join(f"`{key}`" for key in keys)
            raise RowFault(f"needs {'one of ' if len(keys) > 1 else ''}{listed}")
        value = self.record[given[0]]
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RowFault(f"`{given[0]}` must be a file name or a list of file names")
        return tuple(names)

    def identity(self) -> str | int:
        """Its `id`, or its number. Raises RowFault."""
        identity = self.record.get("id", self.number)
        if isinstance(identity, bool) or not isinstance(identity, str | int):
            raise RowFault("`id` must be a text or a whole number")
        return identity

    def get(self, *keys: str) -> Any:
        """The value of the first of ``keys`` that the record has, or None."""
        return next((self.record[key] for key in keys if key in self.record), None)

    def text(self, key: str) -> str:
        """A text that is not empty. Raises RowFault."""
        value = self.record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise RowFault(f"needs `{key}`, a text")
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts. Raises RowFault."""
        value = self.record.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise RowFault(f"needs `{key}`, a list of texts")
        if len(value) > len(LETTERS):
            raise RowFault(f"`{key}` has {len(value)} options, and there are {len(LETTERS)} letters")
        return tuple(each.strip() for each in value)

    def name(self, key: str) -> str:
        """A name: a text, or a number as text. Raises RowFault."""
        return name_of(self.record, key)

    def letter(self, key: str, number: int) -> str:
        """Of the option that is given by its number from 0, of ``number`` options. Raises RowFault."""
        try:
            place = int(str(self.record.get(key)))
        except ValueError:
            raise RowFault(f"needs `{key}`, the number of an option") from None
        if not 0 <= place < number:
            raise RowFault(f"`{key}` is {place}, and there are {number} options")
        return LETTERS[place]

    def groups(self, *keys: str) -> Groups:
        """The groups that the record names under ``keys``."""
        found: list[tuple[str, str]] = []
        for key in keys:
            value = self.record.get(key)
            if isinstance(value, str | int | float):
                found.append((key, str(value)))
            elif isinstance(value, list) and all(isinstance(each, str) for each in value):
                found += [(key, each) for each in dict.fromkeys(value)]
        return tuple(found)

    def each(self, key: str) -> list[DataEntry]:
        """An entry for each object in a list, with the fields of the record around it. Raises RowFault."""
        objects = self.record.get(key)
        if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
            raise RowFault(f"needs `{key}`, a list of objects")
        return [replace(self, record={**self.record, **each}) for each in objects]


@dataclass(frozen=True)
class Task:
    """One data set in its published format."""

    name: str
    recognises: Callable[[Record, Path], bool]
    """By the first record of a file and the file's name."""
    read: Callable[[DataEntry], Iterable[EvalItem]]
    """The questions of one record. Raises RowFault."""
    average_over: str | None = None
    """The group whose plain mean is the published figure, where it is not the mean over questions."""
    sampling: Sampling | None = "index"
    """How a number of frames is spread where no flag says so: published figures were measured by index. None
    leaves it to the model."""
    resembles: Callable[[Record], bool] | None = None
    """Whether a record may be meant as one, where none is recognised: then its faults are told by name."""
    is_general: bool = False
    """Whether its records are so plain that every other data set is asked first whether they are its own."""
    submission: bool = False
    """Whether hidden labels are scored elsewhere, from a file of answers."""


def name_of(record: Record, key: str) -> str:
    """A name: a text, or a number as text. Raises RowFault."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowFault(f"needs `{key}`, a name")
    return str(value)


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
        raise RowFault(
            f"`answer` {value!r} is " + (f"one option's {what}{hint}" if named else "not an option")
        )
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


def scalar(value: Any) -> str | None:
    """How a group's value is shown; None for what is not a scalar."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) else None
