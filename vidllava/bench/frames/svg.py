"""A chart as SVG whose colours are the page's: classes, no styles, so that one picture serves light and dark.

figure = draw(chart, width=560)     # <svg ...>: marks have titles, lines end in their series' names
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from vidllava.bench.frames.charts import Chart
from vidllava.bench.frames.summary import GREY, Mark, Series, Shape

NUM_COLOURS = 6
_TOP, _BOTTOM, _LEFT = 30, 44, 50
_LINE_HEIGHT = 14.0
_LETTER = 6.1  # mean width of a letter at the labels' size, in pixels
_BOLD_LETTER = 6.9
_DODGE = 2.2


def draw(chart: Chart, *, width: int, height: int | None = None) -> str:
    """The picture at ``width`` pixels, whose texts are meant to be read at that size."""
    height = height or (340 if width > 400 else 310)
    return "".join(_Drawing(chart, width, height).parts())


def marker(
    shape: Shape, x: float, y: float, colour: int, *, is_hollow: bool = False, size: float = 4.2
) -> str:
    """One mark without its title."""
    style = f'class="m {colour_class(colour)}{" hollow" if is_hollow else ""}"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" {style}/>'
    if shape == "square":
        side = size * 0.9
        size_words = f'width="{2 * side:.1f}" height="{2 * side:.1f}"'
        return f'<rect x="{x - side:.1f}" y="{y - side:.1f}" {size_words} {style}/>'
    s = size * 1.25
    corners: dict[str, list[tuple[float, float]]] = {
        "triangle": [(0, -s), (s, 0.8 * s), (-s, 0.8 * s)],
        "wedge": [(0, s), (s, -0.8 * s), (-s, -0.8 * s)],
        "diamond": [(0, -s), (s, 0), (0, s), (-s, 0)],
        "plus": [
            (-0.3 * s, -s),
            (0.3 * s, -s),
            (0.3 * s, -0.3 * s),
            (s, -0.3 * s),
            (s, 0.3 * s),
            (0.3 * s, 0.3 * s),
            (0.3 * s, s),
            (-0.3 * s, s),
            (-0.3 * s, 0.3 * s),
            (-s, 0.3 * s),
            (-s, -0.3 * s),
            (-0.3 * s, -0.3 * s),
        ],
    }
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
    return f'<polygon points="{points}" {style}/>'


def colour_class(colour: int) -> str:
    """``c0`` to ``c5``, or ``cg``."""
    return "cg" if colour == GREY else f"c{colour % NUM_COLOURS}"


class _Drawing:
    """One chart at one size."""

    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart, self.width, self.height = chart, width, height
        names = [one.name for one in chart.series if one.has_line]
        self.right = width - (12 + _BOLD_LETTER * max(map(len, names)) if names else 14)
        self.base = height - _BOTTOM

    def parts(self) -> Iterator[str]:
        """The picture from back to front."""
        chart = self.chart
        yield (
            f'<svg viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" '
            f'role="img" aria-label="{escape(chart.title)}">'
        )
        yield from self._axes()
        yield from self._levels()
        if chart.steps:
            yield self._steps()
        for number, one in enumerate(chart.series):
            yield from self._line(one, self._dodge(number))
        for number, one in enumerate(chart.series):
            for mark in one.marks:
                yield self._mark(mark, one, self._dodge(number))
        yield from self._ends()
        yield from self._labels()
        yield "</svg>"

    def x(self, value: float) -> float:
        return _LEFT + self.chart.x.place(value) * (self.right - _LEFT)

    def y(self, value: float) -> float:
        return self.base - self.chart.y.place(value) * (self.base - _TOP)

    def _dodge(self, number: int) -> float:
        """Aside by a little, so that whiskers of several series do not hide one another."""
        lines = [one for one in self.chart.series if one.has_line]
        if self.chart.series[number] not in lines:
            return 0.0
        return (number - (len(self.chart.series) - 1) / 2) * _DODGE

    def _axes(self) -> Iterator[str]:
        for value, words in self.chart.y.ticks:
            y = self.y(value)
            yield f'<line class="grid" x1="{_LEFT}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
        yield f'<text class="label" x="2" y="12">{escape(self.chart.y.label)}</text>'
        last = -1e9
        for value, words in self.chart.x.ticks:
            x = self.x(value)
            yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{self.base}" y2="{self.base + 4}"/>'
            if x - last > _LETTER * len(words) + 6:  # a narrow picture leaves some out
                place = f'x="{x:.1f}" y="{self.base + 17}" text-anchor="middle"'
                yield f'<text class="tick" {place}>{words}</text>'
                last = x
        yield f'<line class="axis" x1="{_LEFT}" x2="{self.right:.1f}" y1="{self.base}" y2="{self.base}"/>'
        middle = (_LEFT + self.right) / 2
        words = escape(self.chart.x.label)
        place = f'x="{middle:.1f}" y="{self.height - 6}" text-anchor="middle"'
        yield f'<text class="label" {place}>{words}</text>'

    def _levels(self) -> Iterator[str]:
        for value in self.chart.levels:
            y = self.y(value)
            yield f'<line class="level" x1="{_LEFT}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'

    def _steps(self) -> str:
        (x, y), *others = self.chart.steps
        path = f"M{self.x(x):.1f} {self.y(y):.1f}"
        for x, y in others:
            path += f"H{self.x(x):.1f}V{self.y(y):.1f}"
        return f'<path class="front" d="{path}H{self.right:.1f}"/>'

    def _line(self, one: Series, dodge: float) -> Iterator[str]:
        colour = colour_class(one.colour)
        for mark in one.marks:
            if mark.low is not None and mark.high is not None:
                x, low, high = self.x(mark.x) + dodge, self.y(mark.low), self.y(mark.high)
                yield f'<line class="w {colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        if one.has_line and len(one.marks) > 1:
            points = " ".join(f"{self.x(mark.x) + dodge:.1f},{self.y(mark.y):.1f}" for mark in one.marks)
            yield f'<polyline class="l {colour} d{min(one.dash, 3)}" points="{points}"/>'

    def _mark(self, mark: Mark, one: Series, dodge: float) -> str:
        shape = marker(
            one.shape, self.x(mark.x) + dodge, self.y(mark.y), one.colour, is_hollow=mark.is_hollow
        )
        return f"<g><title>{escape(mark.title)}</title>{shape}</g>"

    def _ends(self) -> Iterator[str]:
        """Each line's name at its end, moved apart where they would overlap."""
        lines = [one for one in self.chart.series if one.has_line]
        wanted = [self.y(one.marks[-1].y) for one in lines]
        for one, y in zip(lines, apart(wanted, _LINE_HEIGHT, _TOP, self.base), strict=True):
            x = self.right + 8
            place = f'x="{x:.1f}" y="{y + 4:.1f}"'
            yield f'<text class="end {colour_class(one.colour)}" {place}>{escape(one.name)}</text>'

    def _labels(self) -> Iterator[str]:
        """The names of single marks, above them; one without room is left to the mark's title."""
        taken: list[tuple[float, float]] = []
        marks = [(self.x(mark.x), self.y(mark.y)) for one in self.chart.series for mark in one.marks]
        for one in self.chart.series:
            for mark in one.marks:
                if not mark.label:
                    continue
                width = _LETTER * len(mark.label)
                x, y = self.x(mark.x), self.y(mark.high if mark.high is not None else mark.y) - 6
                x = min(max(x, _LEFT + width / 2 + 3), self.right - width / 2)
                if any(abs(x - a) < width + 2 and abs(y - b) < _LINE_HEIGHT - 3 for a, b in taken):
                    continue
                if any(abs(x - a) < width / 2 + 6 and -14 < b - y < 9 for a, b in marks):
                    continue
                taken.append((x, y))
                place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle"'
                yield f'<text class="note" {place}>{escape(mark.label)}</text>'


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
