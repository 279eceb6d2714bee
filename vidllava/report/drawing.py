"""One drawing of a chart, by matplotlib: as SVG for a page, whose colours are the page's, and as PNG.

    svg(chart, width=590)                # <svg ...>, to stand within the page
    save(chart, folder / "quality.png")

The SVG names the page's colours by variables, so that one picture serves light and dark, and gives every mark
a title. Margins are set from the texts, so that words stand outside the curves at any width.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.files.writing import replacing
from vidllava.report.charts import GREY, Axis, Chart, Mark, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by every kind of eye.
LIGHT = {
    "--c0": "#0072b2",
    "--c1": "#d55e00",
    "--c2": "#00805d",
    "--c3": "#a8578a",
    "--c4": "#8a6d00",
    "--c5": "#3a8fc2",
    "--cg": "#6b7480",
    "--soft": "#56606b",
    "--grid": "#e6eaee",
    "--front": "#b4bcc5",
    "--paper": "#ffffff",
    "--ink": "#1d232a",
}
NUM_COLOURS = 6
_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "plus": "P", "wedge": "v"}
_DASHES: tuple[Any, ...] = ("solid", (0, (4, 2.5)), (0, (1.2, 1.8)), (0, (5, 2, 1.2, 2)))
# Pixels: of margins, and the mean width of a letter.
_TOP, _BOTTOM, _LEFT, _LINE, _LETTER, _BOLD_LETTER, _DODGE = 30, 44, 50, 14.0, 6.3, 7.4, 2.2
_PNG_WIDTH, _PNG_SCALE, _NOTE_LETTERS = 720, 1.6, 118
_TICK, _NAME, _NOTE = 11.5, 12, 11


def svg(chart: Chart, *, width: int) -> str:
    """The picture at ``width`` pixels, whose texts are meant to be read at that size."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure, marks = _figure(chart, width, 340 if width > 400 else 310)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.key}):
        FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_page(out.getvalue(), chart, marks)


