"""The report: one page that fetches nothing, names every mark, and draws the same charts as the PNGs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.frames_rows import REQUEST, TOLD, made_up
from tests.bench.test_frames_summary import RIGHT, name
from vidllava.bench.frames.charts import charts
from vidllava.bench.frames.output import write_all
from vidllava.bench.frames.page import page
from vidllava.bench.frames.summary import summarise_cells
from vidllava.report.charts import Axis, Chart, frames_axis, linear_axis, log_axis, percent_axis
from vidllava.report.drawing import apart, figure_of, svg

FOUND = summarise_cells(made_up(RIGHT, fresh=2), REQUEST.cells)
CHARTS = charts(FOUND)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: Chart, width: int) -> ET.Element:
    return ET.fromstring(svg(chart, width=width).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def test_there_is_a_chart_for_each_question_that_a_sweep_answers() -> None:
    assert [chart.key for chart in CHARTS] == ["quality", "latency", "tokens", "memory"]
    untimed = [{**row, "peak_memory_bytes": None, "features": "shared"} for row in made_up(RIGHT, fresh=0)]
    keys = [chart.title for chart in charts(summarise_cells(untimed, REQUEST.cells))]
    assert keys == ["Accuracy against frames", "Prefill against frames", "Accuracy against tokens"]
    random = [{**row, "weights": "random"} for row in made_up(RIGHT)]
    assert [chart.key for chart in charts(summarise_cells(random, REQUEST.cells))] == ["latency", "memory"]


def test_every_mark_names_its_setting_and_hollow_ones_are_beyond_the_trained_context() -> None:
    names = [cell.name for cell in REQUEST.cells]
    for chart in CHARTS:
        for mark in (mark for one in chart.series for mark in one.marks):
            assert any(mark.title.startswith(f"{known};") for known in names)
    (quality,) = [chart for chart in CHARTS if chart.key == "quality"]
    hollow = [mark.title for one in quality.series for mark in one.marks if mark.is_hollow]
    assert len(hollow) == 1
    assert hollow[0].startswith(name(8, 1, "off"))
    assert "beyond the trained context" in hollow[0]


def test_what_a_factor_does_not_change_is_drawn_once() -> None:
    (quality,) = [chart for chart in CHARTS if chart.key == "quality"]
    series = {one.name: one for one in quality.series}
    # stride 2 fits at every number of frames; stride 1 parts after 2 frames.
    assert set(series) == {"stride 1, off", "stride 1, auto", "stride 2, auto"}
    assert [mark.x for mark in series["stride 1, off"].marks] == [2, 8]
    assert series["stride 1, off"].marks[0].low is None


@pytest.mark.parametrize("width", [590, 354])
@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_a_picture_is_well_formed_and_nothing_lies_outside(chart: Chart, width: int) -> None:
    root = drawn(chart, width)
    height = float(root.attrib["height"])
    titles = [one.text for one in root.iter(f"{SVG}title")]
    assert titles == [mark.title for one in chart.series for mark in one.marks]
    for text in root.iter(f"{SVG}text"):
        length = 6.9 * len(text.text or "")
        x, style = float(text.attrib["x"]), text.attrib["style"]
        anchor = next((each for each in ("middle", "end") if f"text-anchor: {each}" in style), "start")
        left = x - {"start": 0, "middle": length / 2, "end": length}[anchor]
        assert left >= -6
        assert left + length <= width + 6
        assert 0 <= float(text.attrib["y"]) <= height


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_no_words_cover_a_curve_in_a_png(chart: Chart) -> None:
    """Legends, names of lines and notes stand outside the axes; inside are only the names of single marks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figure_of(chart)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    inside = axes.get_window_extent()
    for legend in figure.legends:
        assert not legend.get_window_extent().overlaps(inside)
    labels = {mark.label for one in chart.series for mark in one.marks if mark.label}
    for text in axes.texts:
        assert text.get_text() in labels or text.get_window_extent().x0 >= inside.x1


