"""The example files: unseen scenes as .mp4 and .png, with questions and their true answers.

python -m examples.train_nano.make_examples examples        writes the media and examples/questions.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidllava.nano.lessons import Exhibit, Lesson, Setting, make_lesson, write_exhibit
from vidllava.nano.scene import Deed, Scene, Thing

_SEED = 20  # of the test split: no other lesson is made with it
_QUESTIONS = 4

# The clip of the README: a scene set by hand, so that its story is worth telling.
_STORY = Scene(
    things=(
        Thing(
            form="circle",
            colour="red",
            x=0.24,
            y=0.30,
            radius=0.15,
            deed=Deed(verb="moves", direction="right", start=0.1, end=0.9, amount=0.46),
        ),
        Thing(
            form="star",
            colour="yellow",
            x=0.34,
            y=0.74,
            radius=0.16,
            angle=8.0,
            deed=Deed(verb="becomes", colour="blue", start=0.5, end=0.5),
        ),
    ),
    ground=(52.0, 18.0, 24.0),
    duration_seconds=4.0,
)


@dataclass(frozen=True)
class Example:
    """Files to write under one name, and what to ask about them."""

    name: str
    setting: Setting
    index: int


_EXAMPLES = (
    Example("one", "clip", 1),
    Example("two", "clip", 2),
    Example("three", "clip", 3),
    Example("picture", "picture", 4),
    Example("changed", "different", 5),
    Example("views", "views", 6),
    Example("pair", "two clips", 7),
    Example("both", "picture, clip", 8),
)


def write_examples(folder: Path) -> list[dict]:
    """Write every example and ``questions.jsonl``; returns its rows. The same files every time."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = Exhibit("video", _STORY, np.linspace(0.0, 1.0, 8))
    rows = _rows("clip", [write_exhibit(clip, folder / "clip").name], _story_questions())
    for example in _EXAMPLES:
        lesson, _ = make_lesson(
            "test", _SEED, example.index, example.setting, num_questions=_QUESTIONS, even=True
        )
        rows += _rows(example.name, _write(lesson, folder / example.name), _asked(lesson))
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def _write(lesson: Lesson, stem: Path) -> list[str]:
    """File names in order: ``one.mp4``, or ``pair-1.mp4`` and ``pair-2.mp4``."""
    if len(lesson.exhibits) == 1:
        return [write_exhibit(lesson.exhibits[0], stem).name]
    return [
        write_exhibit(exhibit, stem.with_name(f"{stem.name}-{number}")).name
        for number, exhibit in enumerate(lesson.exhibits, start=1)
    ]


def _asked(lesson: Lesson) -> list[tuple[str, str]]:
    return [(made.text, made.answer) for made in lesson.questions]


def _story_questions() -> list[tuple[str, str]]:
    return [
        ("what happens", " ".join(_STORY.facts())),
        ("What colour is the circle?", "red"),
        ("Which way does the red circle move?", "right"),
        ("What does the star do?", "becomes blue"),
        ("How many things are there?", "2"),
        ("Is there a green square?", "no"),
    ]


def _rows(name: str, media: list[str], asked: Sequence[tuple[str, str]]) -> list[dict]:
    return [
        {"id": f"{name}-{number}", "media": media, "question": question, "answer": answer}
        for number, (question, answer) in enumerate(asked, start=1)
    ]


if __name__ == "__main__":
    print(len(write_examples(Path(sys.argv[1] if len(sys.argv) > 1 else "examples"))), "questions")
