"""The nano world as a source of training samples: ``nano-world:<stage>[?key=value&...]``.

    nano-world:1            captions of single pictures (stage 1: the projector)
    nano-world:2-si         single pictures and pairs of pictures, all questions (also: 1.5)
    nano-world:2-ov?seed=3&size=200000      pictures, pairs, clips, two clips, a picture with a clip

Keys: seed (0), size (samples, 100000), turns (questions a sample at most, 6), split (train), pixels (84),
clips (part of 2-ov that holds a clip, 0.7).
"""

from __future__ import annotations

from typing import get_args
from urllib.parse import parse_qsl

import numpy as np

from vidllava.data.source import Modality, Sample, Source, Visual
from vidllava.errors import UsageError
from vidllava.nano.draw import draw, to_bytes, weather
from vidllava.nano.lessons import Exhibit, Setting, make_lesson
from vidllava.nano.scene import Split
from vidllava.prompting.conversation import Turn

STAGES = ("1", "1.5", "2-si", "2-ov")
_DEFAULTS = {"seed": "0", "size": "100000", "turns": "6", "split": "train", "pixels": "84", "clips": "0.7"}
_STILL: dict[Setting, float] = {"picture": 0.6, "different": 0.15, "views": 0.1, "two pictures": 0.15}
_MOVING: dict[Setting, float] = {
    "clip": 0.82,
    "two clips": 0.06,
    "picture, clip": 0.06,
    "clip, picture": 0.06,
}
_FRAMES = (4, 5, 6, 7, 8, 12, 16)
_FRAME_SHARES = (0.25, 0.15, 0.13, 0.1, 0.33, 0.02, 0.02)


class WorldSource(Source):
    """Samples made on demand, each a pure function of (split, seed, index)."""

    def __init__(
        self, stage: str, *, seed: int, size: int, turns: int, split: Split, pixels: int, clips: float
    ) -> None:
        self.name = f"nano-world:{stage}"
        self.stage, self.seed, self.size, self.turns = stage, seed, size, turns
        self.split, self.pixels = split, pixels
        self.fingerprint = f"{stage} {seed} {size} {turns} {split} {pixels} {clips}"
        """What a resumed run compares: another world is other data."""
        shares: dict[Setting, float] = {"picture": 1.0} if stage == "1" else _STILL
        if stage == "2-ov":
            shares = {name: share * (1 - clips) for name, share in _STILL.items()}
            shares |= {name: share * clips for name, share in _MOVING.items()}
        self._settings, weights = tuple(shares), np.array(list(shares.values()))
        self._shares = weights / weights.sum()

    def __len__(self) -> int:
        return self.size

    def modality(self, index: int) -> Modality:
        """Picture, pictures or video, without drawing anything."""
        setting, _ = self._setting(index)
        if "clip" in setting:
            return "video"
        return "picture" if setting == "picture" else "pictures"

    def sample(self, index: int) -> Sample:
        """The conversation at ``index`` with its frames."""
        setting, num_frames = self._setting(index)
        lesson, rng = make_lesson(
            self.split,
            self.seed,
            index,
            setting,
            num_frames=num_frames,
            num_questions=1 if self.stage == "1" else self.turns if num_frames <= 8 else min(self.turns, 3),
        )
        questions = list(lesson.questions)
        if self.stage != "1":
            # The free answer would tell the single facts that follow it.
            rng.shuffle(questions)
        turns = [
            turn for made in questions for turn in (Turn("user", made.text), Turn("assistant", made.answer))
        ]
        # As `ask` has it: a picture is tiled where it is alone in its prompt, else a square.
        alone = len(lesson.exhibits) == 1
        visuals = tuple(_visual(exhibit, self.pixels, rng, alone=alone) for exhibit in lesson.exhibits)
        return Sample(id=f"{self.name}/{self.split}/{self.seed}/{index}", turns=tuple(turns), visuals=visuals)

    def _setting(self, index: int) -> tuple[Setting, int]:
        if not 0 <= index < self.size:
            raise IndexError(f"sample {index} of {self.size}")
        # A stream of its own, so that the modality costs no scene.
        rng = np.random.default_rng([7, self.seed, index])
        setting = self._settings[int(rng.choice(len(self._settings), p=self._shares))]
        if "clip" in setting and setting != "clip":
            return setting, 4  # beside another visual a full clip would leave no room for questions
        return setting, int(rng.choice(_FRAMES, p=_FRAME_SHARES))


def _visual(exhibit: Exhibit, pixels: int, rng: np.random.Generator, *, alone: bool) -> Visual:
    frames = draw(exhibit.scene, exhibit.times, pixels)
    frames = weather(frames, rng) if pixels % 2 == 0 else to_bytes(frames)
    if exhibit.medium == "video":
        return Visual(kind="video", frames=frames, timestamps_seconds=exhibit.timestamps_seconds)
    return Visual(kind="picture" if alone else "pictures", frames=frames)


def world_source(spec: str) -> WorldSource:
    """The source that ``nano-world:<spec>`` names. Raises UsageError naming what is wrong with ``spec``."""
    spec = spec.removeprefix("nano-world:")
    stage, _, query = spec.partition("?")
    if stage not in STAGES:
        raise UsageError(f"nano-world:{stage}", "no such stage", f"one of {', '.join(STAGES)}")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(given) - set(_DEFAULTS)):
        raise UsageError(f"nano-world key {unknown[0]}", "unknown", f"one of {', '.join(_DEFAULTS)}")
    values = {**_DEFAULTS, **given}
    if values["split"] not in get_args(Split):
        raise UsageError(f"split={values['split']}", "no such split", f"one of {', '.join(get_args(Split))}")
    return WorldSource(
        stage,
        seed=_number(values, "seed", 0, 2**31),
        size=_number(values, "size", 1, 2**31),
        turns=_number(values, "turns", 1, 20),
        split=values["split"],  # type: ignore[arg-type]
        pixels=_number(values, "pixels", 28, 2048),
        clips=_part(values["clips"]),
    )


def _number(values: dict[str, str], key: str, low: int, high: int) -> int:
    text = values[key]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise UsageError(f"{key}={text}", "not usable", f"a whole number from {low} to {high}")
    return int(text)


def _part(text: str) -> float:
    try:
        part = float(text)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise UsageError(f"clips={text}", "not usable", "a number from 0 to 1")
    return part
