"""The rows of `vidllava bench kernels` as lines of text: a table that reads without colour, and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from vidllava.bench.row_file import Row

_RATIOS = {
    "x eager": "ratio_transformers",
    "x compiled": "ratio_transformers_compiled",
    "x liger": "ratio_liger",
    "x flash": "ratio_flash_attn",
}


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The table, then the notes. Several processes' rows of one subject are one line: their medians."""
    groups = list(_grouped(rows))
    ratios = {head: field for head, field in _RATIOS.items() if any(row[field] is not None for row in rows)}
    heads = ["kernel", "shape", "tokens", "dtype", "direction", "by", "p10 ms", "p50 ms", "p90 ms", "GB/s"]
    heads += ["of copy", *ratios, "of all"]
    cells = [
        [*_cells(group), *(_times(group, field) for field in ratios.values()), _all(group)]
        for group in groups
    ]
    return [*_aligned(heads, cells), *_notes(rows)]


def _grouped(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Rows that differ in their process only."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    fields = ("kernel", "shape", "direction", "dtype", "implementation", "device", "threads", "commit")
    for row in rows:
        groups.setdefault(tuple(row[field] for field in fields), []).append(row)
    return groups.values()


def _cells(group: list[Row]) -> list[str]:
    row = group[0]
    sizes = row["sizes"]
    start = [row["kernel"], row["shape"], str(sizes["batch_size"] * sizes["length"]), row["dtype"]]
    start += [row["direction"], row["implementation"]]
    if row["p50_ms"] is None:
        wrong = row["check"] is not None and row["check"]["fault"] is not None
        return [*start, "-", "WRONG" if wrong else "skipped", "-", "-", "-"]
    times = [f"{_median(group, field):.4g}" for field in ("p10_ms", "p50_ms", "p90_ms")]
    return [*start, *times, f"{_median(group, 'gb_per_second'):.3g}", _percent(_median(group, "copy_share"))]


def _times(group: list[Row], field: str) -> str:
    value = _median(group, field)
    return "-" if value is None else f"{value:.2f}"


def _all(group: list[Row]) -> str:
    return _percent(_median(group, "end_to_end_share"))


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


def _median(group: list[Row], field: str) -> float | None:
    values = [row[field] for row in group if row[field] is not None]
    return median(values) if values else None


def _aligned(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Words to the left, figures to the right."""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    words = {"kernel", "shape", "dtype", "direction", "by"}
    return [
        "  ".join(
            cell.ljust(width) if head in words else cell.rjust(width)
            for cell, width, head in zip(line, widths, heads, strict=True)
        ).rstrip()
        for line in [heads, *rows]
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = ["", "of copy: a copy of as many bytes, measured in turn with the kernel; more is better"]
    notes.append("x eager: transformers' own operations take so many times as long")
    if any(row["end_to_end"] for row in rows):
        notes.append(
            "of all: all calls of the kernel in a prefill or a decode step; backward: in two, both: in three"
        )
    for row in _first(rows):
        whole = row["end_to_end"]
        notes.append(f"  {row['shape']}, {row['dtype']}: {whole['prefill_ms']:.4g} ms, {whole['how']}")
    slower = [row for row in rows if row["ratio_transformers"] is not None and row["ratio_transformers"] < 1]
    notes += [
        f"slower than eager: {row['kernel']} {row['direction']}, {row['shape']}, {row['dtype']}: "
        f"{row['ratio_transformers']:.2f}"
        for row in slower
    ]
    notes += [f"skipped: {row['kernel']}, {row['shape']}: {row['skipped']}" for row in rows if row["skipped"]]
    notes += [
        f"WRONG: {row['kernel']}, {row['shape']}, {row['dtype']}: {row['check']['fault']}"
        for row in rows
        if row["check"] is not None and row["check"]["fault"] is not None
    ]
    return list(dict.fromkeys(notes))


def _first(rows: Sequence[Row]) -> list[Row]:
    """One row for each prefill."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if row["end_to_end"]:
            found.setdefault((row["shape"], row["dtype"]), row)
    return list(found.values())