def test_the_dotted_line_is_explained_under_the_chart_and_not_on_it() -> None:
    (quality,) = [chart for chart in CHARTS if chart.key == "quality"]
    assert quality.levels == (pytest.approx(0.2),)
    assert "Dotted: without the video, 20 %." in quality.note
    words = [one.text or "" for one in drawn(quality, 590).iter(f"{SVG}text")]
    assert not any("without the video" in word for word in words)


def test_a_legend_stands_under_each_table() -> None:
    html = page(FOUND, CHARTS, TOLD)
    tables = html.split("</table></div>")
    assert len(tables) == 3  # all cells, and by kind
    for after in tables[1:]:
        assert after.lstrip().startswith('<p class="soft legend">')
    assert "within = the trained context of 384 tokens" in tables[1]
    assert "+0 -1, p = 1" in html


def test_series_differ_in_shape_as_well_as_in_colour() -> None:
    for chart in CHARTS:
        shapes = {(one.colour, one.shape) for one in chart.series}
        assert len({shape for _, shape in shapes}) == len(shapes)


def test_the_page_fetches_nothing_and_escapes_what_it_is_told() -> None:
    told = {**TOLD, "set": "<script>alert(1)</script>.jsonl"}
    html = page(FOUND, CHARTS, told)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html
    for cell in REQUEST.cells:
        assert cell.frames in html
    assert "85.0 % (64.0 to 94.8)" in html
    assert "20 about 20 files" in html
    assert "384 tokens, of which 64 are kept free" in html


def test_every_colour_of_the_light_page_is_there_in_the_dark() -> None:
    style = page(FOUND, CHARTS, TOLD).partition("<style>")[2].partition("</style>")[0]
    light, dark = style.split("@media (prefers-color-scheme: dark)")[:2]
    names = re.findall(r"(--[a-z0-9-]+):", light)
    assert len(names) > 12
    assert re.findall(r"(--[a-z0-9-]+):", dark.split("* {")[0]) == names


def test_all_files_are_written(tmp_path: Path) -> None:
    written = write_all(made_up(RIGHT), REQUEST, tmp_path)
    pngs = {f"{key}.png" for key in ("quality", "latency", "tokens", "memory")}
    assert {path.name for path in tmp_path.iterdir()} == {"cells.jsonl", "rows.csv", "report.html"} | pngs
    for picture in pngs:
        head = (tmp_path / picture).read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") == 1152  # pixels across, sharp on a dense screen
    lines = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(REQUEST.cells) + 1
    assert len((tmp_path / "cells.jsonl").read_text(encoding="utf-8").splitlines()) == len(lines) - 1
    assert written.table[0][5] == "accuracy (95 %)"
    assert written.table[-1][0] == "none"


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        (frames_axis("", [2, 8, 64]), ["2", "8", "64"]),
        (frames_axis("", [3]), ["3"]),
        (log_axis("", [30, 900]), ["50", "100", "200", "500", "1,000"]),
        (linear_axis("", [520, 640]), ["500", "550", "600", "650"]),
        (linear_axis("", [5, 5]), None),
        (linear_axis("", [500.06, 500.42]), ["500.0", "500.1", "500.2", "500.3", "500.4", "500.5"]),
        (linear_axis("", [0, 0.004]), ["0.000", "0.001", "0.002", "0.003", "0.004"]),
        (percent_axis("", 0.3), ["0 %", "10 %", "20 %", "30 %", "40 %", "50 %"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_an_axis_holds_its_values_and_writes_round_ones(axis: object, words: list[str] | None) -> None:
    assert isinstance(axis, Axis)
    if words is not None:
        assert [word for _, word in axis.ticks] == words
    for value, _ in axis.ticks:
        assert -1e-9 <= axis.place(value) <= 1 + 1e-9
    places = [axis.place(value) for value, _ in axis.ticks]
    assert places == sorted(places)


def test_names_are_moved_apart_and_no_further_than_needed() -> None:
    assert apart([10, 100], 14, 0, 200) == [10, 100]
    assert apart([50, 52, 51], 14, 0, 200) == [50, 78, 64]
    placed = apart([199, 198, 200], 14, 0, 200)
    assert max(placed) <= 200
    assert sorted(b - a for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False)) == [14, 14]
