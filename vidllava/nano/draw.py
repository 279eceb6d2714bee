"""Scenes to pixels: forms as signed distances to their outline, blended into the frames.

Distances are in units of the form's radius, negative inside; u to the right, v downwards, origin at the
centre. Analytic distances make the drawing anti-aliased and independent of resolution: the same thing at 84
and at 336 pixels. Only the box around each thing is drawn: about 2 ms for 8 frames of 84 x 84.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from vidllava.nano.scene import Scene, Thing

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - 0.92


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.78


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u) * 0.866 - v * 0.5, v) - 0.53


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Fold the plane into one tenth; the edge runs from the tip (radius 1.06) to the notch (radius 0.44).
    radius = np.sqrt(u * u + v * v)
    folded = np.abs((np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    tip_x, notch_x, notch_y = 1.06, 0.44 * np.cos(np.pi / 5), 0.44 * np.sin(np.pi / 5)
    normal_x, normal_y = notch_y, tip_x - notch_x
    length = np.hypot(normal_x, normal_y)
    along = radius * np.cos(folded) - tip_x
    return (along * normal_x + radius * np.sin(folded) * normal_y) / length


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    wide, high = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(wide - 0.98, high - 0.32), np.maximum(wide - 0.32, high - 0.98))


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.sqrt(u * u + v * v) - 0.73) - 0.23


def _moon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    bite = 0.80 - np.sqrt((u - 0.46) ** 2 + v * v)
    return np.maximum(np.sqrt(u * u + v * v) - 0.98, bite)


# Strokes of the glyphs: four numbers each, x0 y0 x1 y1, y downwards.
_STROKES = {
    "A": "-0.6 0.85 0 -0.85  0 -0.85 0.6 0.85  -0.36 0.3 0.36 0.3",
    "E": "-0.5 -0.85 -0.5 0.85  -0.5 -0.85 0.55 -0.85  -0.5 0 0.4 0  -0.5 0.85 0.55 0.85",
    "H": "-0.55 -0.85 -0.55 0.85  0.55 -0.85 0.55 0.85  -0.55 0 0.55 0",
    "K": "-0.5 -0.85 -0.5 0.85  -0.45 0.05 0.55 -0.85  -0.2 -0.1 0.55 0.85",
    "L": "-0.45 -0.85 -0.45 0.85  -0.45 0.85 0.55 0.85",
    "T": "-0.65 -0.85 0.65 -0.85  0 -0.85 0 0.85",
    "1": "0.1 -0.85 0.1 0.85  0.1 -0.85 -0.3 -0.5",
    "2": "-0.5 -0.85 0.5 -0.85  0.5 -0.85 0.5 -0.1  0.5 -0.1 -0.5 0.85  -0.5 0.85 0.5 0.85",
    "3": "-0.5 -0.85 0.5 -0.85  0.5 -0.85 0.5 0.85  -0.3 0 0.5 0  -0.5 0.85 0.5 0.85",
    "4": "0.3 -0.85 0.3 0.85  0.2 -0.85 -0.6 0.3  -0.6 0.3 0.65 0.3",
    "7": "-0.55 -0.85 0.55 -0.85  0.55 -0.85 -0.15 0.85",
}
_HALF_STROKE = 0.17


def _glyph(text: str) -> Distance:
    strokes = np.array(text.split(), float).reshape(-1, 4)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        nearest = None
        for x0, y0, x1, y1 in strokes:
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
            gap = np.sqrt((u - x0 - along * dx) ** 2 + (v - y0 - along * dy) ** 2)
            nearest = gap if nearest is None else np.minimum(nearest, gap)
        assert nearest is not None
        return nearest - _HALF_STROKE

    return distance


DISTANCES: MappingProxyType[str, Distance] = MappingProxyType(
    {
        "circle": _circle,
        "square": _square,
        "triangle": _triangle,
        "star": _star,
        "cross": _cross,
        "ring": _ring,
        "moon": _moon,
        **{name: _glyph(strokes) for name, strokes in _STROKES.items()},
    }
)
REACH = 1.25  # no form extends further from its centre, in radii: the corners of a glyph


def draw(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """Draw ``scene`` at ``times`` [T] (0..1): float32 [T, size, size, 3] in 0..255."""
    grey, slope_x, slope_y = scene.ground
    ramp = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    ground = grey + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    frames = np.empty((len(times), size, size, 3), np.float32)
    frames[:] = ground[None, :, :, None]
    for thing in scene.things:
        _paint(frames, thing, times)
    return frames


def _paint(frames: np.ndarray, thing: Thing, times: np.ndarray) -> None:
    """Blend one thing into every frame, in place."""
    size = frames.shape[1]
    track = thing.track(times)
    still = thing.deed.verb in ("stays", "appears", "vanishes", "becomes")
    coverage = None
    for t in np.flatnonzero(track.alpha > 0):
        cx, cy, radius = track.x[t] * size, track.y[t] * size, track.radius[t] * size
        reach = radius * REACH + 1
        left, right = max(int(cx - reach), 0), min(int(cx + reach) + 1, size)
        top, bottom = max(int(cy - reach), 0), min(int(cy + reach) + 1, size)
        if left >= right or top >= bottom:
            continue
        if coverage is None or not still:
            dx = (np.arange(left, right, dtype=np.float32) + (0.5 - cx)) / radius
            dy = (np.arange(top, bottom, dtype=np.float32) + (0.5 - cy)) / radius
            turn = np.deg2rad(track.angle[t])
            cos, sin = float(np.cos(turn)), float(np.sin(turn))
            u = dx[None, :] * cos + dy[:, None] * sin
            v = dy[:, None] * cos - dx[None, :] * sin
            # The edge is one pixel wide: half covered where the distance is zero.
            coverage = np.clip(0.5 - DISTANCES[thing.form](u, v) * radius, 0.0, 1.0)[:, :, None].astype(
                np.float32
            )
        box = frames[t, top:bottom, left:right]
        weight = coverage * np.float32(track.alpha[t])
        box += weight * (track.rgb[t].astype(np.float32) - box)


def weather(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera and a codec do, for training: soft edges, half-resolution colour, noise, rounding.

    ``frames`` float32 [T, S, S, 3] with S even -> uint8 of the same shape.
    """
    if rng.random() < 0.5:
        frames = _soften(frames, float(rng.uniform(0.05, 0.25)))
    if rng.random() < 0.5:
        frames = _halve_colour(frames)
    if rng.random() < 0.5:
        noise = rng.standard_normal(frames.shape[:3], dtype=np.float32)
        frames = frames + noise[..., None] * np.float32(rng.uniform(0.5, 4.0))
    return to_bytes(frames)


def to_bytes(frames: np.ndarray) -> np.ndarray:
    """Round to uint8."""
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def _soften(frames: np.ndarray, amount: float) -> np.ndarray:
    """A three-tap blur across and down; the border pixels stay."""
    frames = frames.copy()
    side = np.float32(amount / 2)
    frames[:, :, 1:-1] += side * (frames[:, :, :-2] + frames[:, :, 2:] - 2 * frames[:, :, 1:-1])
    frames[:, 1:-1] += side * (frames[:, :-2] + frames[:, 2:] - 2 * frames[:, 1:-1])
    return frames


def _halve_colour(frames: np.ndarray) -> np.ndarray:
    """4:2:0: luma stays, colour differences are averaged over 2 x 2 pixels (BT.601 luma)."""
    luma = frames @ np.array([0.299, 0.587, 0.114], np.float32)
    tint = frames - luma[..., None]
    t, h, w, _ = tint.shape
    small = tint.reshape(t, h // 2, 2, w // 2, 2, 3).mean((2, 4))
    return luma[..., None] + small.repeat(2, 1).repeat(2, 2)