def save(chart: Chart, path: Path) -> None:
    """Draw ``chart`` with its title and note to ``path``, whole or not at all. Raises ResourceError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as file:
        # matplotlib would save at the dots per inch that the figure was made with.
        FigureCanvasAgg(figure_of(chart)).print_figure(file, format="png", dpi=72 * _PNG_SCALE)


def figure_of(chart: Chart) -> Figure:
    """The chart as a picture of its own: title, names and note stand outside the axes."""
    note = textwrap.wrap(chart.note, _NOTE_LETTERS)
    above, below = 34 if any(one.has_line for one in chart.series) else 58, 14 * len(note) + 8
    figure, _ = _figure(chart, _PNG_WIDTH, 400 + above + below, above=above, below=below)
    height = 400 + above + below
    figure.text(0.012, 1 - 20 / height, chart.title, fontsize=14, fontweight="bold", color=LIGHT["--ink"])
    figure.text(0.012, 8 / height, "\n".join(note), fontsize=9, color=LIGHT["--soft"], va="bottom")
    if not any(one.has_line for one in chart.series):
        _legend(figure, chart, 1 - 32 / height)
    return figure


def _figure(
    chart: Chart, width: int, height: int, *, above: float = 0, below: float = 0
) -> tuple[Figure, list[Mark]]:
    """The figure at 72 dots an inch, a dot being a pixel, and the marks in the order of drawing."""
    from matplotlib.figure import Figure

    names = [one.name for one in chart.series if one.has_line]
    right = 12 + _BOLD_LETTER * max(map(len, names)) if names else 14
    # Not pyplot: it would choose a backend for the whole process.
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none" if not above else "white")
    bottom, top = _BOTTOM + below, _TOP + above
    inner_width, inner_height = width - _LEFT - right, height - top - bottom
    box = (_LEFT / width, bottom / height, inner_width / width, inner_height / height)
    axes = figure.add_axes(box, facecolor="none")
    _frame(axes, chart, inner_width)
    soft = LIGHT["--soft"]
    figure.text(2 / width, 1 - (top - 14) / height, chart.y.label, fontsize=_NAME, color=soft)
    for value in chart.levels:
        axes.axhline(
            value, color=LIGHT["--soft"], linewidth=1, linestyle=(0, (2, 3)), zorder=1, clip_on=False
        )
    if chart.steps:
        xs, ys = [x for x, _ in chart.steps] + [chart.x.high], [y for _, y in chart.steps]
        axes.step(
            xs, [*ys, ys[-1]], where="post", color=LIGHT["--front"], linewidth=4, zorder=1, clip_on=False
        )
    marks: list[Mark] = []
    for number, one in enumerate(chart.series):
        # Aside by a little, so that whiskers of several series do not hide one another.
        aside = (number - (len(chart.series) - 1) / 2) * _DODGE if one.has_line else 0.0
        _draw(axes, one, aside, marks)
    _name_lines(axes, chart, inner_height)
    _name_marks(axes, chart, inner_width, inner_height)
    return figure, marks


def _frame(axes: Axes, chart: Chart, width: float) -> None:
    soft = LIGHT["--soft"]
    for axis, name in ((chart.x, "x"), (chart.y, "y")):
        getattr(axes, f"set_{name}scale")("log" if axis.is_log else "linear")
        getattr(axes, f"set_{name}lim")(axis.low, axis.high)
    axes.minorticks_off()
    axes.set_xticks([value for value, _ in chart.x.ticks], _with_room(chart.x, width))
    axes.set_yticks([value for value, _ in chart.y.ticks], [words for _, words in chart.y.ticks])
    axes.tick_params(axis="x", length=4, color=soft, labelcolor=soft, labelsize=_TICK, pad=4)
    axes.tick_params(axis="y", length=0, labelcolor=soft, labelsize=_TICK, pad=7)
    axes.grid(axis="y", color=LIGHT["--grid"], linewidth=1, clip_on=False)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(soft)
    axes.set_xlabel(chart.x.label, color=soft, fontsize=_NAME, labelpad=6)


def _with_room(axis: Axis, width: float) -> list[str]:
    """The words of the ticks; a narrow picture leaves some out."""
    shown, last = [], -1e9
    for value, words in axis.ticks:
        x = axis.place(value) * width
        has_room = x - last > _LETTER * len(words) + 6
        shown.append(words if has_room else "")
        last = x if has_room else last
    return shown


def _draw(axes: Axes, one: Series, aside: float, marks: list[Mark]) -> None:
    from matplotlib.transforms import ScaledTranslation

    colour = colour_of(one)
    place = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    whiskers = [mark for mark in one.marks if mark.low is not None and mark.high is not None]
    for mark in whiskers:
        ends = [mark.low, mark.high]
        style = {"color": colour, "linewidth": 1, "alpha": 0.45, "zorder": 2}
        axes.plot([mark.x] * 2, ends, **style, transform=place, clip_on=False)  # type: ignore[arg-type]
    if one.has_line and len(one.marks) > 1:
        xs, ys = [mark.x for mark in one.marks], [mark.y for mark in one.marks]
        dash = _DASHES[min(one.dash, 3)]
        axes.plot(
            xs, ys, color=colour, linewidth=1.8, linestyle=dash, zorder=3, transform=place, clip_on=False
        )
    for mark in one.marks:
        (drawn,) = axes.plot(
            mark.x,
            mark.y,
            _MARKERS[one.shape],
            color=colour,
            markerfacecolor=LIGHT["--paper"] if mark.is_hollow else colour,
            markersize=8,
            markeredgewidth=1.6,
            zorder=4,
            clip_on=False,
            transform=place,
        )
        drawn.set_gid(f"mark-{len(marks)}")
        marks.append(mark)


def _name_lines(axes: Axes, chart: Chart, height: float) -> None:
    """Each line's name at its end, moved apart where they would overlap."""
    lines = [one for one in chart.series if one.has_line]
    wanted = [height * (1 - chart.y.place(one.marks[-1].y)) for one in lines]
    for one, place in zip(lines, apart(wanted, _LINE, 0.0, height), strict=True):
        axes.annotate(
            one.name,
            (1, 1 - place / height),
            (8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=_NAME,
            fontweight="bold",
            color=colour_of(one),
            annotation_clip=False,
        )


def _name_marks(axes: Axes, chart: Chart, width: float, height: float) -> None:
    """The names of single marks, above them; one without room is left to the mark's title."""
    every = [mark for one in chart.series for mark in one.marks]
    spots = [(chart.x.place(mark.x) * width, chart.y.place(mark.y) * height) for mark in every]
    taken: list[tuple[float, float]] = []
    for mark in filter(lambda mark: mark.label, every):
        letters = _LETTER * len(mark.label)
        top = mark.high if mark.high is not None else mark.y
        x, y = chart.x.place(mark.x) * width, chart.y.place(top) * height + 6
        x = min(max(x, letters / 2 + 3), width - letters / 2)
        if any(abs(x - a) < letters + 2 and abs(y - b) < _LINE - 3 for a, b in taken):
            continue
        if any(abs(x - a) < letters / 2 + 6 and -9 < b - y < 14 for a, b in spots):
            continue
        taken.append((x, y))
        axes.annotate(
            mark.label,
            (x / width, y / height),
            xycoords="axes fraction",
            ha="center",
            fontsize=_NOTE,
            color=LIGHT["--soft"],
        )


def _legend(figure: Figure, chart: Chart, top: float) -> None:
    """What colours and hollow marks mean, where no line has its name at its end."""
    from matplotlib.lines import Line2D

    bare: dict[str, Any] = {"linestyle": "", "markersize": 7}
    named = {one.name.partition(",")[0]: one for one in chart.series if one.dash == 0}
    entries = [
        Line2D([], [], marker=_MARKERS[one.shape], color=colour_of(one), label=name, **bare)
        for name, one in named.items()
    ]
    bare |= {"markerfacecolor": "white", "label": "hollow: beyond the trained context"}
    entries.append(Line2D([], [], marker="o", color=LIGHT["--cg"], **bare))
    figure.legend(
        handles=entries, frameon=False, loc="upper left", bbox_to_anchor=(0, top), ncols=6, fontsize=9
    )


def colour_of(one: Series) -> str:
    """As the page has it in the light."""
    return LIGHT["--cg" if one.colour == GREY else f"--c{one.colour % NUM_COLOURS}"]


def key(shape: str | None, colour: int, *, is_hollow: bool = False, dash: int = 0) -> str:
    """A mark (``shape``) or a piece of line as SVG, for the legend of a page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    width = 16 if shape else 28
    figure = Figure(figsize=(width / 72, 16 / 72), dpi=72, facecolor="none")
    told = LIGHT["--cg" if colour == GREY else f"--c{colour % NUM_COLOURS}"]
    face = LIGHT["--paper"] if is_hollow else told
    style: dict[str, Any] = {"linestyle": _DASHES[dash]}
    if shape:
        style = {"marker": _MARKERS[shape], "markersize": 8, "markerfacecolor": face, "markeredgewidth": 1.6}
    xs = [0.5] if shape else [0.0, 1.0]
    line = Line2D(xs, [0.5] * len(xs), color=told, linewidth=1.8, **style)
    line.set_transform(figure.transFigure)
    figure.add_artist(line)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{shape}{colour}{dash}"}):
        FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _in_page_colours(out.getvalue())


def _for_page(text: str, chart: Chart, marks: Sequence[Mark]) -> str:
    """matplotlib's file as an element of the page, with a title on every mark."""
    text = _in_page_colours(text).replace("<svg ", f'<svg role="img" aria-label="{escape(chart.title)}" ', 1)
    return re.sub(
        r'<g id="mark-(\d+)">', lambda found: f"<g><title>{escape(marks[int(found[1])].title)}</title>", text
    )


def _in_page_colours(text: str) -> str:
    """Without what a page has already: head of a file, sizes in points, fonts, colours, references."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(?::\w+)?="[^"]*"| version="[^"]*"', "", text)
    text = re.sub(r' (width|height)="([\d.]+)pt"', r' \1="\2"', text)
    shapes = dict(re.findall(r'<path id="(\w+)" d="([^"]*)"', text))
    text = re.sub(
        r'<use xlink:href="#(\w+)" x="([^"]*)" y="([^"]*)" (style="[^"]*")/>',
        lambda found: (
            f'<path d="{shapes[found[1]]}" transform="translate({found[2]} {found[3]})" {found[4]}/>'
        ),
        text,
    )
    text = re.sub(r"<defs>.*?</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?!mark-)[^"]*"| transform="rotate\(-0[^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var({name})")
    text = re.sub(r"<g>\s*</g>", "", re.sub(r"\s*\n\s*", " ", text))
    return re.sub(r"> <", "><", text).strip()


def apart(wanted: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """The places nearest to ``wanted`` (in any order) that are ``gap`` from each other, within the ends."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    placed = list(wanted)
    floor = top
    for number in order:
        placed[number] = max(placed[number], floor)
        floor = placed[number] + gap
    ceiling = bottom
    for number in reversed(order):
        placed[number] = min(placed[number], ceiling)
        ceiling = placed[number] - gap
    return placed
