"""What a sweep leaves in its folder: a line per cell as JSON and CSV, charts as PNG, and one HTML page.

    written = write_all(rows, request, folder)
    written.table, written.legend, written.advice

Every file is written aside and moved into place: whoever looks while a sweep goes on sees a whole one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidllava.bench.frames.advice import advice, against, choose, interval
from vidllava.bench.frames.charts import charts
from vidllava.bench.frames.page import page
from vidllava.bench.frames.request import FramesRequest
from vidllava.bench.frames.summary import SECONDS, CellSummary, SweepSummary, summarise_cells
from vidllava.bench.frames.words import cell_legend, context_word, used_factor
from vidllava.bench.rows import Row, encoded
from vidllava.files.writing import write_text
from vidllava.report.drawing import save

CELLS, TABLE, REPORT = "cells.jsonl", "rows.csv", "report.html"
CONDITIONS = (
    "model",
    "weights",
    "weights_stamp",
    "dtype",
    "set",
    "device",
    "threads",
    "driver",
    "vidllava",
    "commit",
    "uncommitted_changes",
    "torch",
    "triton",
    "transformers",
    "python",
    "memory_method",
)


@dataclass(frozen=True)
class Written:
    """What the terminal shows."""

    table: list[tuple[str, ...]]
    legend: tuple[str, ...]
    advice: tuple[str, ...]


def write_all(rows: Sequence[Row], request: FramesRequest, folder: Path) -> Written:
    """Write every file but the rows themselves. Raises ResourceError."""
    found = summarise_cells(rows, request.cells)
    told = {name: rows[-1].get(name) for name in CONDITIONS} | {"date": rows[-1]["date"]}
    everything = [*found.cells, *([found.blind] if found.blind else [])]
    best, _ = choose(found)
    lines = [
        encoded({**one.to_json(), "measure": found.measure, "against_best": _against(one, best), **told})
        for one in everything
    ]
    write_text(folder / CELLS, "".join(line + "\n" for line in lines))
    write_text(folder / TABLE, _csv(everything, found.measure))
    drawn = charts(found)
    for chart in drawn:
        save(chart, folder / f"{chart.key}.png")
    write_text(folder / REPORT, page(found, drawn, told))
    return Written(table(found), cell_legend(found), advice(found))


def _against(one: CellSummary, best: CellSummary | None) -> dict[str, object] | None:
    """The paired comparison with the best cell, or without labels with the richest; None for that itself."""
    pairs = None if best is None or one is best else against(one, best)
    return None if best is None or pairs is None else {"cell": best.name, **pairs.to_json()}


def table(found: SweepSummary) -> list[tuple[str, ...]]:
    """The cells for people, the heading first."""
    quality = (f"{found.measure} (95 %)",) if found.measure else ()
    heads = ("frames", "stride", "mode", "factor", "context", *quality, "failed", "visual", "tokens")
    lines = [(*heads, "decode ms", "vision ms", "prefill ms", "ms/token", "memory MB")]
    for one in (*found.cells, *([found.blind] if found.blind else [])):
        lines.append(_line(one, with_quality=bool(quality)))
    return lines


def _line(one: CellSummary, *, with_quality: bool) -> tuple[str, ...]:
    cell = one.cell
    settings = ("none", "-", "-", "-")
    if cell is not None:
        settings = (cell.frames, str(cell.pool_stride), cell.pool_mode, used_factor(one))
    times = [one.seconds[name] for name in ("decode", "vision", "prefill", "per_token")]
    memory = one.peak_memory_bytes
    return (
        *settings,
        context_word(one),
        *((interval(one),) if with_quality else ()),
        str(one.failed),
        "-" if one.visual_tokens is None else f"{one.visual_tokens.median:.0f}",
        "-" if one.prompt_tokens is None else f"{one.prompt_tokens.median:.0f}",
        *("-" if time is None else f"{1e3 * time.median:.1f}" for time in times),
        "-" if memory is None else f"{memory / 1e6:.0f}",
    )


def _csv(cells: Sequence[CellSummary], measure: str | None) -> str:
    out = io.StringIO()
    lines = [_flat(one, measure) for one in cells]
    heads = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(out, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(one: CellSummary, measure: str | None) -> dict[str, object]:
    """One line of the CSV: every figure in a column of its own."""
    line: dict[str, object] = {}
    for name, value in one.to_json().items():
        if name in ("factors", "same_as"):
            line[name] = " ".join(map(str, value))
        elif name == "quality":
            line |= {f"{measure or 'quality'}_{part}": number for part, number in value.items()}
        elif name in ("visual_tokens", "prompt_tokens"):
            line |= {f"{name}_{part}": (value or {}).get(part) for part in ("median", "p90")}
        elif name == "seconds":
            for stage in SECONDS:
                spread = value[stage] or {}
                line |= {f"{stage}_seconds_{part}": spread.get(part) for part in ("n", "median", "p90")}
        elif name == "groups":
            for group, members in value.items():
                line |= {
                    f"{measure or 'quality'} {group} {key}": share["mean"] for key, share in members.items()
                }
        else:
            line[name] = value
    return {name: "" if value is None else value for name, value in line.items()}
