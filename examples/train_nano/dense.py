"""Labels that the world gives for free: what covers each cell of a grid, and what it has done so far.

They teach the vision tower (cells of one frame) and the first half of the language model (cells of a clip)
to see before a single question is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidllava.nano.scene import COLOURS, FORMS, SYMMETRY, VERBS, Scene, Thing, Track

_PALETTE = tuple(COLOURS)
NOTHING_FORM, NOTHING_COLOUR = len(FORMS), len(_PALETTE)
NO_NAME = -100  # the colour of a tinted thing: no label, and what torch's cross entropy leaves out
# One class per verb, but four for "moves": left, right, up, down come first; then "nothing here".
DEEDS = ("left", "right", "up", "down", *(verb for verb in VERBS if verb != "moves"))
NOTHING_DEED = len(DEEDS)
_MARGIN = 0.045  # a cell belongs to a thing whose rim is at most this far from the cell's centre
# Progress after which a deed can be told from "stays".
_VISIBLE = {"moves": 0.06, "turns": 12.0, "grows": 0.10, "shrinks": 0.10}


@dataclass(frozen=True)
class DenseLabels:
    """Labels of T frames on a side x side grid.

    form, colour, deed: int64 [T, side, side] (colour NO_NAME where a tint has none); measures float32
    [T, side, side, 5]: the thing's centre (x, y in -1..1), log of its radius / 0.14, and cos and sin of its
    angle times its symmetry (0, 0 where a turn cannot be seen); change float32 [T, side, side, 4]: what has
    changed since the first frame: shift to the right and down (3 per side), log ratio of the radii (times 2),
    turn (1 per 90 degrees). Zeros where there is nothing.
    """

    form: np.ndarray
    colour: np.ndarray
    deed: np.ndarray
    measures: np.ndarray
    change: np.ndarray


def dense_labels(scene: Scene, times: np.ndarray, centres: np.ndarray) -> DenseLabels:
    """Label the cells at ``centres`` x ``centres`` (fractions of the side) at ``times`` [T]."""
    shape = (len(times), len(centres), len(centres))
    form = np.full(shape, NOTHING_FORM)
    colour = np.full(shape, NOTHING_COLOUR)
    deed = np.full(shape, NOTHING_DEED)
    measures = np.zeros((*shape, 5), np.float32)
    change = np.zeros((*shape, 4), np.float32)
    nearest = np.full(shape, np.inf)
    for thing in scene.things:
        track = thing.track(times)
        rim = (
            np.hypot(
                centres[None, None, :] - track.x[:, None, None],
                centres[None, :, None] - track.y[:, None, None],
            )
            - track.radius[:, None, None]
        )
        seen = track.alpha > 0.5
        done = _progress(thing, track, seen)
        # A vanished thing still labels the empty place it left: that is where its vanishing can be seen.
        present = seen | (np.array(done) == DEEDS.index("vanishes"))
        mine = (rim < _MARGIN) & (rim < nearest) & present[:, None, None]
        nearest = np.where(mine, rim, nearest)
        form[mine] = FORMS.index(thing.form)
        hues = _hues(thing, times)
        colour[mine] = np.broadcast_to(hues[:, None, None], shape)[mine]
        deed[mine] = np.broadcast_to(done[:, None, None], shape)[mine]
        measures[mine] = np.broadcast_to(_measures(thing, track)[:, None, None, :], (*shape, 5))[mine]
        change[mine] = np.broadcast_to(_change(track)[:, None, None, :], (*shape, 4))[mine]
    return DenseLabels(form, colour, deed, measures, change)


def _hues(thing: Thing, times: np.ndarray) -> np.ndarray:
    """Palette index at every moment: it changes in the middle of the fade."""
    if thing.tint is not None:
        return np.full(len(times), NO_NAME)
    if thing.deed.colour is None:
        return np.full(len(times), _PALETTE.index(thing.colour))
    return np.where(
        times > thing.deed.start + 0.02, _PALETTE.index(thing.deed.colour), _PALETTE.index(thing.colour)
    )


def _progress(thing: Thing, track: Track, seen: np.ndarray) -> np.ndarray:
    """Deed class [T] as far as frames 0..t can show it."""
    verb = thing.deed.verb
    stays = DEEDS.index("stays")
    if verb == "stays":
        return np.full(len(seen), stays)
    if verb in ("moves", "meets"):
        shift = np.hypot(track.x - track.x[0], track.y - track.y[0])
        label = np.where(shift > _VISIBLE["moves"], DEEDS.index(str(thing.deed.direction)), stays)
        if verb == "meets":
            label = np.where(shift > thing.deed.amount * 0.97, DEEDS.index("meets"), label)
        return label
    if verb == "turns":
        happened = np.abs(track.angle - track.angle[0]) > _VISIBLE[verb]
    elif verb in ("grows", "shrinks"):
        happened = np.abs(np.log(track.radius / track.radius[0])) > _VISIBLE[verb]
    elif verb == "becomes":
        happened = np.abs(track.rgb - track.rgb[0]).sum(1) > 1.0
    else:
        happened = seen != seen[0]
    return np.where(happened, DEEDS.index(verb), stays)


def _measures(thing: Thing, track: Track) -> np.ndarray:
    order = SYMMETRY.get(thing.form, 0)
    angle = np.deg2rad(track.angle) * order
    visible = 1.0 if order else 0.0
    columns = (
        2 * track.x - 1,
        2 * track.y - 1,
        np.log(track.radius / 0.14),
        np.cos(angle) * visible,
        np.sin(angle) * visible,
    )
    return np.stack(columns, 1).astype(np.float32)


def _change(track: Track) -> np.ndarray:
    columns = (
        3 * (track.x - track.x[0]),
        3 * (track.y - track.y[0]),
        2 * np.log(track.radius / track.radius[0]),
        (track.angle - track.angle[0]) / 90,
    )
    return np.stack(columns, 1).astype(np.float32)
