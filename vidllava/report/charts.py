"""What stands in a chart, without a drawing library: marks, series, axes.

    Chart("quality", "Accuracy by frames", note, frames_axis("frames", xs), percent_axis("share", 0.8), ...)

A hollow mark is one that is out of bounds; every mark's title names its whole setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Shape = Literal["circle", "square", "triangle", "diamond", "plus", "wedge"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "plus", "wedge")
GREY = -1  # the number of a series' colour that is not a colour
Ticks = tuple[tuple[float, str], ...]
_ROOM = 0.04  # of the axis, left free at either end
_MOST_OWN_TICKS = 10


@dataclass(frozen=True)
class Axis:
    """One axis: its words with the unit, its ends, and the values that are written."""

    label: str
    low: float
    high: float
    ticks: Ticks
    is_log: bool = False

    def place(self, value: float) -> float:
        """0 to 1 within the ends; a value at or below 0 stands at the low end of a logarithmic axis."""
        if self.is_log:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def frames_axis(label: str, values: Sequence[float]) -> Axis:
    """Logarithmic, and every value that was measured is written, if they are few."""
    own = sorted({round(value, 1) for value in values if value > 0}) or [1.0]
    shown = own if len(own) <= _MOST_OWN_TICKS else _one_two_five(own[0], own[-1])
    low, high = _log_ends(own[0], own[-1])
    return Axis(label, low, high, tuple((value, number(value)) for value in shown), is_log=True)


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """Logarithmic, with 1, 2, 5, 10, ... written."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = _log_ends(min(positive), max(positive), 2 * _ROOM)
    shown = _one_two_five(low, high)
    if len(shown) > 7:
        shown = [value for value in shown if f"{value:e}"[0] == "1"]
    return Axis(label, low, high, tuple((value, number(value)) for value in shown), is_log=True)


def linear_axis(label: str, values: Sequence[float], *, parts: int = 5) -> Axis:
    """From a round number below the values to one above, with round steps."""
    least, most = min(values, default=0.0), max(values, default=1.0)
    step = _round_step((most - least or abs(most) or 1.0) / parts)
    low, high = math.floor(least / step) * step, math.ceil(most / step) * step
    high = high if high > low else low + step
    count = round((high - low) / step)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))  # or two ticks read the same
    ticks = tuple((low + n * step, f"{low + n * step:,.{digits}f}") for n in range(count + 1))
    return Axis(label, low, high, ticks)


def percent_axis(label: str, highest: float) -> Axis:
    """Shares from 0 to 100 %, or to a half where all are below it."""
    high = 0.5 if highest <= 0.5 else 1.0
    step = high / 5
    return Axis(label, 0.0, high, tuple((n * step, f"{100 * n * step:.0f} %") for n in range(6)))


def number(value: float) -> str:
    """``1500`` as 1,500; ``0.25`` as it is."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def _log_ends(least: float, most: float, share: float = _ROOM) -> tuple[float, float]:
    room = (most / least) ** share if most > least else 1.5
    return least / room, most * room


def _one_two_five(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in found if low * 0.999 <= value <= high * 1.001] or [low]


def _round_step(wanted: float) -> float:
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted * 0.999)


@dataclass(frozen=True)
class Mark:
    """One measurement in a chart. ``low`` and ``high`` are the ends of its whisker on the y axis."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    is_hollow: bool = False
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Marks that belong together. Series differ in ``shape`` as well as in ``colour``."""

    name: str
    marks: tuple[Mark, ...]
    colour: int
    shape: Shape
    dash: int = 0
    has_line: bool = True


@dataclass(frozen=True)
class Chart:
    """One picture. ``levels`` are horizontal lines, which the note explains: words would cover whiskers."""

    key: str
    title: str
    note: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[float, ...] = ()
    steps: tuple[tuple[float, float], ...] = ()
    """Corners of a front that only rises."""
