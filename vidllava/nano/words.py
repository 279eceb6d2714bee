"""The words of the nano world: colours, shapes, glyphs, wordings, and combinations kept out of training."""

from __future__ import annotations

import json
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

import numpy as np

# sRGB, chosen to stay apart after 4:2:0 chroma subsampling.
COLOURS = MappingProxyType(
    {
        "red": (214, 40, 44),
        "green": (44, 160, 64),
        "blue": (48, 78, 222),
        "yellow": (244, 214, 44),
        "purple": (148, 52, 184),
        "orange": (244, 132, 28),
        "cyan": (64, 204, 224),
        "white": (242, 242, 242),
    }
)
# No two of these can be mistaken for each other at any angle.
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "moon")
LETTERS = ("A", "E", "H", "K", "L", "T")
DIGITS = ("1", "2", "3", "4", "7")
GLYPHS = (*LETTERS, *DIGITS)
FORMS = (*SHAPES, *GLYPHS)  # everything that can be drawn; the index is the dense label
DIRECTIONS = ("left", "right", "up", "down")
# The first word of what a thing does; the index is the dense label.
VERBS = ("stays", "moves", "turns", "grows", "shrinks", "appears", "vanishes", "becomes", "meets")

# Never drawn in training or validation: each colour and each shape is still seen in other company.
HELD_OUT = frozenset(
    {
        ("green", "star"),
        ("blue", "ring"),
        ("yellow", "square"),
        ("purple", "moon"),
        ("orange", "triangle"),
        ("cyan", "cross"),
    }
)


def _wordings() -> dict[str, tuple[str, ...]]:
    text = files(__package__).joinpath("wordings.json").read_text(encoding="utf-8")
    return {kind: tuple(templates) for kind, templates in json.loads(text).items()}


WORDINGS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(_wordings())
"""Question templates by kind. Slots: {it} a thing's name with "the", {a_name} with "a" or "an", {forms} a
plural, {colour} a colour, {phrase} what it does ("moves left"), {do} the same after "does" ("move left"),
{side} and {other} places, {clip} the medium ("clip", "video", "picture", "image")."""
# How a clip or a picture is called in a question.
MEDIA_WORDS = MappingProxyType({"video": ("clip", "video"), "picture": ("picture", "image")})
ORDINALS = ("first", "second", "third")
LOCATORS = ("in the {ordinal} {word}", "in {word} {number}")

Split = Literal["train", "val", "test", "combos"]
# test: unseen seeds, seen combinations. combos: unseen seeds, every scene shows a held-out combination.
SPLITS: tuple[Split, ...] = ("train", "val", "test", "combos")


def generator(split: Split, seed: int, index: int) -> np.random.Generator:
    """The random stream of one sample: streams of different splits, seeds or indices never meet."""
    return np.random.default_rng([SPLITS.index(split), seed, index])


def noun(form: str) -> str:
    """How a form is called in a sentence: ``circle``, ``letter A``, ``number 3``."""
    if form in LETTERS:
        return f"letter {form}"
    return f"number {form}" if form in DIGITS else form
