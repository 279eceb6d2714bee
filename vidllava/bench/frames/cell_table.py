"""The cells of a sweep as a table for people: its lines, its columns and their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vidllava.bench.frames.advice import against, alike, choose, interval
from vidllava.bench.frames.summary import CellSummary, Spread, SweepSummary
from vidllava.bench.frames.words import context_word, spread_words, used_factor

Value = Callable[[CellSummary, Sequence[CellSummary]], str]
_MS, _MB = 1e3, 1e-6
NONE = "-"


def columns(found: SweepSummary) -> list[tuple[str, Value]]:
    """(heading as HTML, what stands there for a cell and those that are the same)."""
    shown: list[tuple[str, Value]] = [
        ("cell", lambda one, same: short_name(one, found)),
        ("factor", factor_words),
        ("trained<br>context", lambda one, same: context_word(one) if one.cell is not None else NONE),
    ]
    if found.measure is not None:
        shown.append((f"{found.measure}<br>(95 % interval)", lambda one, same: interval(one)))
        best, _ = choose(found)
        if best is not None and found.measure == "accuracy":
            shown.append(("against the best<br>+ better, - worse", lambda one, same: _against(one, best)))
    shown.append(("failed", lambda one, same: str(one.failed)))
    if any(one.frames != one.cell.num_frames for one in found.cells if one.cell is not None and one.frames):
        # Rates, and clips of few frames: a cell's name does not tell.
        frames: Value = lambda one, same: NONE if one.frames is None else f"{one.frames:.3g}"  # noqa: E731
        shown.append(("frames<br>(mean)", frames))
    return [
        *shown,
        ("visual<br>tokens", lambda one, same: _median(one.visual_tokens)),
        ("prompt<br>tokens", lambda one, same: _median(one.prompt_tokens)),
        ("decode<br>ms", lambda one, same: _seen(one, "decode")),
        ("tower<br>ms", lambda one, same: _seen(one, "vision")),
        ("first token<br>ms", lambda one, same: spread_words(one.seconds["first_token"], _MS)),
        ("prefill<br>ms", lambda one, same: spread_words(one.seconds["prefill"], _MS)),
        ("a token<br>ms", lambda one, same: _median(one.seconds["per_token"], _MS, ".1f")),
        ("peak<br>MB", lambda one, same: _megabytes(one)),
    ]


def merged(found: SweepSummary) -> list[tuple[CellSummary, list[CellSummary]]]:
    """Each cell that was measured, with those that came to the same; last the questions without video."""
    lines: dict[str, tuple[CellSummary, list[CellSummary]]] = {}
    for one in found.cells:
        first = lines.get(one.same_as[0]) if len(one.same_as) == 1 else None
        if first is not None and alike(first[0], one):
            first[1].append(one)
        else:
            lines[one.name] = (one, [])
    return [*lines.values(), *([(found.blind, [])] if found.blind is not None else [])]


def short_name(one: CellSummary, found: SweepSummary) -> str:
    """Frames and pooling; the mode where there are several."""
    if one.cell is None:
        return one.name
    modes = {each.cell.pool_mode for each in found.cells if each.cell is not None}
    mode = f" · {one.cell.pool_mode}" if len(modes) > 1 and one.cell.pool_stride > 1 else ""
    return f"{one.cell.frames} · stride {one.cell.pool_stride}{mode}"


def factor_words(one: CellSummary, same: Sequence[CellSummary]) -> str:
    """``off, auto: 1``: all that came to the same."""
    return NONE if one.cell is None else ", ".join(used_factor(each) for each in (one, *same))


def _against(one: CellSummary, best: CellSummary) -> str:
    """``+0 -1, p = 1``: questions answered better and worse than by the best."""
    pairs = None if one is best else against(one, best)
    return NONE if pairs is None else f"+{pairs.better} -{pairs.worse}, p = {pairs.p:.2g}"


def _seen(one: CellSummary, stage: str) -> str:
    return NONE if one.cell is None else spread_words(one.seconds[stage], _MS)


def _median(value: Spread | None, scale: float = 1.0, form: str = ",.0f") -> str:
    return NONE if value is None else f"{value.median * scale:{form}}"


def _megabytes(one: CellSummary) -> str:
    return NONE if one.peak_memory_bytes is None else f"{one.peak_memory_bytes * _MB:,.0f}"
