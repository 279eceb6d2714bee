"""The world's words, and its scenes: what is there, what each thing does, where everything is at any moment.

Exact by construction. Places and radii are fractions of the picture's side; times are fractions of the clip
(0 first, 1 last frame). Random scenes put nothing where it would hide another thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
# After a turn of 360 / n degrees a form looks the same; 0: a turn cannot be seen at all.
SYMMETRY = MappingProxyType(
    {"circle": 0, "ring": 0, "square": 4, "cross": 4, "triangle": 3, "star": 5, "moon": 1}
)
LETTERS = ("A", "E", "H", "K", "L", "T")
DIGITS = ("1", "2", "3", "4", "7")
GLYPHS = (*LETTERS, *DIGITS)
FORMS = (*SHAPES, *GLYPHS)  # everything that can be drawn; the index is the dense label
_PALETTE = tuple(COLOURS)
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


_STEP = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_FADE = 0.04  # an appearance, a disappearance or a change of colour takes this part of the clip


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What one thing does between ``start`` and ``end``.

    ``amount``: distance (moves, meets), degrees (turns) or ratio of the radii (grows, shrinks).
    """

    verb: str = "stays"
    direction: str | None = None
    colour: str | None = None  # the colour it becomes
    partner: str | None = None  # the name of the thing it meets
    start: float = 0.0
    end: float = 1.0
    amount: float = 0.0

    def phrase(self) -> str:
        """``moves left``, ``becomes blue``, ``meets the red star``, ``stays still``, ``grows``."""
        if self.verb == "stays":
            return "stays still"
        rest = self.direction if self.verb == "moves" else self.colour
        if self.verb == "meets":
            rest = f"the {self.partner}"
        return f"{self.verb} {rest}" if rest else self.verb


