"""The charts of a sweep: which marks stand in which.

for chart in charts(found): chart.key, chart.series[0].marks[0].title

A hollow mark is beyond the trained context. Every mark's title names its whole setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vidllava.bench.frames.advice import interval, pareto, quality_of, tokens_of
from vidllava.bench.frames.summary import (
    CellSummary,
    SweepSummary,
    by_pooling,
    series_of,
)
from vidllava.report.charts import (
    GREY,
    Chart,
    Mark,
    Series,
    Shape,
    frames_axis,
    linear_axis,
    log_axis,
    percent_axis,
)

_MS = 1e3


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
