"""Long clips of the nano world with questions that few frames answer: a labelled set to benchmark frames on.

    python -m examples.train_nano.long_clips build/long                 200 clips and long.jsonl
    python -m examples.train_nano.long_clips build/long --clips 40 --durations 8,16 --seed 1

A clip of 8 to 128 seconds shows one thing throughout, and a visitor for half a second to the whole clip.
Questions ask about the visitor (its colour, its shape, whether it is there) and about what the first thing
does. Answers are dealt out in turn, so that whoever sees no frame is right by chance alone: one colour of
eight, one shape of seven, yes or no, one direction of four.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidllava.media.encode import write_clip
from vidllava.nano.draw import draw, to_bytes
from vidllava.nano.questions import MEDIA_WORDS, WORDINGS, styled, with_article
from vidllava.nano.scene import (
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    SHAPES,
    Deed,
    Scene,
    Thing,
    generator,
    placed_scene,
)

SIZE, FPS = 168, 8
DURATIONS_SECONDS = (8.0, 16.0, 32.0, 64.0, 128.0)
EVENTS_SECONDS = (0.5, 2.0, 8.0, None)  # None: the whole clip
KINDS = ("colour", "shape", "is_there", "direction")
CHANCE = {"colour": 1 / 8, "shape": 1 / 7, "is_there": 1 / 2, "direction": 1 / 4}
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class LongClip:
    """One clip and its question. ``event_seconds``: how long what is asked about can be seen."""

    name: str
    scene: Scene
    kind: str
    question: str
    answer: str
    event_seconds: float

    def row(self) -> dict[str, object]:
        """A line of an evaluation set."""
        whole = self.event_seconds == self.scene.duration_seconds
        return {
            "id": self.name,
            "video": f"{self.name}.mp4",
            "question": self.question,
            "answer": self.answer,
            "category": "whole clip" if whole else f"{self.event_seconds:g} s",
            "kind": self.kind,
            "event_seconds": self.event_seconds,
            "duration_seconds": self.scene.duration_seconds,
        }


def long_clips(
    num_clips: int, *, durations: Sequence[float] = DURATIONS_SECONDS, seed: int = 0
) -> Iterator[LongClip]:
    """``num_clips`` clips: every duration, length of event, kind and answer as often as any other."""
    cells = [(d, e) for d in durations for e in EVENTS_SECONDS if e is None or e < d]
    for index in range(num_clips):
        duration, event = cells[index % len(cells)]
        # Kinds and answers run through all cells: a step of the outer wheel when the inner one is through.
        turn = index // len(cells) + index % len(cells)
        kind = KINDS[turn % len(KINDS)] if event is None else KINDS[turn % 3]
        yield _clip(index, turn // len(KINDS), kind, duration, event, seed)


def _clip(index: int, turn: int, kind: str, duration: float, event: float | None, seed: int) -> LongClip:
    rng = generator("test", 1_000_000 + seed, index)
    host, visitor, text, answer = _subject(kind, turn + index, rng)
    part = 1.0 if event is None else event / duration
    begins = float(rng.uniform(0.0, 1.0 - part))
    if event is not None:
        visitor = replace(visitor, shown=(begins, begins + part))
    scene = replace(placed_scene(rng, [host, visitor]), duration_seconds=duration)
    clip = MEDIA_WORDS["video"][int(rng.integers(len(MEDIA_WORDS["video"])))]
    question = styled(text.replace("{clip}", clip), rng)
    # The name says what is in the file, so that one written for other settings is never taken for it.
    digest = hashlib.blake2b(repr(scene).encode(), digest_size=4).hexdigest()
    name = f"long_{index:04d}_{digest}"
    return LongClip(name, scene, kind, question, answer, duration if event is None else event)


def _subject(kind: str, turn: int, rng: np.random.Generator) -> tuple[Thing, Thing, str, str]:
    """(what is there throughout, the visitor, a question, its answer); ``turn`` deals out the answers."""
    colours, shapes = tuple(COLOURS), SHAPES
    while True:
        colour = colours[turn % len(colours)] if kind == "colour" else _one(rng, colours)
        shape = shapes[turn % len(shapes)] if kind == "shape" else _one(rng, shapes)
        other_colour, other_shape = _one(rng, colours), _one(rng, shapes)
        if (
            other_colour != colour
            and other_shape != shape
            and _known((colour, shape), (other_colour, other_shape))
        ):
            break
    direction = DIRECTIONS[turn % len(DIRECTIONS)]
    moves = Deed(verb="moves", direction=direction, start=0.0, end=1.0, amount=float(rng.uniform(0.35, 0.5)))
    host = _thing(other_shape, other_colour, moves, rng)
    visitor = _thing(shape, colour, Deed(), rng)
    template = _one(rng, [text for text in WORDINGS[kind] if " here" not in text])
    if kind == "direction":
        return host, visitor, template.replace("{it}", f"the {host.name}"), direction
    if kind == "colour":
        return host, visitor, template.replace("{it}", f"the {shape}"), colour
    if kind == "shape":
        return host, visitor, template.replace("{colour}", colour), shape
    asked, answer = visitor, "yes"
    if turn % 2:
        # A near miss: the visitor's form in the colour of something else.
        wrong = [c for c in colours if c != colour and (c, shape) not in HELD_OUT]
        asked, answer = replace(visitor, colour=_one(rng, wrong)), "no"
    return host, visitor, template.replace("{a_name}", with_article(asked.name)), answer


def _known(*names: tuple[str, str]) -> bool:
    return not any(name in HELD_OUT for name in names)


def _thing(form: str, colour: str, deed: Deed, rng: np.random.Generator) -> Thing:
    radius, angle = float(rng.uniform(0.14, 0.18)), float(rng.uniform(-25, 25))
    return Thing(form=form, colour=colour, x=0.5, y=0.5, radius=radius, angle=angle, deed=deed)


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def write_set(
    folder: Path, num_clips: int, *, durations: Sequence[float] = DURATIONS_SECONDS, seed: int = 0
) -> Path:
    """Write the clips and ``long.jsonl``; returns its path. A clip that is there already is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for clip in long_clips(num_clips, durations=durations, seed=seed):
        path = folder / f"{clip.name}.mp4"
        if not path.exists():
            unfinished = write_clip(path.with_suffix(".part"), frames(clip.scene), fps=FPS)
            unfinished.rename(path)
        rows.append(json.dumps(clip.row()))
        if len(rows) % 20 == 0 or len(rows) == num_clips:
            print(f"{len(rows)} of {num_clips} clips", file=sys.stderr, flush=True)
    listed = folder / "long.jsonl"
    listed.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return listed


def frames(scene: Scene) -> np.ndarray:
    """All frames of a scene, uint8 [T, SIZE, SIZE, 3], drawn a piece at a time."""
    times = np.linspace(0.0, 1.0, round(scene.duration_seconds * FPS))
    drawn = np.empty((len(times), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(times), _FRAMES_AT_ONCE):
        piece = slice(start, start + _FRAMES_AT_ONCE)
        drawn[piece] = to_bytes(draw(scene, times[piece], SIZE))
    return drawn


def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--durations", default=",".join(f"{d:g}" for d in DURATIONS_SECONDS), help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    durations = tuple(float(word) for word in options.durations.split(","))
    print(write_set(options.folder, options.clips, durations=durations, seed=options.seed))


if __name__ == "__main__":
    _main()
