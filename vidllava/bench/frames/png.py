"""The page's charts as PNG, for documents that cannot show a page; matplotlib is imported to draw one.

save(chart, folder / "accuracy.png")
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from vidllava.bench.frames.charts import Axis, Chart
from vidllava.bench.frames.summary import GREY, Series
from vidllava.bench.frames.svg import apart
from vidllava.files.writing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by every kind of eye; the page has the same (`page_style`).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a8578a", "#8a6d00", "#3a8fc2")
_INK, _GREY, _GRID = "#1d232a", "#6b7480", "#e3e7eb"
_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "plus": "P", "wedge": "v"}
_DASHES: tuple[object, ...] = ("solid", (0, (5, 3)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)))
_INCHES, _DPI = (7.2, 4.5), 110
_DODGE_POINTS, _NOTE_LETTERS = 2.0, 118


def save(chart: Chart, path: Path) -> None:
    """Draw ``chart`` to the PNG ``path``, whole or not at all. Raises ResourceError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as file:
        FigureCanvasAgg(figure_of(chart)).print_figure(file, format="png")


def figure_of(chart: Chart) -> Figure:
    """The picture: its legend, names and note stand outside the axes, where no curve is."""
    from matplotlib.figure import Figure

    # Not pyplot: it would choose a backend for the whole process.
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _frame(axes, chart)
    for value in chart.levels:
        axes.axhline(value, color=_GREY, linewidth=1, linestyle=(0, (1.5, 2)), zorder=1)
    if chart.steps:
        xs, ys = [x for x, _ in chart.steps] + [chart.x.high], [y for _, y in chart.steps]
        axes.step(
            xs, [*ys, ys[-1]], where="post", color="#b4bcc5", linewidth=4, zorder=1, solid_capstyle="butt"
        )
    for number, one in enumerate(chart.series):
        aside = (number - (len(chart.series) - 1) / 2) * _DODGE_POINTS if one.has_line else 0.0
        _draw(axes, one, aside)
    _name(axes, chart)
    note = textwrap.fill(chart.note, _NOTE_LETTERS)
    figure.supxlabel(note, x=0.015, ha="left", fontsize=8, color=_GREY)
    return figure


def _frame(axes: Axes, chart: Chart) -> None:
    axes.set_title(chart.title, loc="left", fontsize=12, fontweight="bold", color=_INK)
    _scale(axes, chart.x, chart.y)
    axes.set_xlabel(chart.x.label, color=_INK)
    axes.set_ylabel(chart.y.label, color=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_INK, length=0)


def _scale(axes: Axes, x: Axis, y: Axis) -> None:
    axes.set_xscale("log" if x.is_log else "linear")
    axes.set_yscale("log" if y.is_log else "linear")
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    axes.minorticks_off()
    axes.set_xticks([value for value, _ in x.ticks], [words for _, words in x.ticks])
    axes.set_yticks([value for value, _ in y.ticks], [words for _, words in y.ticks])


def _draw(axes: Axes, one: Series, aside: float) -> None:
    """``aside``: so many points to the right, or whiskers at the same place would hide one another."""
    from matplotlib.transforms import ScaledTranslation

    colour = colour_of(one)
    place = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    xs, ys = [mark.x for mark in one.marks], [mark.y for mark in one.marks]
    if one.has_line:
        style = _DASHES[min(one.dash, 3)]
        axes.plot(xs, ys, color=colour, linewidth=1.8, linestyle=style, zorder=3, transform=place)
    for mark in one.marks:
        if mark.low is not None and mark.high is not None:
            axes.plot(
                [mark.x] * 2,
                [mark.low, mark.high],
                color=colour,
                linewidth=1,
                alpha=0.45,
                zorder=2,
                clip_on=False,
                transform=place,
            )
        face = "white" if mark.is_hollow else colour
        marker = _MARKERS[one.shape]
        axes.plot(
            mark.x,
            mark.y,
            marker,
            color=colour,
            markerfacecolor=face,
            markersize=6.5,
            zorder=4,
            clip_on=False,
            transform=place,
        )
        if mark.label:
            top = (mark.x, mark.high if mark.high is not None else mark.y)
            axes.annotate(
                mark.label, top, (0, 3), textcoords="offset points", ha="center", fontsize=8, color=_INK
            )


def _name(axes: Axes, chart: Chart) -> None:
    """Lines have their names at their ends; where there are none, a legend."""
    lines = [one for one in chart.series if one.has_line]
    if not lines:
        for one in chart.series:
            if one.dash == 0:
                style = _MARKERS[one.shape]
                axes.plot(
                    [], [], style, color=colour_of(one), label=one.name.partition(",")[0], markersize=6.5
                )
        axes.plot(
            [], [], "o", color=_GREY, markerfacecolor="white", label="hollow: beyond the trained context"
        )
        axes.figure.legend(frameon=False, loc="outside upper right", ncols=6, fontsize=8)
        return
    wanted = [1 - chart.y.place(one.marks[-1].y) for one in lines]
    for one, place in zip(lines, apart(wanted, 0.055, 0.0, 1.0), strict=True):
        axes.annotate(
            one.name,
            (1.015, 1 - place),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour_of(one),
            annotation_clip=False,
        )


def colour_of(one: Series) -> str:
    """As the page has it in the light."""
    return _GREY if one.colour == GREY else COLOURS[one.colour % len(COLOURS)]
