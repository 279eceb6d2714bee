"""What does one row of `vidllava bench kernels` hold? Every field, in one place.

A row without a time says why: `skipped`, or `check.fault` where the result is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidllava.bench.baselines import NAMES
from vidllava.bench.byte_model import bytes_moved
from vidllava.bench.check import Checked
from vidllava.bench.clock import Times, Timing
from vidllava.bench.kernel_request import Direction
from vidllava.bench.prefill import Prefill
from vidllava.bench.shapes import MODELS, Case

Row = dict[str, Any]
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
    checked: Checked | None = None
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
    for name in NAMES:
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
        for name in NAMES
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
