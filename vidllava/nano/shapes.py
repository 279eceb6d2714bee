"""Signed distances to the outline of every form, in units of the form's radius, negative inside.

Coordinates: u to the right, v downwards, origin at the centre, radius 1. Analytic distances make the
drawing anti-aliased and independent of resolution: the same thing at 84 and at 336 pixels is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

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


# Strokes of the glyphs: (x0, y0, x1, y1), y downwards.
_STROKES = MappingProxyType(
    {
        "A": ((-0.6, 0.85, 0, -0.85), (0, -0.85, 0.6, 0.85), (-0.36, 0.3, 0.36, 0.3)),
        "E": (
            (-0.5, -0.85, -0.5, 0.85),
            (-0.5, -0.85, 0.55, -0.85),
            (-0.5, 0, 0.4, 0),
            (-0.5, 0.85, 0.55, 0.85),
        ),
        "H": ((-0.55, -0.85, -0.55, 0.85), (0.55, -0.85, 0.55, 0.85), (-0.55, 0, 0.55, 0)),
        "K": ((-0.5, -0.85, -0.5, 0.85), (-0.45, 0.05, 0.55, -0.85), (-0.2, -0.1, 0.55, 0.85)),
        "L": ((-0.45, -0.85, -0.45, 0.85), (-0.45, 0.85, 0.55, 0.85)),
        "T": ((-0.65, -0.85, 0.65, -0.85), (0, -0.85, 0, 0.85)),
        "1": ((0.1, -0.85, 0.1, 0.85), (0.1, -0.85, -0.3, -0.5)),
        "2": (
            (-0.5, -0.85, 0.5, -0.85),
            (0.5, -0.85, 0.5, -0.1),
            (0.5, -0.1, -0.5, 0.85),
            (-0.5, 0.85, 0.5, 0.85),
        ),
        "3": ((-0.5, -0.85, 0.5, -0.85), (0.5, -0.85, 0.5, 0.85), (-0.3, 0, 0.5, 0), (-0.5, 0.85, 0.5, 0.85)),
        "4": ((0.3, -0.85, 0.3, 0.85), (0.2, -0.85, -0.6, 0.3), (-0.6, 0.3, 0.65, 0.3)),
        "7": ((-0.55, -0.85, 0.55, -0.85), (0.55, -0.85, -0.15, 0.85)),
    }
)
_HALF_STROKE = 0.17


def _glyph(strokes: tuple[tuple[float, ...], ...]) -> Distance:
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
# After a turn of 360 / n degrees a form looks the same; 0: a turn cannot be seen at all.
SYMMETRY = MappingProxyType(
    {"circle": 0, "ring": 0, "square": 4, "cross": 4, "triangle": 3, "star": 5, "moon": 1}
)
REACH = 1.25  # no form extends further from its centre, in radii: the corners of a glyph
