"""A row of `vidllava bench kernels`, every field in one place, and the table for people.

A row without a time says why: `skipped`, or `check.fault` where the result is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from vidllava.bench.check import CheckResult
from vidllava.bench.clock import Times, Timing
from vidllava.bench.kernel_cases import MODELS, Case, Direction, bytes_moved
from vidllava.bench.models import Prefill
from vidllava.bench.operations import BASELINES
from vidllava.bench.rows import Row

# A backward pass counts as two forward passes: two products for each one of theirs.
FORWARDS = {"forward": 1, "backward": 2, "both": 3}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One row to be measured."""

    case: Case
    dtype: str
    direction: Direction
    implementation: str
    element_bytes: int

    def key(self, conditions: Mapping[str, Any], process: int) -> str:
        """The same for the same shape under the same conditions, in this or another run."""
        parts = [
            asdict(self.case),
            self.dtype,
            self.direction,
            self.implementation,
            dict(conditions),
            process,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def num_bytes(self) -> int:
        """By the byte model."""
        return bytes_moved(self.case, self.direction, element_bytes=self.element_bytes)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found for a subject. ``times`` is empty where it was skipped or its result is wrong."""

    times: Mapping[str, Times]
    """By ours, known_plan (ours, a plan that was used before), hot (in the cache), copy, and baselines."""
    reasons: Mapping[str, str]
    """Why a baseline has no time."""
    clocks: Sequence[str]
    """Which clock counts: the first of these that was read."""
    checked: CheckResult | None = None
    skipped: str | None = None
    prefill: Prefill | None = None
    extra: Mapping[str, Any] | None = None


def to_row(subject: Subject, measured: Measured, stamp: Mapping[str, Any]) -> Row:
    """The row; ``stamp`` is the key and the conditions."""
    case, times, num_bytes = subject.case, measured.times, subject.num_bytes
    clock, ours = _read(times.get("ours", {}), measured.clocks)
    copy = times.get("copy", {}).get(clock or "")
    p50 = None if ours is None else ours.p50_ms
    row: Row = {
        "kernel": case.kernel,
        "shape": case.name,
        "model": case.model,
        "direction": subject.direction,
        "dtype": subject.dtype,
        "implementation": subject.implementation,
        "p10_ms": None if ours is None else _figure(ours.p10_ms),
        "p50_ms": _figure(p50),
        "p90_ms": None if ours is None else _figure(ours.p90_ms),
        "num_samples": None if ours is None else ours.num_samples,
        "clock": clock,
        "bytes": num_bytes,
        "gb_per_second": None if p50 is None else _figure(num_bytes / p50 / 1e6),
        "copy_share": None if p50 is None or copy is None else _figure(copy.p50_ms / p50),
    }
    for name in BASELINES:
        row[f"ratio_{name}"] = _figure(_ratio(times, name, measured.clocks))
    row |= share(subject, p50, measured.prefill)
    row["sizes"] = {k: v for k, v in asdict(case).items() if k not in ("kernel", "name", "model")}
    row["other_clocks"] = {
        name: _timing(taken) for name, taken in times.get("ours", {}).items() if name != clock
    }
    row["copy"] = None if copy is None else _timing(copy)
    row["baselines"] = {
        name: {at: _timing(taken) for at, taken in times[name].items()}
        if name in times
        else {"reason": measured.reasons.get(name, "not measured")}
        for name in BASELINES
    }
    hot = times.get("hot", {}).get("graph")
    row["hot_p50_ms"] = None if hot is None else _figure(hot.p50_ms)
    _, known = _read(times.get("known_plan", {}), measured.clocks)
    row["known_plan_p50_ms"] = None if known is None else _figure(known.p50_ms)
    row["check"] = None if measured.checked is None else asdict(measured.checked)
    row["skipped"] = measured.skipped
    return {**row, **(measured.extra or {}), **stamp}


def share(subject: Subject, p50_ms: float | None, prefill: Prefill | None) -> Row:
    """What part of a prefill (with a backward pass: of a training step) all calls of a kernel take."""
    case = subject.case
    if p50_ms is None or prefill is None or case.model is None:
        return {"end_to_end_share": None, "end_to_end": None}
    calls = MODELS[case.model].layers if case.kernel == "rotate" else 1
    forwards = FORWARDS[subject.direction]
    whole: Row = {"prefill_ms": _figure(prefill.ms), "forward_passes": forwards, "calls": calls}
    whole["how"] = prefill.how
    return {"end_to_end_share": _figure(calls * p50_ms / (forwards * prefill.ms)), "end_to_end": whole}


def _read(times: Times, clocks: Sequence[str]) -> tuple[str | None, Timing | None]:
    for clock in clocks:
        if clock in times:
            return clock, times[clock]
    return None, None


def _ratio(times: Mapping[str, Times], name: str, clocks: Sequence[str]) -> float | None:
    """Their median over ours, by the first clock that read both."""
    theirs, ours = times.get(name, {}), times.get("ours", {})
    for clock in clocks:
        if clock in theirs and clock in ours:
            return theirs[clock].p50_ms / ours[clock].p50_ms
    return None


def _timing(taken: Timing) -> Row:
    return {"p10_ms": _figure(taken.p10_ms), "p50_ms": _figure(taken.p50_ms), "p90_ms": _figure(taken.p90_ms)}


def _figure(value: float | None) -> float | None:
    """Four digits: there are no more in a time."""
    return None if value is None else float(f"{value:.4g}")


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
    cells = []
    for group in groups:
        share_of_all = _percent(_median(group, "end_to_end_share"))
        cells.append([*_cells(group), *(_times(group, field) for field in ratios.values()), share_of_all])
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
