"""M4-Instruct rows (LLaVA-NeXT-Interleave): LLaVA's, with `sample_id`, `metadata` and sometimes choices.

Choices that the question does not spell out are put below it: the model shall learn to choose, not to guess
what there is to choose from.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from vidllava.data.keys import kind_of
from vidllava.data.row import RowContext, sample_of_texts, text_turn, turns_of
from vidllava.data.source import RowFault, Sample
from vidllava.prompting.turns import Turn

NAME, KEY = "m4-instruct", "conversations"
MARKS = ("sample_id", "metadata", "choice_list")
EXAMPLE = """\
{"sample_id": "n-1", "image": ["a.png", "b.png"],
"conversations": [...], "choice_list": ["True", "False"]}"""


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a row is of this format."""
    return KEY in record and any(mark in record for mark in MARKS)


def parse(record: Mapping[str, Any], context: RowContext) -> Sample:
    """The sample in one row. Raises RowFault."""
    metadata = record.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise RowFault(f"`metadata` must be an object, not {kind_of(metadata)}")
    choices = record.get("choice_list", (metadata or {}).get("choice_list"))
    turns = turns_of(record, KEY, text_turn)
    return sample_of_texts(record, turns if choices is None else _with_choices(turns, choices), context, KEY)


def _with_choices(turns: list[Turn], choices: object) -> list[Turn]:
    """The last question with those choices below it that it does not name itself."""
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise RowFault("`choice_list` must be a list of texts")
    asked = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=None)
    if asked is None or all(choice in turns[asked].text for choice in choices):
        return turns
    answer = turns[-1].text.strip().rstrip(".")
    letters = string.ascii_uppercase[: len(choices)]
    # Letters only where the answer is one: "A. True" below a question whose answer is "True" would mislead.
    lettered = len(answer) == 1 and answer in letters
    marks = [f"{letter}. " for letter in letters] if lettered else ["- "] * len(choices)
    lines = "".join(f"\n{mark}{choice}" for mark, choice in zip(marks, choices, strict=False))
    return [*turns[:asked], Turn("user", turns[asked].text + lines), *turns[asked + 1 :]]
