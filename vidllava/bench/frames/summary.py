"""The rows of a sweep -> one line per cell and the series of its charts: how many are right, at what cost.

    found = summarise_cells(rows, request.cells)
    found.cells[0].quality.mean, found.cells[0].seconds["prefill"].median, found.measure

Without labels the measure is agreement: the share of answers that are those of the richest cell (most frames,
smallest stride, within the trained context where any is). With random weights answers mean nothing, and there
is not a measure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from vidllava.bench.clock import quantile
from vidllava.bench.frames.request import Cell, factor_word
from vidllava.bench.rows import Row
from vidllava.evaluation.summary import ANSWERED, Outcome, Share, Summary, summarise
from vidllava.evaluation.texts import same
from vidllava.report.charts import SHAPES, Mark, Series

SECONDS = ("decode", "vision", "media", "prefill", "first_token", "per_token")


@dataclass(frozen=True)
class Spread:
    """A quantity over questions."""

    number: int
    median: float
    p90: float


@dataclass(frozen=True, eq=False)
class CellSummary:
    """One cell over all of its questions. Seconds of decoding, tower and first token, and memory, are those
    of the questions that shared nothing."""

    cell: Cell | None
    """None: the questions without their video."""
    rows: Sequence[Row] = field(repr=False)
    summary: Summary = field(repr=False)
    scores: Mapping[str, float] = field(repr=False)
    """By question: the score or the agreement of those that were answered."""

    @property
    def name(self) -> str:
        return "without video" if self.cell is None else self.cell.name

    @property
    def quality(self) -> Share:
        """Mean score, or agreement, of the answered questions with its 95 % interval."""
        return self.summary.overall.answered

    @property
    def failed(self) -> int:
        """Questions without an answer."""
        cell = self.summary.overall
        return cell.total - sum(cell.statuses[name] for name in ANSWERED)

    @cached_property
    def factors(self) -> tuple[float, ...]:
        """RoPE factors that were used, in order."""
        return tuple(sorted({row["factor"] for row in self.rows if "factor" in row}))

    @property
    def beyond(self) -> int:
        """Questions whose prompt and reserve exceed trained context x factor."""
        return sum(bool(row.get("beyond")) for row in self.rows)

    @property
    def exceeding(self) -> int:
        """Questions whose prompt and reserve exceed the trained context without scaling."""
        parts = ("visual_tokens", "text_tokens", "reserve_tokens")
        planned = [row for row in self.rows if "context_limit" in row]
        return sum(sum(row[part] for part in parts) > row["context_limit"] for row in planned)

    @property
    def same_as(self) -> tuple[str, ...]:
        """Other cells that all of the answers were taken over from."""
        names = {row.get("same_as") for row in self.rows}
        return tuple(sorted(str(name) for name in names)) if names and None not in names else ()

    @cached_property
    def frames(self) -> float | None:
        """Mean number of planned frames."""
        planned = self._values(lambda row: row.get("frames_planned"))
        return sum(planned) / len(planned) if planned else None

    @cached_property
    def visual_tokens(self) -> Spread | None:
        """Language-model tokens of the video, newlines included."""
        return spread(self._values(lambda row: row.get("visual_tokens")))

    @cached_property
    def prompt_tokens(self) -> Spread | None:
        return spread(self._values(lambda row: row.get("prompt_tokens")))

    @cached_property
    def seconds(self) -> dict[str, Spread | None]:
        """By stage; ``media`` is decoding and tower as they overlap, ``first_token`` with the prefill."""
        return {name: spread(self._values(partial(stage_seconds, name=name))) for name in SECONDS}

    @cached_property
    def peak_memory_bytes(self) -> int | None:
        """The largest."""
        found = self._values(lambda row: row.get("peak_memory_bytes"))
        return int(max(found)) if found else None

    @property
    def dropped(self) -> int:
        """Planned frames that damage has destroyed."""
        return int(sum(self._values(lambda row: row.get("frames_dropped"))))

    def _values(self, of: Callable[[Row], float | None]) -> list[float]:
        return [value for row in self.rows if (value := of(row)) is not None]

    def to_json(self) -> dict[str, Any]:
        """A line of ``cells.jsonl``."""
        settings = dict.fromkeys(("num_frames", "fps", "pool_stride", "pool_mode", "rope_factor"))
        overall = self.summary.overall
        return {
            "cell": self.name,
            **(settings if self.cell is None else self.cell.to_json()),
            "factors": list(self.factors),
            "beyond": self.beyond,
            "same_as": list(self.same_as),
            "questions": overall.total,
            **overall.statuses,
            "quality": self.quality.to_json(),
            "groups": {
                name: {value: cell.answered.to_json() for value, cell in cells.items()}
                for name, cells in self.summary.groups.items()
            },
            "frames_planned": None if self.frames is None else round(self.frames, 2),
            "frames_dropped": self.dropped,
            "visual_tokens": _json(self.visual_tokens),
            "prompt_tokens": _json(self.prompt_tokens),
            "seconds": {name: _json(value) for name, value in self.seconds.items()},
            "peak_memory_bytes": self.peak_memory_bytes,
        }


@dataclass(frozen=True, eq=False)
class SweepSummary:
    """All cells in order; ``blind`` are the questions without their video, where they were asked."""

    cells: tuple[CellSummary, ...]
    blind: CellSummary | None
    measure: str | None
    """``accuracy``, ``agreement``, or None where answers mean nothing."""
    richest: Cell | None
    rows: Sequence[Row] = field(repr=False)


def stage_seconds(row: Row, name: str) -> float | None:
    """Seconds of a stage of one row; None where it was not measured there."""
    seconds: Mapping[str, float] = row.get("seconds", {})
    if name == "per_token":
        return seconds["generate"] / row["new_tokens"] if row.get("new_tokens") else None
    if name in ("media", "first_token"):
        if "decode" not in seconds:
            return None
        media = seconds["decode"] + seconds["vision"] - seconds["overlap"]
        return media + (seconds["prefill"] if name == "first_token" else 0.0)
    return seconds.get(name)


def spread(values: Sequence[float]) -> Spread | None:
    """None of none."""
    if not values:
        return None
    return Spread(len(values), quantile(values, 0.5), quantile(values, 0.9))


def summarise_cells(rows: Sequence[Row], cells: Sequence[Cell]) -> SweepSummary:
    """One summary for each of ``cells`` that has rows."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row["cell"], []).append(row)
    measure = _measure(rows)
    here = [cell for cell in cells if cell.name in by_name]
    beyond = {name for name, own in by_name.items() if any(row.get("beyond") for row in own)}
    # Beyond its context a model says anything: such a cell measures others only where there is no better.
    richest = max(here, key=lambda cell: (cell.name not in beyond, *_richness(cell)), default=None)
    wanted = None
    if measure == "agreement" and richest is not None:
        wanted = {row["id"]: row["given"] for row in by_name[richest.name] if "given" in row}
    summaries = tuple(_summary(cell, by_name[cell.name], measure, wanted) for cell in here)
    blind = _summary(None, by_name["blind"], measure, wanted) if "blind" in by_name else None
    return SweepSummary(summaries, blind, measure, richest, rows)


