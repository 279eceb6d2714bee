"""Which marks stand in which chart? The same charts are drawn as SVG for the page and as PNG.

for chart in charts(found): chart.key, chart.series[0].marks[0].title

A series is a pooling with a factor: its colour and the shape of its marks say which pooling, its dashes which
factor. A hollow mark is beyond the trained context. Every mark's title names its whole setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vidllava.bench.frames.advice import interval, pareto, quality_of, tokens_of
from vidllava.bench.frames.axis import Axis, frames_axis, linear_axis, log_axis, percent_axis
from vidllava.bench.frames.request import factor_word
from vidllava.bench.frames.summary import CellSummary, SweepSummary

Shape = Literal["circle", "square", "triangle", "diamond", "plus", "wedge"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "plus", "wedge")
GREY = -1  # the number of a series' colour that is no colour
_MS = 1e3


@dataclass(frozen=True)
class Mark:
    """One cell in a chart. ``low`` and ``high`` are the ends of its whisker on the y axis."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    is_hollow: bool = False
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Marks that belong together. ``colour`` and ``shape`` go by pooling, ``dash`` by factor."""

    name: str
    marks: tuple[Mark, ...]
    colour: int
    shape: Shape
    dash: int = 0
    has_line: bool = True
    is_labelled: bool = True
    """Whether its name stands at its end."""


@dataclass(frozen=True)
class Chart:
    """One picture. ``levels`` are horizontal lines: (value, words)."""

    key: str
    title: str
    note: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[tuple[float, str], ...] = ()
    steps: tuple[tuple[float, float], ...] = ()
    """Corners of a front that only rises."""


def charts(found: SweepSummary) -> list[Chart]:
    """Those for which anything was measured."""
    drawn = [_quality_by_frames(found), _latency(found), _quality_by_tokens(found), _memory(found)]
    return [chart for chart in drawn if chart is not None]


def poolings(found: SweepSummary) -> list[str]:
    """In the order of the cells: each has a colour and a shape."""
    return list(dict.fromkeys(_pooling(one, found) for one in found.cells))


def factors(found: SweepSummary) -> list[str]:
    """In the order of the cells; the last one asked for is drawn as an unbroken line."""
    return list(
        dict.fromkeys(factor_word(one.cell.rope_factor) for one in found.cells if one.cell is not None)
    )


def dash_of(factor: str, all_factors: Sequence[str]) -> int:
    """0 for ``auto``, or else for the first factor; the others 1, 2, ..."""
    whole = "auto" if "auto" in all_factors else all_factors[0]
    return 0 if factor == whole else 1 + [one for one in all_factors if one != whole].index(factor)


def _pooling(one: CellSummary, found: SweepSummary) -> str:
    assert one.cell is not None
    modes = {
        other.cell.pool_mode for other in found.cells if other.cell is not None and other.cell.pool_stride > 1
    }
    mode = f" {one.cell.pool_mode}" if len(modes) > 1 and one.cell.pool_stride > 1 else ""
    return f"stride {one.cell.pool_stride}{mode}"


def _series(
    found: SweepSummary, mark: Callable[[CellSummary], Mark | None], *, has_line: bool = True
) -> tuple[Series, ...]:
    """A series for each pooling and factor, the unbroken lines in front."""
    all_poolings, all_factors = poolings(found), factors(found)
    made = []
    for number, pooling in enumerate(all_poolings):
        shape = SHAPES[number % len(SHAPES)]
        by_dash: dict[int, list[Mark]] = {}
        for factor in all_factors:
            cells = [one for one in found.cells if _pooling(one, found) == pooling and _factor(one) == factor]
            marks = sorted((m for one in cells if (m := mark(one)) is not None), key=lambda m: m.x)
            by_dash[dash_of(factor, all_factors)] = marks
        for factor in sorted(all_factors, key=lambda one: -dash_of(one, all_factors)):
            dash = dash_of(factor, all_factors)
            marks = by_dash[dash] if dash == 0 else _parting(by_dash[dash], by_dash[0], has_line=has_line)
            name = f"{pooling}, {factor}" if len(all_factors) > 1 else pooling
            if marks:
                made.append(Series(name, tuple(marks), number, shape, dash, has_line))
    return tuple(made)


def _parting(marks: Sequence[Mark], whole: Sequence[Mark], *, has_line: bool) -> list[Mark]:
    """Without what lies on the unbroken line anyway; a line begins where it leaves that one."""
    drawn = {(mark.x, mark.y) for mark in whole}
    kept = []
    for number, mark in enumerate(marks):
        if (mark.x, mark.y) not in drawn:
            kept.append(mark)
        elif has_line and number + 1 < len(marks) and (marks[number + 1].x, marks[number + 1].y) not in drawn:
            kept.append(replace(mark, low=None, high=None))
    return kept


def _by_pooling(found: SweepSummary, mark: Callable[[CellSummary], Mark | None]) -> tuple[Series, ...]:
    """A series for each pooling: what no factor changes. The first factor measured stands for all."""
    made = []
    for number, pooling in enumerate(poolings(found)):
        marks: dict[str, Mark] = {}
        for one in sorted(found.cells, key=lambda one: dash_of(_factor(one), factors(found))):
            made_mark = mark(one) if _pooling(one, found) == pooling else None
            if made_mark is not None and one.cell is not None:
                marks.setdefault(one.cell.frames, made_mark)
        if marks:
            ordered = tuple(sorted(marks.values(), key=lambda m: m.x))
            made.append(Series(pooling, ordered, number, SHAPES[number % len(SHAPES)]))
    return tuple(made)


def _factor(one: CellSummary) -> str:
    assert one.cell is not None
    return factor_word(one.cell.rope_factor)


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
    series = _series(found, lambda one: _quality_mark(one, one.frames))
    if not series:
        return None
    note = "Mean with its 95 % interval. Hollow: beyond the trained context at that factor."
    return Chart(
        "quality",
        f"{_measure_words(found)} against frames",
        note,
        frames_axis("frames of a clip (mean)", _xs(series)),
        percent_axis(_measure_words(found), _top(series)),
        series,
        _blind_level(found),
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

    series = _series(found, mark, has_line=False)
    if not series:
        return None
    note = "Grey steps: the Pareto front, what can be had for so many tokens. 8/s2: 8 frames, stride 2."
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
        _blind_level(found),
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

    whole = _by_pooling(found, timed("first_token", "first token"))
    parts: list[Series] = []
    shapes: tuple[tuple[str, str, Shape], ...] = (
        ("decode", "decoding", "plus"),
        ("vision", "vision tower", "wedge"),
    )
    for name, words, shape in shapes if whole else ():
        for one in _by_pooling(found, timed(name, words))[:1]:  # pooling comes later: all are alike
            parts.append(Series(words, one.marks, GREY, shape, 1))
    if not whole:
        whole = _by_pooling(found, timed("prefill", "prefill"))
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

    series = _by_pooling(found, mark)
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
    return "Agreement with the richest cell" if found.measure == "agreement" else "Accuracy"


def _blind_level(found: SweepSummary) -> tuple[tuple[float, str], ...]:
    if found.blind is None or found.blind.quality.mean is None:
        return ()
    mean = found.blind.quality.mean
    return ((mean, f"without the video: {100 * mean:.0f} %"),)


def _xs(series: Sequence[Series]) -> list[float]:
    return [mark.x for one in series for mark in one.marks]


def _top(series: Sequence[Series]) -> float:
    return max(mark.high or mark.y for one in series for mark in one.marks)


def _ends(series: Series) -> list[float]:
    return [value for mark in series.marks for value in (mark.y, mark.high or mark.y)]
