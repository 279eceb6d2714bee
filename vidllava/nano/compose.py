"""Random scenes: which things, doing what, and places where none hides another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vidllava.nano.scene import Deed, Scene, Thing, Track
from vidllava.nano.shapes import SYMMETRY
from vidllava.nano.words import COLOURS, DIRECTIONS, FORMS, GLYPHS, HELD_OUT, SHAPES, Split

_PALETTE = tuple(COLOURS)
_VERBS = ("moves", "stays", "turns", "grows", "shrinks", "appears", "vanishes", "becomes")
_WEIGHTS = np.array([0.34, 0.12, 0.10, 0.09, 0.09, 0.08, 0.08, 0.10])
_MOMENTS = np.linspace(0.0, 1.0, 7)  # where the room between things is checked
_EDGE, _GAP = 0.015, 0.045  # free space to the border and between things, as parts of the side
_CONTRAST, _NAMELESS = 90.0, 55.0  # RGB levels between a tint and the ground, and the named colours
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


def tinted(rng: np.random.Generator, scene: Scene, share: float) -> Scene:
    """``scene`` with this share of its things in random colours, clear of the ground and of every named
    colour (so that no held-out combination is shown by chance)."""
    named = np.array(list(COLOURS.values()), np.float64)
    things = []
    for thing in scene.things:
        if rng.random() < share:
            rgb = _nameless(rng, scene.ground[0], named)
            thing = replace(thing, tint=rgb)
        things.append(thing)
    return replace(scene, things=tuple(things))


def _nameless(rng: np.random.Generator, grey: float, named: np.ndarray) -> tuple[float, float, float]:
    while True:
        rgb = rng.uniform(10, 250, 3)
        apart = np.linalg.norm(named - rgb, axis=1).min()
        if apart > _NAMELESS and np.abs(rgb - grey).max() > _CONTRAST:
            return float(rgb[0]), float(rgb[1]), float(rgb[2])


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
