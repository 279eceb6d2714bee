"""Lessons: what is shown (in memory or as real files) and the questions asked about it.

A lesson is a pure function of (split, seed, index, setting): nothing is stored, any one can be made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vidllava.media.encode import write_clip
from vidllava.nano.compose import changed_scene, clip_scene, still_scene, views_scene
from vidllava.nano.draw import draw, to_bytes
from vidllava.nano.questions import FREE_KINDS, KINDS_OF, Medium, Question, question, styled
from vidllava.nano.scene import Scene
from vidllava.nano.words import LOCATORS, MEDIA_WORDS, ORDINALS, Split, generator

# What stands in a lesson, in order; "different" is two pictures of one scene, "views" two views of one.
Setting = Literal[
    "clip", "picture", "different", "views", "two pictures", "two clips", "picture, clip", "clip, picture"
]
# How often each kind is asked: binding and motion, which are hardest, most.
_CLIP_WEIGHTS = {
    "colour": 0.8,
    "shape": 0.5,
    "count": 1.4,
    "count_form": 2.6,
    "count_colour": 0.8,
    "count_start": 0.5,
    "count_end": 0.6,
    "direction": 1.0,
    "event": 1.8,
    "who": 2.8,
    "colour_start": 0.8,
    "colour_end": 0.8,
    "letter": 0.4,
    "number": 0.4,
    "meets": 0.7,
    "is_there": 1.2,
    "is_colour": 1.5,
    "does_it": 3.5,
}
_PICTURE_WEIGHTS = {
    "colour": 1.5,
    "shape": 0.8,
    "count": 1.2,
    "count_form": 2.5,
    "count_colour": 1.5,
    "letter": 0.7,
    "number": 0.7,
    "is_there": 2.2,
    "is_colour": 1.8,
    "where": 2.0,
}
SIZE, FPS = 336, 16  # of the files, large enough for people to look at
_FREE: dict[Medium, str] = {"video": "happens", "picture": "caption", "changed": "different"}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One thing shown: a scene at ``times`` [T] (fractions of the clip; one moment for a picture)."""

    medium: Literal["video", "picture"]
    scene: Scene
    times: np.ndarray

    @property
    def timestamps_seconds(self) -> np.ndarray:
        """Seconds from the start, float64 [T]."""
        return self.times * self.scene.duration_seconds


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is shown and what is asked about it, each question with its true answer."""

    setting: Setting
    exhibits: tuple[Exhibit, ...]
    questions: tuple[Question, ...]

    @property
    def one_scene(self) -> bool:
        """Whether all exhibits show the same things."""
        return len(self.exhibits) == 1 or self.setting in ("different", "views")


def make_lesson(
    split: Split,
    seed: int,
    index: int,
    setting: Setting,
    *,
    num_frames: int = 8,
    num_questions: int = 9,
    things: tuple[float, ...] = (0.34, 0.36, 0.30),
    kinds: tuple[str, ...] | None = None,
    even: bool = False,
) -> tuple[Lesson, np.random.Generator]:
    """The lesson at ``index`` and its random stream, which may be used further (for the weather).

    ``things``: how likely 1, 2, 3 (, 4) things are. ``kinds``: ask only these. ``even``: draw every kind as
    often, as tests do; training asks most what is hardest.
    """
    rng = generator(split, seed, index)
    maker = _Maker(rng, split, num_frames, num_questions, things, kinds, even)
    exhibits, asked = _SETTINGS[setting](maker)
    return Lesson(setting, exhibits, tuple(asked)), rng


@dataclass(frozen=True, eq=False)
class _Maker:
    rng: np.random.Generator
    split: Split
    num_frames: int
    num_questions: int
    things: tuple[float, ...]
    kinds: tuple[str, ...] | None
    even: bool

    def num_things(self) -> int:
        return 1 + int(self.rng.choice(len(self.things), p=self.things))

    def clip(self) -> Exhibit:
        scene = clip_scene(self.rng, self.split, min(self.num_things(), 3))
        return Exhibit("video", scene, np.linspace(0.0, 1.0, self.num_frames))

    def picture(self) -> Exhibit:
        # Now and then four, for counting.
        number = 4 if self.rng.random() < 0.12 else self.num_things()
        return Exhibit("picture", still_scene(self.rng, self.split, number), np.zeros(1))

    def ask(
        self,
        asked: list[Question],
        kind: str,
        scene: Scene,
        medium: Medium,
        locator: str = "",
        about: int = 0,
    ) -> None:
        """Add one question, unless the scene has none of this kind or it was asked before."""
        if self.kinds is not None and kind not in self.kinds:
            return
        made = question(kind, scene, medium, self.rng, locator)
        if made is None:
            return
        text = styled(made.text, self.rng)
        if all(text.lower() != other.text.lower() for other in asked):
            asked.append(replace(made, text=text, about=about))

    def any_kind(self, medium: Medium) -> str:
        weights = _CLIP_WEIGHTS if medium == "video" else _PICTURE_WEIGHTS
        wanted = [kind for kind in weights if self.kinds is None or kind in self.kinds]
        if not wanted:
            return _FREE[medium]
        share = np.array([1.0 if self.even else weights[kind] for kind in wanted])
        return str(self.rng.choice(wanted, p=share / share.sum()))

    def ask_all(self, scene: Scene, medium: Medium, skip: tuple[str, ...] = ()) -> list[Question]:
        """One free question and single facts up to the number wanted."""
        asked: list[Question] = []
        self.ask(asked, _FREE[medium], scene, medium)
        for _ in range(2 * self.num_questions):
            kind = self.any_kind(medium)
            if len(asked) < self.num_questions and kind not in skip:
                self.ask(asked, kind, scene, medium)
        return asked


_Made = tuple[tuple[Exhibit, ...], list[Question]]


def _one_clip(maker: _Maker) -> _Made:
    shown = maker.clip()
    return (shown,), maker.ask_all(shown.scene, "video")


def _one_picture(maker: _Maker) -> _Made:
    shown = maker.picture()
    return (shown,), maker.ask_all(shown.scene, "picture")


def _different(maker: _Maker) -> _Made:
    scene = changed_scene(maker.rng, maker.split, maker.num_things())
    asked: list[Question] = []
    for _ in range(2):
        maker.ask(asked, "different", scene, "changed")
    shown = tuple(Exhibit("picture", scene, np.array([moment])) for moment in (0.0, 1.0))
    return shown, asked


def _views(maker: _Maker) -> _Made:
    scene, views = views_scene(maker.rng, maker.split, maker.num_things() + 1)
    asked = maker.ask_all(scene, "picture", skip=("where",))
    # Each view is a picture; the question is about the scene, so it must not say "in the picture".
    words = MEDIA_WORDS["picture"]
    asked = [made for made in asked if not any(word in made.text.lower() for word in words)]
    return tuple(Exhibit("picture", view, np.zeros(1)) for view in views), asked


def _several(*media: Literal["video", "picture"]) -> Callable[[_Maker], _Made]:
    def make(maker: _Maker) -> _Made:
        shown = tuple(maker.clip() if medium == "video" else maker.picture() for medium in media)
        asked: list[Question] = []
        for turn in range(3 * maker.num_questions):
            if len(asked) == maker.num_questions:
                break
            index = int(maker.rng.integers(len(shown)))
            medium = media[index]
            kind = _FREE[medium] if turn % 5 == 0 else maker.any_kind(medium)
            maker.ask(asked, kind, shown[index].scene, medium, _locator(maker.rng, media, index), index)
        return shown, asked

    return make


def _locator(rng: np.random.Generator, media: tuple[Literal["video", "picture"], ...], index: int) -> str:
    """`` in the second picture``, `` in clip 2``, or `` in the clip`` where there is only one."""
    words = MEDIA_WORDS[media[index]]
    word = words[int(rng.integers(len(words)))]
    if media.count(media[index]) == 1:
        return f" in the {word}"
    place = media[:index].count(media[index])
    form = LOCATORS[int(rng.integers(len(LOCATORS)))]
    return " " + form.format(ordinal=ORDINALS[place], word=word, number=place + 1)


_SETTINGS: dict[Setting, Callable[[_Maker], _Made]] = {
    "clip": _one_clip,
    "picture": _one_picture,
    "different": _different,
    "views": _views,
    "two pictures": _several("picture", "picture"),
    "two clips": _several("video", "video"),
    "picture, clip": _several("picture", "video"),
    "clip, picture": _several("video", "picture"),
}
SETTINGS: tuple[Setting, ...] = tuple(_SETTINGS)
SINGLE_FACT_KINDS = tuple(
    kind for kind in dict.fromkeys(sum(KINDS_OF.values(), ())) if kind not in FREE_KINDS
)


def write_exhibit(exhibit: Exhibit, stem: Path) -> Path:
    """Write what is shown as ``stem``.mp4 or ``stem``.png; returns the path."""
    if exhibit.medium == "video":
        return _write_scene(exhibit.scene, stem.with_suffix(".mp4"))
    path = stem.with_suffix(".png")
    Image.fromarray(to_bytes(draw(exhibit.scene, exhibit.times, SIZE))[0]).save(path, optimize=True)
    return path


def _write_scene(scene: Scene, path: Path) -> Path:
    count = max(round(scene.duration_seconds * FPS), 8)
    return write_clip(path, to_bytes(draw(scene, np.linspace(0.0, 1.0, count), SIZE)), fps=FPS)
