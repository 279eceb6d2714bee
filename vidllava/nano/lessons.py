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
from vidllava.nano.draw import draw, to_bytes
from vidllava.nano.questions import (
    LOCATORS,
    MEDIA_WORDS,
    ORDINALS,
    WEIGHTS,
    Medium,
    WorldQuestion,
    question,
    styled,
)
from vidllava.nano.scene import Scene, Split, changed_scene, clip_scene, generator, still_scene, views_scene

# What stands in a lesson, in order; "different" is two pictures of one scene, "views" two views of one.
Setting = Literal[
    "clip", "picture", "different", "views", "two pictures", "two clips", "picture, clip", "clip, picture"
]
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
    questions: tuple[WorldQuestion, ...]

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

    def show(self, medium: Literal["video", "picture"]) -> Exhibit:
        if medium == "video":
            scene = clip_scene(self.rng, self.split, min(self.num_things(), 3))
            return Exhibit("video", scene, np.linspace(0.0, 1.0, self.num_frames))
        # Now and then four, for counting.
        number = 4 if self.rng.random() < 0.12 else self.num_things()
        return Exhibit("picture", still_scene(self.rng, self.split, number), np.zeros(1))

    def ask(
        self,
        asked: list[WorldQuestion],
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
        weights = WEIGHTS["clip" if medium == "video" else "picture"]
        wanted = [kind for kind in weights if self.kinds is None or kind in self.kinds]
        if not wanted:
            return _FREE[medium]
        share = np.array([1.0 if self.even else weights[kind] for kind in wanted])
        return str(self.rng.choice(wanted, p=share / share.sum()))

    def ask_all(self, scene: Scene, medium: Medium, skip: tuple[str, ...] = ()) -> list[WorldQuestion]:
        """One free question and single facts up to the number wanted."""
        asked: list[WorldQuestion] = []
        self.ask(asked, _FREE[medium], scene, medium)
        for _ in range(2 * self.num_questions):
            kind = self.any_kind(medium)
            if len(asked) < self.num_questions and kind not in skip:
                self.ask(asked, kind, scene, medium)
        return asked


_Made = tuple[tuple[Exhibit, ...], list[WorldQuestion]]


def _one(medium: Literal["video", "picture"]) -> Callable[[_Maker], _Made]:
    def make(maker: _Maker) -> _Made:
        shown = maker.show(medium)
        return (shown,), maker.ask_all(shown.scene, medium)

    return make


def _different(maker: _Maker) -> _Made:
    scene = changed_scene(maker.rng, maker.split, maker.num_things())
    asked: list[WorldQuestion] = []
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
        shown = tuple(maker.show(medium) for medium in media)
        asked: list[WorldQuestion] = []
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
    "clip": _one("video"),
    "picture": _one("picture"),
    "different": _different,
    "views": _views,
    "two pictures": _several("picture", "picture"),
    "two clips": _several("video", "video"),
    "picture, clip": _several("picture", "video"),
    "clip, picture": _several("video", "picture"),
}
SETTINGS: tuple[Setting, ...] = tuple(_SETTINGS)


def write_exhibit(exhibit: Exhibit, stem: Path) -> Path:
    """Write what is shown as ``stem``.mp4 or ``stem``.png; returns the path."""
    if exhibit.medium == "video":
        count = max(round(exhibit.scene.duration_seconds * FPS), 8)
        frames = to_bytes(draw(exhibit.scene, np.linspace(0.0, 1.0, count), SIZE))
        return write_clip(stem.with_suffix(".mp4"), frames, fps=FPS)
    path = stem.with_suffix(".png")
    Image.fromarray(to_bytes(draw(exhibit.scene, exhibit.times, SIZE))[0]).save(path, optimize=True)
    return path
