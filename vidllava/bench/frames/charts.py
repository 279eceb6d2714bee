"""Which marks stand in which chart? The same charts are drawn as SVG for the page and as PNG.

for chart in charts(found): chart.key, chart.series[0].marks[0].title

A hollow mark is beyond the trained context. Every mark's title names its whole setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidllava.bench.frames.advice import interval, pareto, quality_of, tokens_of
from vidllava.bench.frames.summary import (
    GREY,
    CellSummary,
    Mark,
    Series,
    Shape,
    SweepSummary,
    by_pooling,
    series_of,
)

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


_MS = 1e3


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


def charts(found: SweepSummary) -> list[Chart]:
    """Those for which anything was measured."""
    drawn = [_quality_by_frames(found), _latency(found), _quality_by_tokens(found), _memory(found)]
    return [chart for chart in drawn if chart is not None]


def _title(one: CellSummary, *more: str) -> str:
    words = [one.name, *(f"the same as {other}" for other in one.same_as), *more]
    if one.beyond:
        words.append("beyond the trained context")
    elif one.factors and one.factors[-1] > 1:
        words.append("factor " + " or ".join(f"{factor:g}" for factor in one.factors))
    return "; ".join(words)


def _quality_mark(one: CellSummary, x: float | None, label: str = "") -> Mark | None:
    share = one.quality
    if share.mean is None or x is None:
        return None
    tokens = f"{one.prompt_tokens.median:,.0f} tokens" if one.prompt_tokens else ""
    title = _title(one, interval(one), tokens)
    return Mark(x, share.mean, title, share.low, share.high, is_hollow=one.beyond > 0, label=label)


def _quality_by_frames(found: SweepSummary) -> Chart | None:
    if found.measure is None:
        return None
    series = series_of(found, lambda one: _quality_mark(one, one.frames))
    if not series:
        return None
    words, level = _blind(found)
    note = f"Mean with its 95 % interval. Hollow: beyond the trained context at that factor.{words}"
    if found.measure == "agreement" and found.richest is not None:
        note += f" Agreement with {found.richest.name}: whether its answers are right is not known."
    return Chart(
        "quality",
        f"{_measure_words(found)} against frames",
        note,
        frames_axis("frames of a clip (mean)", _xs(series)),
        percent_axis(_measure_words(found), _top(series)),
        series,
        level,
    )


def _quality_by_tokens(found: SweepSummary) -> Chart | None:
    if found.measure is None:
        return None
    corners = [(tokens_of(one), quality_of(one)) for one in pareto(found.cells)]

    def mark(one: CellSummary) -> Mark | None:
        short = ""
        if one.cell is not None and (tokens_of(one), quality_of(one)) in corners:
            short = f"{one.cell.num_frames or one.cell.frames}/s{one.cell.pool_stride}"
        return _quality_mark(one, tokens_of(one) or None, short)

    series = series_of(found, mark, has_line=False)
    if not series:
        return None
    note = "Grey steps: the Pareto front, what can be had for so many tokens. 8/s2: 8 frames, stride 2."
    words, level = _blind(found)
    note += words
    limit = next((row["context_limit"] for row in found.rows if row.get("context_limit")), None)
    if limit:
        note += f" The trained context has {limit:,} tokens, the answer's reserve included."
    return Chart(
        "tokens",
        f"{_measure_words(found)} against tokens",
        note,
        log_axis("tokens of the prompt (median)", _xs(series)),
        percent_axis(_measure_words(found), _top(series)),
        series,
        level,
        tuple(corners),
    )


def _latency(found: SweepSummary) -> Chart | None:
    def timed(name: str, words: str) -> Callable[[CellSummary], Mark | None]:
        def mark(one: CellSummary) -> Mark | None:
            time = one.seconds[name]
            if time is None or one.frames is None:
                return None
            shown = (
                f"{words}: median {_MS * time.median:,.0f} ms, p90 {_MS * time.p90:,.0f} ms of {time.number}"
            )
            high = _MS * time.p90
            return Mark(one.frames, _MS * time.median, _title(one, shown), _MS * time.median, high)

        return mark

    whole = by_pooling(found, timed("first_token", "first token"))
    parts: list[Series] = []
    shapes: tuple[tuple[str, str, Shape], ...] = (
        ("decode", "decoding", "plus"),
        ("vision", "vision tower", "wedge"),
    )
    for name, words, shape in shapes if whole else ():
        for one in by_pooling(found, timed(name, words))[:1]:  # pooling comes later: all are alike
            parts.append(Series(words, one.marks, GREY, shape, 1))
    if not whole:
        whole = by_pooling(found, timed("prefill", "prefill"))
    if not whole:
        return None
    note = "Until the first token: decoding and tower, which overlap, then the prefill. Whisker: to the p90."
    return Chart(
        "latency",
        "Latency against frames" if parts else "Prefill against frames",
        note if parts else "Prefill alone: no question was timed from the file on (--timing-clips).",
        frames_axis("frames of a clip (mean)", _xs(whole)),
        log_axis("milliseconds (median)", [value for each in (*whole, *parts) for value in _ends(each)]),
        (*parts, *whole),
    )


def _memory(found: SweepSummary) -> Chart | None:
    def mark(one: CellSummary) -> Mark | None:
        if one.peak_memory_bytes is None or one.frames is None:
            return None
        size = one.peak_memory_bytes / 1e6
        return Mark(one.frames, size, _title(one, f"{size:,.0f} MB at the peak"))

    series = by_pooling(found, mark)
    if not series:
        return None
    method = next((row["memory_method"] for row in found.rows if row.get("memory_method")), "")
    return Chart(
        "memory",
        "Peak memory against frames",
        f"Largest of the timed questions: {method}. The axis does not begin at 0.",
        frames_axis("frames of a clip (mean)", _xs(series)),
        linear_axis("megabytes", [each.y for one in series for each in one.marks]),
        series,
    )


def _measure_words(found: SweepSummary) -> str:
    return "Agreement with the richest setting" if found.measure == "agreement" else "Accuracy"


def _blind(found: SweepSummary) -> tuple[str, tuple[float, ...]]:
    """(what the dotted line is, where it is) of the questions without their video."""
    if found.blind is None or found.blind.quality.mean is None:
        return "", ()
    mean = found.blind.quality.mean
    return f" Dotted: without the video, {100 * mean:.0f} %.", (mean,)


def _xs(series: Sequence[Series]) -> list[float]:
    return [mark.x for one in series for mark in one.marks]


def _top(series: Sequence[Series]) -> float:
    return max(mark.high or mark.y for one in series for mark in one.marks)


def _ends(series: Series) -> list[float]:
    return [value for mark in series.marks for value in (mark.y, mark.high or mark.y)]
