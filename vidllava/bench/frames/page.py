"""The report: one HTML page with its pictures inside, that fetches nothing and is read in light and in dark.

html = page(found, charts(found), told)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from vidllava.bench.frames.advice import advice, choose, pareto
from vidllava.bench.frames.charts import Chart
from vidllava.bench.frames.summary import SHAPES, CellSummary, SweepSummary, dash_of, factors, poolings
from vidllava.bench.frames.svg import draw, marker
from vidllava.bench.frames.words import (
    cell_legend,
    columns,
    factor_words,
    facts,
    how_measured,
    merged,
    short_name,
)

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f7f9; --ink: #1d232a; --soft: #56606b; --rule: #d9dee4; --grid: #e6eaee;
  --front: #b4bcc5; --mark: #e8f1fa; --mark-ink: #0b3d63;
  --c0: #0072b2; --c1: #d55e00; --c2: #00805d; --c3: #a8578a; --c4: #8a6d00; --c5: #3a8fc2; --cg: #6b7480;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --panel: #1c2128; --ink: #e6eaee; --soft: #a3adb8; --rule: #39424d; --grid: #2a313a;
    --front: #55606c; --mark: #17324a; --mark-ink: #cfe6fa;
    --c0: #5db4f0; --c1: #ff9a52; --c2: #43d3a4; --c3: #e79cc5; --c4: #e3c34f; --c5: #8fd0f5; --cg: #97a2ae;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 8px; }
h3 { font-size: 15px; margin: 0 0 4px; }
p { margin: 0 0 8px; max-width: 78ch; }
p.legend { font-size: 13px; max-width: none; margin: 6px 0 0; }
.soft, figcaption { color: var(--soft); }
.advice { background: var(--mark); color: var(--mark-ink); border-radius: 6px; padding: 12px 16px;
  margin: 18px 0; }
.advice p { max-width: none; }
.advice p:first-child { font-weight: 600; }
.flag { white-space: nowrap; }
.advice p:last-child { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 28px 32px; margin-top: 8px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; margin-top: 2px; }
svg { display: block; max-width: 100%; height: auto; overflow: visible; }
.narrow { display: none; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0 14px; padding: 0; list-style: none; }
.key li { display: flex; align-items: center; gap: 6px; font-size: 13px; }
.table { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; background: var(--panel); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
th:first-child { background: var(--panel); }
tbody tr:last-child td { border-bottom: 0; }
tr.best td { font-weight: 600; }
tr.group td { border-top: 2px solid var(--rule); }
details { margin: 14px 0; }
summary { font-size: 18px; font-weight: 700; margin: 20px 0 8px; cursor: pointer; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.tick, .label { fill: var(--soft); }
.note { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
.level { stroke: var(--soft); stroke-dasharray: 2 3; }
.front { fill: none; stroke: var(--front); stroke-width: 4; }
.l { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.d1 { stroke-dasharray: 6 4; } .d2 { stroke-dasharray: 2 3; } .d3 { stroke-dasharray: 8 3 2 3; }
.w { stroke: currentColor; stroke-opacity: 0.45; }
.m { fill: currentColor; stroke: currentColor; stroke-width: 1.6; } .m.hollow { fill: var(--paper); }
svg .end { fill: currentColor; font-weight: 600; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .cg { color: var(--cg); }
@media (max-width: 860px) {
  main { padding: 18px 14px 32px; }
  h1 { font-size: 21px; }
  .charts { grid-template-columns: minmax(0, 1fr); }
  .wide { display: none; } .narrow { display: block; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 6px; }
}
@media print { .charts { break-inside: avoid; } }
"""


_WIDE, _NARROW = 590, 354
# A line that breaks within a flag is no line to copy.
_FLAG, _WHOLE = re.compile(r"--[a-z-]+ \S+"), r'<span class="flag">\g<0></span>'
_MOST_MEMBERS = 12  # of a group that is shown as a table


def page(found: SweepSummary, drawn: Sequence[Chart], told: Mapping[str, Any]) -> str:
    """The whole file. Every text from outside is escaped."""
    return "".join(_parts(found, drawn, told))


def _parts(found: SweepSummary, drawn: Sequence[Chart], told: Mapping[str, Any]) -> Iterator[str]:
    title = "How many frames, how much pooling, which RoPE factor?"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{title} {escape(str(told['model']))}</title>\n<style>{STYLE}</style>\n"
    yield "</head>\n<body>\n<main>\n"
    yield f"<h1>{title}</h1>\n"
    subject = f"{told['model']} on {told['set']}, {told['device']}, {str(told['date'])[:10]}"
    yield f'<p class="soft">{escape(subject)}. <code>vidllava bench frames</code></p>\n'
    lines = "".join(f"<p>{_FLAG.sub(_WHOLE, escape(line))}</p>" for line in advice(found))
    yield f'<div class="advice">{lines}</div>\n'
    if drawn:
        yield _key(found)
        yield f'<div class="charts">\n{"".join(_figure(chart) for chart in drawn)}</div>\n'
    yield f"<h2>All cells</h2>\n{_cells(found)}"
    yield from _groups(found)
    yield f"<h2>The questions and the machine</h2>\n{_facts(facts(found, told))}"
    yield "<h2>How it was measured</h2>\n"
    yield "".join(f"<p>{escape(line)}</p>\n" for line in how_measured(found, told))
    yield "</main>\n</body>\n</html>\n"