def _measure(rows: Sequence[Row]) -> str | None:
    if any(row["weights"] == "random" for row in rows):
        return None
    return "accuracy" if any(row.get("answer") is not None for row in rows) else "agreement"


def _richness(cell: Cell) -> tuple[float, ...]:
    """Most frames, least pooling; within that, a factor that fits before one that may not."""
    frames = (1.0, float(cell.num_frames)) if cell.num_frames is not None else (0.0, cell.fps or 0.0)
    order = {"auto": 2.0, "off": 0.0}.get(factor_word(cell.rope_factor), 1.0)
    return (*frames, -float(cell.pool_stride), order)


def _summary(
    cell: Cell | None, rows: Sequence[Row], measure: str | None, wanted: Mapping[str, str] | None
) -> CellSummary:
    outcomes, scores = [], {}
    for row in rows:
        score = row.get("score")
        if wanted is not None and "given" in row and row["id"] in wanted:
            score = float(same(row["given"], wanted[row["id"]]))
        groups = tuple((str(name), str(value)) for name, value in row["groups"].items())
        outcomes.append(Outcome(row["status"], None if measure is None else score, groups))
        if measure is not None and score is not None:
            scores[str(row["id"])] = float(score)
    return CellSummary(cell, rows, summarise(outcomes), scores)


