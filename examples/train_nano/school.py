"""Second lesson: to talk about what is seen. The language model learns from packed lessons.

Every step is a batch of lessons of one setting, drawn on the fly. Every visual row also learns, half-way up,
what its thing has done so far (``student.watching_loss``). The tower stays as ``tower`` left it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaOnevisionForConditionalGeneration as OneVision

from examples.train_nano.model import IMAGE_SIZE
from examples.train_nano.optimizer import Optimizer
from examples.train_nano.packing import Packed, pack
from examples.train_nano.student import Read, WatchHeads, naming_loss, read, watching_loss
from vidllava.nano.draw import draw, weather
from vidllava.nano.lessons import Lesson, Setting, make_lesson
from vidllava.nano.questions import FREE_KINDS
from vidllava.nano.scene import Split

# How often each setting is drawn: clips are the main job, and motion is what takes longest to learn.
_SETTINGS: dict[Setting, float] = {
    "clip": 0.40,
    "picture": 0.14,
    "different": 0.04,
    "views": 0.06,
    "two pictures": 0.11,
    "two clips": 0.13,
    "picture, clip": 0.06,
    "clip, picture": 0.06,
}
# Most clips are short, for speed; a few fill the context that nano declares.
_FRAMES = (4, 5, 6, 7, 8, 12, 16, 20)
_FRAME_SHARES = (0.28, 0.17, 0.13, 0.1, 0.25, 0.03, 0.02, 0.02)
# Two clips, or a clip and a picture, must leave room for questions.
_SHORT_FRAMES, _SHORT_SHARES = (4, 5, 6, 8), (0.55, 0.2, 0.15, 0.1)
_SINGLE_WEIGHT, _ANSWER_WEIGHT = 2.0, 4.0
_THINGS = (0.32, 0.36, 0.32)


@dataclass(frozen=True, kw_only=True)
class SchoolSettings:
    """How long, how fast. Rates are constant, then fall linearly over the last ``decay`` of the time."""

    minutes: float
    batch_size: int = 16
    muon_lr: float = 5e-3
    adam_lr: float = 1.6e-3
    decay: float = 0.8
    warmup_steps: int = 50
    tower_learns: bool = False
    seed: int = 0
    log_every: int = 20
    save_minutes: float = 5.0
    validation_lessons: int = 16
    """Per setting, with every save."""


@dataclass
class Marks:
    """Right answers by setting and kind, over validation lessons."""

    asked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)

    def add(self, setting: str, batch: Packed, result: Read) -> None:
        """Count the questions of one batch; an answer is right if all its tokens are."""
        wrong = set(batch.targets[~result.right, 2].tolist())
        for number, kind in enumerate(batch.kinds):
            self.asked[f"{setting}: {kind}"] += 1
            self.right[f"{setting}: {kind}"] += number not in wrong

    def shares(self) -> dict[str, float]:
        """Share of right answers."""
        return {key: round(self.right[key] / asked, 3) for key, asked in sorted(self.asked.items())}


def school(model: OneVision, settings: SchoolSettings, folder: Path) -> Iterator[dict]:
    """Train ``model`` in place; yields lines of the learning curve. Goes on from state.pt in ``folder``.

    Validation marks come with every save. Wall time spent before an interruption counts.
    """
    heads = WatchHeads(model.model.language_model.embed_tokens.embedding_dim)
    optimizer = _optimizer(model, heads, settings)
    start, step = time.monotonic(), 0
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        start, step = start - state["seconds"], state["step"]
    saved = time.monotonic()
    while (done := (time.monotonic() - start) / 60 / settings.minutes) < 1:
        optimizer.set_share(_share(done, step, settings))
        setting, num_frames = _draw_setting(settings.seed, step)
        lessons, pixels = _batch("train", settings.seed, step, settings.batch_size, setting, num_frames)
        batch = pack(lessons, tile=IMAGE_SIZE)
        result = read(model, batch, pixels, tower_learns=settings.tower_learns)
        watching, seen = watching_loss(heads, result.watched, lessons)
        naming, known, judged = naming_loss(heads, result, batch, lessons)
        norm = optimizer.step(_answer_loss(result, batch) + watching + naming)
        step += 1
        if step % settings.log_every == 0:
            loss, right = result.losses.mean().item(), result.right.float().mean().item()
            seconds = time.monotonic() - start
            line = _line(step, seconds, setting, loss=loss, tokens_right=right, seen=seen, norm=norm)
            yield {**line, "names_known": round(known, 3), "claims_judged": round(judged, 3)}
        if time.monotonic() - saved > 60 * settings.save_minutes:
            saved = time.monotonic()
            _save(state_file, model, heads, optimizer, step, time.monotonic() - start)
            yield {"step": step, "marks": examine(model, settings.validation_lessons).shares()}
    _save(state_file, model, heads, optimizer, step, time.monotonic() - start)
    yield {"step": step, "marks": examine(model, settings.validation_lessons).shares()}


def _answer_loss(result: Read, batch: Packed) -> torch.Tensor:
    """Mean over tokens, those of single facts weighing more: else the long free answers drown them, and the
    many extra labels drown the answers."""
    single = torch.tensor([kind not in FREE_KINDS for kind in batch.kinds])
    weight = torch.where(single[batch.targets[:, 2]], _SINGLE_WEIGHT, 1.0)
    return _ANSWER_WEIGHT * (result.losses * weight).sum() / weight.sum()


def examine(model: OneVision, lessons: int, *, split: Split = "val") -> Marks:
    """Ask so many lessons of every setting, packed: a quick look, ``score`` is the measure."""
    marks = Marks()
    with torch.no_grad():
        for setting in _SETTINGS:
            shown, pixels = _batch(split, 777, 0, lessons, setting, 8)
            batch = pack(shown, tile=IMAGE_SIZE)
            marks.add(setting, batch, read(model, batch, pixels, tower_learns=False))
    return marks


def _optimizer(model: OneVision, heads: WatchHeads, settings: SchoolSettings) -> Optimizer:
    parts = [
        ("language", model.model.language_model),
        ("projector", model.model.multi_modal_projector),
        ("heads", heads),
    ]
    if settings.tower_learns:
        parts.append(("tower", model.model.vision_tower))
    return Optimizer(
        parts,
        muon_lr=settings.muon_lr,
        adam_lr=settings.adam_lr,
        slow=("tower",),
        vectors=[model.model.image_newline],
    )


def _share(done: float, step: int, settings: SchoolSettings) -> float:
    falling = 1.0 if done < 1 - settings.decay else max(0.02, (1 - done) / settings.decay)
    return min(1.0, (step + 1) / settings.warmup_steps) * falling


def _draw_setting(seed: int, step: int) -> tuple[Setting, int]:
    rng = np.random.default_rng([9, seed, step])
    names = tuple(_SETTINGS)
    setting = names[int(rng.choice(len(names), p=list(_SETTINGS.values())))]
    if "clip" in setting and setting != "clip":
        return setting, int(rng.choice(_SHORT_FRAMES, p=_SHORT_SHARES))
    return setting, int(rng.choice(_FRAMES, p=_FRAME_SHARES))


def _batch(
    split: Split, seed: int, number: int, size: int, setting: Setting, num_frames: int
) -> tuple[list[Lesson], torch.Tensor]:
    """Lessons ``number * size`` and on, and their pixels uint8 [grids, S, S, 3] in order."""
    lessons, frames = [], []
    for index in range(number * size, (number + 1) * size):
        lesson, rng = make_lesson(split, seed, index, setting, num_frames=num_frames, things=_THINGS)
        drawn = [draw(exhibit.scene, exhibit.times, IMAGE_SIZE) for exhibit in lesson.exhibits]
        lessons.append(lesson)
        frames.append(weather(np.concatenate(drawn), rng))
    return lessons, torch.from_numpy(np.concatenate(frames))


def _line(
    step: int,
    seconds: float,
    setting: str,
    *,
    loss: float,
    tokens_right: float,
    seen: Sequence[float],
    norm: float,
) -> dict:
    form, colour, deed = (round(value, 3) for value in seen)
    return {
        "step": step,
        "seconds": round(seconds),
        "setting": setting,
        "loss": round(loss, 4),
        "tokens_right": round(tokens_right, 3),
        "cells": {"form": form, "colour": colour, "deed": deed},
        "grad_norm": round(norm, 2),
    }


def _save(
    path: Path,
    model: OneVision,
    heads: WatchHeads,
    optimizer: Optimizer,
    step: int,
    seconds: float,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "heads": heads.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def log(line: dict, path: Path) -> None:
    """Append one line of the learning curve, and say it on stderr: the run takes hours."""
    text = json.dumps(line)
    print(text, file=sys.stderr)
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