def _key(found: SweepSummary) -> str:
    """What colours, shapes, dashes and hollow marks mean, once for all charts."""
    entries = []
    for number, name in enumerate(poolings(found)):
        mark = marker(SHAPES[number % len(SHAPES)], 8, 8, number)
        entries.append((f'<svg width="16" height="16">{mark}</svg>', name))
    if found.measure is not None:
        all_factors = factors(found)
        for name in all_factors if len(all_factors) > 1 else ():
            dash = min(dash_of(name, all_factors), 3)
            line = f'<polyline class="l cg d{dash}" points="0,8 28,8"/>'
            entries.append((f'<svg width="28" height="16">{line}</svg>', f"factor {name}"))
        if any(one.beyond for one in found.cells):
            mark = marker("circle", 8, 8, -1, is_hollow=True)
            entries.append((f'<svg width="16" height="16">{mark}</svg>', "beyond the trained context"))
    return f'<ul class="key">{"".join(f"<li>{mark}{escape(name)}</li>" for mark, name in entries)}</ul>\n'


def _figure(chart: Chart) -> str:
    pictures = "".join(
        f'<div class="{name}">{draw(chart, width=width)}</div>'
        for name, width in (("wide", _WIDE), ("narrow", _NARROW))
    )
    caption = f"<figcaption>{escape(chart.note)}</figcaption>"
    return f"<figure><h3>{escape(chart.title)}</h3>{pictures}{caption}</figure>\n"


def _cells(found: SweepSummary) -> str:
    best, cheapest = choose(found)
    front = pareto(found.cells) if found.measure else []
    shown = columns(found)
    rows: list[str] = []
    before = None
    for one, same in merged(found):
        setting = one.cell.frames if one.cell is not None else ""
        chosen = any(each is best or each is cheapest for each in (one, *same))
        marks = " ".join(["best"] * chosen + ["group"] * (before not in (None, setting)))
        cells = [escape(value(one, same)) for _, value in shown]
        cells[0] += " ●" * (one in front)
        kind = f' class="{marks}"' if marks else ""
        rows.append(f"<tr{kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n")
        before = setting
    head = "".join(f"<th>{name}</th>" for name, _ in shown)
    told = ["Milliseconds: median / 90th percentile; for a token the median.", *cell_legend(found)]
    if front:
        what = (
            "the best, and the cheapest that it is not better than beyond chance"
            if found.measure == "accuracy"
            else "the richest, and the cheapest that answers as it does"
        )
        told.append(f"● on the Pareto front of tokens; bold: {what}.")
    legend = "".join(f'<p class="soft legend">{escape(line)}</p>\n' for line in told)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{''.join(rows)}</tbody></table></div>\n{legend}"
    )


def _groups(found: SweepSummary) -> Iterator[str]:
    """A table for each group of questions that has at least two members, the first one open."""
    if found.measure is None or not found.cells:
        return
    opened = " open"
    for group, members in found.cells[0].summary.groups.items():
        if not 2 <= len(members) <= _MOST_MEMBERS:
            continue
        counts = {value: cell.total for value, cell in members.items()}
        heads = "".join(f"<th>{escape(value)}<br>n = {count}</th>" for value, count in counts.items())
        rows = "".join(_group_row(one, same, found, group, list(counts)) for one, same in merged(found))
        title = f"{found.measure.capitalize()} by {group.replace('_', ' ')}"
        yield f"<details{opened}><summary>{escape(title)}</summary>\n"
        yield f'<div class="table"><table><thead><tr><th>cell</th><th>factor</th>{heads}</tr></thead>'
        yield f"<tbody>\n{rows}</tbody></table></div>\n"
        yield f'<p class="soft legend">Mean {found.measure} of the n questions of each kind; - = none.</p>\n'
        yield "</details>\n"
        opened = ""


def _group_row(
    one: CellSummary, same: Sequence[CellSummary], found: SweepSummary, group: str, values: Sequence[str]
) -> str:
    cells = one.summary.groups.get(group, {})
    shown = [cells[value].answered.mean if value in cells else None for value in values]
    words = "".join(f"<td>{'-' if mean is None else f'{100 * mean:.0f} %'}</td>" for mean in shown)
    names = (short_name(one, found), factor_words(one, same))
    return f"<tr>{''.join(f'<td>{escape(name)}</td>' for name in names)}{words}</tr>\n"


def _facts(pairs: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in pairs) + "</dl>\n"
