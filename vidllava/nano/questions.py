"""Questions with exact answers about one scene, by kind.

A single-fact answer is one to a few words ("red", "2", "moves left", "the blue star"); a free answer is one
sentence per fact in the scene's canonical order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidllava.nano.kinds import KINDS, pick
from vidllava.nano.scene import Scene
from vidllava.nano.words import MEDIA_WORDS, WORDINGS

Medium = Literal["video", "picture", "changed"]  # changed: two pictures of one scene, before and after

_STILL = (
    "colour",
    "shape",
    "count",
    "count_form",
    "count_colour",
    "letter",
    "number",
    "is_there",
    "is_colour",
)
KINDS_OF: dict[Medium, tuple[str, ...]] = {
    "picture": (*_STILL, "where", "caption"),
    "changed": ("different",),
    "video": tuple(kind for kind in KINDS if kind not in ("where", "caption", "different")),
}
# Free answers, scored as facts; every other kind is a single fact.
FREE_KINDS = ("happens", "caption", "different")
# The slots that may hold the claim of a yes-or-no question.
_CLAIMS = {"does_it": ("do", "phrase"), "is_colour": ("colour",)}


@dataclass(frozen=True)
class Question:
    """A question and its true answer. ``text`` is lower case and without a question mark: see ``styled``.

    ``claim``: what a yes-or-no question says of its thing ("moves left", "red"), as it stands in the text.
    ``about``: which exhibit of its lesson it asks about.
    """

    kind: str
    text: str
    answer: str
    claim: str = ""
    about: int = 0


def question(
    kind: str, scene: Scene, medium: Medium, rng: np.random.Generator, locator: str = ""
) -> Question | None:
    """One question of this kind about the scene, or None if the scene has none.

    ``locator`` (`` in the second clip``) ends the question and needs a wording that does not name the clip
    itself.
    """
    made = KINDS[kind](scene, rng) if kind in KINDS_OF[medium] else None
    if made is None:
        return None
    answer, slots = made
    clip = pick(rng, MEDIA_WORDS["video" if medium == "video" else "picture"])
    templates = [
        text for text in WORDINGS[kind] if not locator or ("{clip}" not in text and " here" not in text)
    ]
    template = pick(rng, templates)
    claim = next((slots[slot] for slot in _CLAIMS.get(kind, ()) if f"{{{slot}}}" in template), "")
    return Question(kind, template.format(clip=clip, **slots) + locator, answer, claim)


def styled(text: str, rng: np.random.Generator) -> str:
    """The question as people type it: with or without a capital letter and a question mark."""
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    ending = "?" if rng.random() < 0.6 else ""
    if text.lower().startswith(
        ("describe", "tell", "name", "count", "read", "list", "say", "explain", "compare")
    ):
        ending = "." if rng.random() < 0.4 else ""
    return text + ending
