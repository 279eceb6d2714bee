"""How long does a call take beside others? Interleaved samples on the CPU, and the quantiles of samples.

    times = time_on_cpu({"ours": ours, "theirs": theirs}, num_samples=100, seconds=1.5)
    times["ours"]["process"].p50_ms

All calls are taken in turn, each round beginning with another one, so that what else the machine does falls
on all of them alike. A ratio of two medians of one run is worth more than either.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
LEAST_SAMPLES, WARM_UPS = 5, 3
# A sample shorter than this is mostly the clock's own cost: such calls are repeated within one sample.
SAMPLE_SECONDS = 1e-3


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, over ``num_samples`` samples."""

    p10_ms: float
    p50_ms: float
    p90_ms: float
    num_samples: int


Times = Mapping[str, Timing]
"""By clock: process and wall on the CPU, graph and events on CUDA."""


def timing(samples_ms: Sequence[float]) -> Timing:
    """The quantiles of at least one sample."""
    p10, p50, p90 = (quantile(samples_ms, share) for share in (0.1, 0.5, 0.9))
    return Timing(p10, p50, p90, len(samples_ms))


def quantile(values: Sequence[float], share: float) -> float:
    """Interpolated between neighbours, as numpy's default: of (1, 2, 4) the half is 2, the quarter 1.5."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def time_on_cpu(
    calls: Mapping[str, Callable[[], object]], *, num_samples: int, seconds: float
) -> dict[str, Times]:
    """Every call's process and wall time: ``num_samples`` samples, or fewer once ``seconds`` are over.

    At least LEAST_SAMPLES are taken however long they last.
    """
    with collector_off():
        repeats = {name: _warm(call) for name, call in calls.items()}
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        begin = time.perf_counter()
        for number in range(num_samples):
            if number >= LEAST_SAMPLES and time.perf_counter() - begin > seconds:
                break
            for name in in_turn(list(calls), number):
                samples[name].append(_sample(calls[name], repeats[name]))
    return {
        name: {"process": timing([one[0] for one in taken]), "wall": timing([one[1] for one in taken])}
        for name, taken in samples.items()
    }


def in_turn(names: Sequence[T], number: int) -> list[T]:
    """The order of round ``number``: each call is first as often as any other."""
    first = number % max(len(names), 1)
    return [*names[first:], *names[:first]]


def _warm(call: Callable[[], object]) -> int:
    """Run a call until it is warm; returns how often it stands in one sample."""
    call()
    begin = time.perf_counter()
    call()
    spent = time.perf_counter() - begin
    repeats = max(1, math.ceil(SAMPLE_SECONDS / max(spent, 1e-7)))
    for _ in range(WARM_UPS * repeats if repeats > 1 else WARM_UPS - 2):
        call()
    return repeats


def _sample(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(process, wall) milliseconds of one call."""
    process, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    spent = time.process_time() - process, time.perf_counter() - wall
    return 1e3 * spent[0] / repeats, 1e3 * spent[1] / repeats


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's cycle collector falls on no sample."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