@dataclass(frozen=True)
class Track:
    """One thing at T moments: arrays [T], its colour [T, 3] in 0..255, ``alpha`` how visible it is."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    alpha: np.ndarray
    rgb: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing of a scene as it is at its start."""

    form: str
    colour: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    shade: float = 1.0  # brightness of this very thing; its colour keeps its name
    tint: tuple[float, float, float] | None = None  # RGB that has no name, drawn instead of the colour
    deed: Deed = Deed()
    shown: tuple[float, float] | None = None  # the part of the clip in which it is there; None = all of it

    @property
    def name(self) -> str:
        """``red circle``, ``blue letter A``: unique within its scene."""
        return f"{self.colour} {noun(self.form)}"

    @property
    def last_name(self) -> str:
        """Its name once it has changed colour."""
        return f"{self.deed.colour or self.colour} {noun(self.form)}"

    def fact(self) -> str:
        """One sentence: ``The red circle moves left.``"""
        return f"The {self.name} {self.deed.phrase()}."

    def track(self, times: np.ndarray) -> Track:
        """Its place, size, angle and colour at ``times`` [T] in 0..1."""
        deed, same = self.deed, np.ones_like(times)
        done = np.clip((times - deed.start) / max(deed.end - deed.start, 1e-6), 0.0, 1.0)
        x, y, radius, angle, alpha = self.x * same, self.y * same, self.radius * same, self.angle * same, same
        rgb = np.outer(same, self.tint or COLOURS[self.colour])
        if deed.verb in ("moves", "meets"):
            assert deed.direction is not None
            step_x, step_y = _STEP[deed.direction]
            x, y = x + step_x * deed.amount * done, y + step_y * deed.amount * done
        elif deed.verb == "turns":
            angle = angle + deed.amount * done
        elif deed.verb in ("grows", "shrinks"):
            radius = radius * deed.amount**done
        elif deed.verb == "appears":
            alpha = np.clip((times - deed.start) / _FADE, 0.0, 1.0)
        elif deed.verb == "vanishes":
            alpha = 1.0 - np.clip((times - deed.start) / _FADE, 0.0, 1.0)
        elif deed.verb == "becomes":
            assert deed.colour is not None
            mixed = np.clip((times - deed.start) / _FADE, 0.0, 1.0)[:, None]
            rgb = rgb * (1 - mixed) + np.outer(same, COLOURS[deed.colour]) * mixed
        if self.shown is not None:
            alpha = alpha * ((times >= self.shown[0]) & (times < self.shown[1]))
        return Track(x, y, radius, angle, alpha, np.clip(rgb * self.shade, 0, 255))

    def there_at(self, time: float) -> bool:
        """Whether it can be seen at a moment."""
        return bool(self.track(np.array([time])).alpha[0] > 0.5)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Things on a plain ground: its grey level (0..255) at the centre, and its rise to the right and down."""

    things: tuple[Thing, ...]
    ground: tuple[float, float, float] = (60.0, 0.0, 0.0)
    duration_seconds: float = 3.0

    def facts(self) -> tuple[str, ...]:
        """One sentence for each thing, in the canonical order of colours, then forms."""
        return tuple(thing.fact() for thing in self.things)


_VERBS = ("moves", "stays", "turns", "grows", "shrinks", "appears", "vanishes", "becomes")
_WEIGHTS = np.array([0.34, 0.12, 0.10, 0.09, 0.09, 0.08, 0.08, 0.10])
_MOMENTS = np.linspace(0.0, 1.0, 7)  # where the room between things is checked
_EDGE, _GAP = 0.015, 0.045  # free space to the border and between things, as parts of the side
# Radii by number of things: few things may be large, many must be small.
_RADII = {1: (0.15, 0.22), 2: (0.14, 0.19), 3: (0.135, 0.165), 4: (0.13, 0.145)}


def clip_scene(rng: np.random.Generator, split: Split, num_things: int) -> Scene:
    """A scene in which things do something; a tenth of those with two or more things show a meeting."""
    while True:
        meeting = num_things >= 2 and rng.random() < 0.12
        things = _cast(rng, split, num_things)
        for number, thing in enumerate(things):
            # One after the other: no two may become the same thing.
            things[number] = replace(thing, deed=_deed(rng, thing, things, split))
        if meeting:
            things[0] = replace(things[0], deed=Deed(verb="meets", partner=things[1].name))
            things[1] = replace(things[1], deed=Deed())
        # Several tries with one cast: else the scenes that need little room would win.
        for _ in range(10):
            placed = _place(rng, things)
            if placed is not None:
                return _finish(rng, placed)


def still_scene(rng: np.random.Generator, split: Split, num_things: int, *, wild: bool = False) -> Scene:
    """A scene for pictures: everything stays as it is. ``wild``: any size and angle that a clip can show."""
    while True:
        things = _cast(rng, split, num_things)
        if wild:
            things = [_at_any_moment(rng, thing) for thing in things]
        placed = _place(rng, things)
        if placed is not None:
            return _finish(rng, placed)


def placed_scene(rng: np.random.Generator, things: list[Thing]) -> Scene:
    """A scene of just these things, put where none hides another."""
    while True:
        placed = _place(rng, things)
        if placed is not None:
            return _finish(rng, placed)


def changed_scene(rng: np.random.Generator, split: Split, num_things: int) -> Scene:
    """Two pictures of one scene (times 0 and 1) that differ by what exactly one thing did."""
    while True:
        things = _cast(rng, split, num_things)
        index = int(rng.integers(len(things)))
        deed = _deed(rng, things[index], things, split)
        if deed.verb in ("stays", "turns"):
            continue
        things[index] = replace(things[index], deed=deed)
        placed = _place(rng, things)
        if placed is not None:
            return _finish(rng, placed)


def views_scene(rng: np.random.Generator, split: Split, num_things: int) -> tuple[Scene, tuple[Scene, Scene]]:
    """A scene one and a half pictures wide, and its two views: the left and the right two thirds.

    Every thing can be seen whole in at least one view; those in the middle are in both.
    """
    offsets = (0.0, 0.5)
    while True:
        placed: list[Thing] = []
        for thing in _cast(rng, split, num_things):
            reach = thing.radius + _EDGE
            x, y = float(rng.uniform(reach, 1.5 - reach)), float(rng.uniform(reach, 1 - reach))
            whole = any(reach <= x - offset <= 1 - reach for offset in offsets)
            apart = all(
                np.hypot(x - other.x, y - other.y) - thing.radius - other.radius >= _GAP for other in placed
            )
            if whole and apart:
                placed.append(replace(thing, x=x, y=y))
        if len(placed) == num_things:
            break
    scene = _finish(rng, placed)
    left, right = (
        replace(scene, things=tuple(replace(thing, x=thing.x - offset) for thing in scene.things))
        for offset in offsets
    )
    return scene, (left, right)


def _finish(rng: np.random.Generator, things: list[Thing]) -> Scene:
    ordered = sorted(things, key=lambda thing: (_PALETTE.index(thing.colour), FORMS.index(thing.form)))
    slopes = rng.uniform(-40, 40, 2)
    return Scene(
        things=tuple(ordered),
        ground=(float(rng.uniform(20, 110)), float(slopes[0]), float(slopes[1])),
        duration_seconds=float(rng.uniform(2.0, 6.0)),
    )


def _cast(rng: np.random.Generator, split: Split, num_things: int) -> list[Thing]:
    """Things with different names, not yet placed."""
    things: list[Thing] = []
    smallest, largest = _RADII[num_things]
    held_out = sorted(HELD_OUT)
    while len(things) < num_things:
        form = str(rng.choice(GLYPHS if rng.random() < 0.15 else SHAPES))
        colour = str(rng.choice(_PALETTE))
        if things and rng.random() < 0.2:
            form = things[0].form
        elif things and rng.random() < 0.15:
            colour = things[0].colour
        if split == "combos" and not things:
            colour, form = held_out[int(rng.integers(len(held_out)))]
        elif split != "combos" and (colour, form) in HELD_OUT:
            continue
        if any((thing.form, thing.colour) == (form, colour) for thing in things):
            continue
        tilt = 0.0 if form in GLYPHS else float(rng.uniform(-25, 25))
        things.append(
            Thing(
                form=form,
                colour=colour,
                x=0.5,
                y=0.5,
                radius=float(rng.uniform(smallest, largest)),
                angle=tilt,
                shade=float(rng.uniform(0.88, 1.05)),
            )
        )
    return things


def _at_any_moment(rng: np.random.Generator, thing: Thing) -> Thing:
    turned = bool(SYMMETRY.get(thing.form, 0)) and rng.random() < 0.5
    return replace(
        thing,
        radius=float(rng.uniform(0.1, thing.radius)) if rng.random() < 0.5 else thing.radius,
        angle=float(rng.uniform(0, 360)) if turned else thing.angle,
    )


def _deed(rng: np.random.Generator, thing: Thing, things: list[Thing], split: Split) -> Deed:
    """Something this thing can do so that it can be seen."""
    verb = str(rng.choice(_VERBS, p=_WEIGHTS))
    if verb == "turns" and not SYMMETRY.get(thing.form, 0):
        verb = "moves"  # a circle turns unseen, a glyph stays readable
    start, end = float(rng.uniform(0.0, 0.3)), float(rng.uniform(0.65, 1.0))
    moment = float(rng.uniform(0.25, 0.7))
    if verb == "moves":
        direction = str(rng.choice(DIRECTIONS))
        return Deed(
            verb=verb, direction=direction, start=start, end=end, amount=float(rng.uniform(0.26, 0.5))
        )
    if verb == "turns":
        sense = 1.0 if rng.random() < 0.5 else -1.0
        return Deed(verb=verb, start=start, end=end, amount=sense * float(rng.uniform(110, 200)))
    if verb in ("grows", "shrinks"):
        ratio = float(rng.uniform(1.5, 1.9))
        return Deed(verb=verb, start=start, end=end, amount=ratio if verb == "grows" else 1 / ratio)
    if verb in ("appears", "vanishes"):
        return Deed(verb=verb, start=moment, end=moment)
    if verb == "becomes":
        taken = {(other.form, other.colour) for other in things} | {
            (other.form, other.deed.colour) for other in things
        }
        choices = [
            c for c in _PALETTE if (thing.form, c) not in taken and not _kept_out(split, c, thing.form)
        ]
        return Deed(verb=verb, colour=str(rng.choice(choices)), start=moment, end=moment)
    return Deed()


def _kept_out(split: Split, colour: str, form: str) -> bool:
    return split != "combos" and (colour, form) in HELD_OUT


def _place(rng: np.random.Generator, things: list[Thing]) -> list[Thing] | None:
    """Give every thing a place where it stays inside the picture and clear of the others; None if unlucky."""
    placed: list[Thing] = []
    paths: list[Track] = []
    for thing in sorted(things, key=lambda t: (t.deed.verb == "meets", t.deed.verb != "moves")):
        if thing.deed.verb in ("grows", "shrinks"):
            # Small at one end, ordinary at the other.
            smallest = 0.105 if thing.deed.verb == "grows" else 0.105 / thing.deed.amount
            thing = replace(thing, radius=max(smallest, thing.radius / max(thing.deed.amount, 1.0)))
        found = _settle(rng, thing, placed, paths)
        if found is None:
            return None
        placed.append(found)
        paths.append(found.track(_MOMENTS))
    return placed


def _settle(rng: np.random.Generator, thing: Thing, placed: list[Thing], paths: list[Track]) -> Thing | None:
    """A place for one more thing beside those already placed."""
    partner = next((other for other in placed if other.name == thing.deed.partner), None)
    others = [path for path, other in zip(paths, placed, strict=True) if other is not partner]
    for _ in range(15):
        candidate = _approach(rng, thing, partner) if partner else thing
        path = replace(candidate, x=0.0, y=0.0).track(_MOMENTS)
        reach = path.radius + _EDGE
        x, y = candidate.x, candidate.y
        low_x, high_x = float((reach - path.x).max()), float((1 - reach - path.x).min())
        low_y, high_y = float((reach - path.y).max()), float((1 - reach - path.y).min())
        if partner is None:
            if low_x >= high_x or low_y >= high_y:
                return None
            x, y = float(rng.uniform(low_x, high_x)), float(rng.uniform(low_y, high_y))
        elif not (low_x <= x <= high_x and low_y <= y <= high_y):
            continue
        if all(_clear(x, y, path, other) for other in others):
            return replace(candidate, x=x, y=y)
    return None


def _approach(rng: np.random.Generator, thing: Thing, partner: Thing) -> Thing:
    """Start away from the partner, on a line with it, and end touching it."""
    direction = str(rng.choice(DIRECTIONS))
    path = float(rng.uniform(0.2, 0.45))
    touch = 0.85 * (thing.radius + partner.radius)
    away = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}[direction]
    start, end = float(rng.uniform(0.0, 0.25)), float(rng.uniform(0.65, 0.95))
    deed = replace(thing.deed, direction=direction, amount=path, start=start, end=end)
    return replace(
        thing, x=partner.x + away[0] * (path + touch), y=partner.y + away[1] * (path + touch), deed=deed
    )


def _clear(x: float, y: float, path: Track, other: Track) -> bool:
    """Whether a path moved by (x, y) keeps its distance from another."""
    gap = np.hypot(path.x + x - other.x, path.y + y - other.y) - path.radius - other.radius
    return bool(gap.min() >= _GAP)
