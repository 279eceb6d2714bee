"""Which cells make a line in a chart? A series is a pooling with a factor.

Its colour and the shape of its marks say which pooling, its dashes which factor. Where a factor changes
nothing (the prompts fit without it), its marks lie on the unbroken line and are not drawn twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vidllava.bench.frames.request import factor_word
from vidllava.bench.frames.summary import CellSummary, SweepSummary

Shape = Literal["circle", "square", "triangle", "diamond", "plus", "wedge"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "plus", "wedge")
GREY = -1  # the number of a series' colour that is no colour


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