def _json(value: Spread | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"n": value.number, "median": round(value.median, 6), "p90": round(value.p90, 6)}


def count_of(rows: Sequence[Row], name: str) -> Counter[str]:
    """How often each value of a field stands in the rows."""
    return Counter(str(row.get(name)) for row in rows)


def poolings(found: SweepSummary) -> list[str]:
    """In the order of the cells: each has a colour and a shape."""
    return list(dict.fromkeys(pooling_of(one, found) for one in found.cells))


def factors(found: SweepSummary) -> list[str]:
    """In the order of the cells."""
    return list(
        dict.fromkeys(factor_word(one.cell.rope_factor) for one in found.cells if one.cell is not None)
    )


def dash_of(factor: str, all_factors: Sequence[str]) -> int:
    """0 for ``auto``, or else for the first factor; the others 1, 2, ..."""
    whole = "auto" if "auto" in all_factors else all_factors[0]
    return 0 if factor == whole else 1 + [one for one in all_factors if one != whole].index(factor)


def pooling_of(one: CellSummary, found: SweepSummary) -> str:
    assert one.cell is not None
    modes = {
        other.cell.pool_mode for other in found.cells if other.cell is not None and other.cell.pool_stride > 1
    }
    mode = f" {one.cell.pool_mode}" if len(modes) > 1 and one.cell.pool_stride > 1 else ""
    # Numbers and rates are lines of their own: the same number of frames may come of both.
    both = len({other.cell.fps is None for other in found.cells if other.cell is not None}) > 1
    return f"stride {one.cell.pool_stride}{mode}{' at a rate' if both and one.cell.fps is not None else ''}"


def series_of(
    found: SweepSummary, mark: Callable[[CellSummary], Mark | None], *, has_line: bool = True
) -> tuple[Series, ...]:
    """A series for each pooling and factor, the unbroken lines in front."""
    all_poolings, all_factors = poolings(found), factors(found)
    made = []
    for number, pooling in enumerate(all_poolings):
        shape = SHAPES[number % len(SHAPES)]
        by_dash: dict[int, list[Mark]] = {}
        for factor in all_factors:
            cells = [
                one for one in found.cells if pooling_of(one, found) == pooling and factor_of(one) == factor
            ]
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


def by_pooling(found: SweepSummary, mark: Callable[[CellSummary], Mark | None]) -> tuple[Series, ...]:
    """A series for each pooling: what no factor changes. The first factor measured stands for all."""
    made = []
    for number, pooling in enumerate(poolings(found)):
        marks: dict[str, Mark] = {}
        for one in sorted(found.cells, key=lambda one: dash_of(factor_of(one), factors(found))):
            made_mark = mark(one) if pooling_of(one, found) == pooling else None
            if made_mark is not None and one.cell is not None:
                marks.setdefault(one.cell.frames, made_mark)
        if marks:
            ordered = tuple(sorted(marks.values(), key=lambda m: m.x))
            made.append(Series(pooling, ordered, number, SHAPES[number % len(SHAPES)]))
    return tuple(made)


def factor_of(one: CellSummary) -> str:
    assert one.cell is not None
    return factor_word(one.cell.rope_factor)
