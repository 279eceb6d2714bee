"""The report of a sweep of frames: what stands on its page, from the cells that were measured.

html = page(found, charts(found), told)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vidllava.bench.frames.advice import advice, choose, pareto
from vidllava.bench.frames.summary import CellSummary, SweepSummary, dash_of, factors, poolings
from vidllava.bench.frames.words import (
    cell_legend,
    columns,
    factor_words,
    facts,
    how_measured,
    merged,
    short_name,
)
from vidllava.report.charts import GREY, SHAPES, Chart
from vidllava.report.drawing import key
from vidllava.report.page import Page, Table, TableRow, render

_MOST_MEMBERS = 12  # of a group that is shown as a table


def page(found: SweepSummary, drawn: Sequence[Chart], told: Mapping[str, Any]) -> str:
    """The whole file."""
    return render(
        Page(
            title="How many frames, how much pooling, which RoPE factor?",
            subject=f"{told['model']} on {told['set']}, {told['device']}, {str(told['date'])[:10]}",
            command="vidllava bench frames",
            advice=advice(found),
            key=tuple(_key(found)) if drawn else (),
            charts=drawn,
            tables=(_cells(found),),
            groups=tuple(_groups(found)),
            facts=facts(found, told),
            notes=how_measured(found, told),
        )
    )


def _key(found: SweepSummary) -> Iterator[tuple[str, str]]:
    """What colours, shapes, dashes and hollow marks mean, once for all charts."""
    for number, name in enumerate(poolings(found)):
        yield key(SHAPES[number % len(SHAPES)], number), name
    if found.measure is None:
        return
    all_factors = factors(found)
    for name in all_factors if len(all_factors) > 1 else ():
        yield key(None, GREY, dash=min(dash_of(name, all_factors), 3)), f"factor {name}"
    if any(one.beyond for one in found.cells):
        yield key("circle", GREY, is_hollow=True), "beyond the trained context"


def _cells(found: SweepSummary) -> Table:
    best, cheapest = choose(found)
    front = pareto(found.cells) if found.measure else []
    shown = columns(found)
    rows: list[TableRow] = []
    before = None
    for one, same in merged(found):
        setting = one.cell.frames if one.cell is not None else ""
        chosen = any(each is best or each is cheapest for each in (one, *same))
        kinds = ["best"] * chosen + ["group"] * (before not in (None, setting))
        first, *others = (value(one, same) for _, value in shown)
        rows.append(TableRow((first + " ●" * (one in front), *others), " ".join(kinds)))
        before = setting
    legend = ["Milliseconds: median / 90th percentile; for a token the median.", *cell_legend(found)]
    if front:
        what = (
            "the best, and the cheapest that it is not better than beyond chance"
            if found.measure == "accuracy"
            else "the richest, and the cheapest that answers as it does"
        )
        legend.append(f"● on the Pareto front of tokens; bold: {what}.")
    heads = tuple(name.replace("<br>", "\n") for name, _ in shown)
    return Table(title="All cells", heads=heads, rows=tuple(rows), legend=tuple(legend))


def _groups(found: SweepSummary) -> Iterator[Table]:
    """A table for each group of questions that has at least two members."""
    if found.measure is None or not found.cells:
        return
    for group, members in found.cells[0].summary.groups.items():
        if not 2 <= len(members) <= _MOST_MEMBERS:
            continue
        counts = {value: cell.total for value, cell in members.items()}
        yield Table(
            title=f"{found.measure.capitalize()} by {group.replace('_', ' ')}",
            heads=("cell", "factor", *(f"{value}\nn = {count}" for value, count in counts.items())),
            rows=tuple(_group_row(one, same, found, group, list(counts)) for one, same in merged(found)),
            legend=(f"Mean {found.measure} of the n questions of each kind; - = none.",),
        )


def _group_row(
    one: CellSummary, same: Sequence[CellSummary], found: SweepSummary, group: str, values: Sequence[str]
) -> TableRow:
    cells = one.summary.groups.get(group, {})
    shown = [cells[value].answered.mean if value in cells else None for value in values]
    words = ("-" if mean is None else f"{100 * mean:.0f} %" for mean in shown)
    return TableRow((short_name(one, found), factor_words(one, same), *words))
