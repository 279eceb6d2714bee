"""Interleaved samples of several calls, on the CPU and on a CUDA device, and their quantiles.

    times = time_on_cpu({"ours": ours, "theirs": theirs}, num_samples=100, seconds=1.5)
    times["ours"]["process"].p50_ms

All calls are taken in turn, each round beginning with another one, so that what else the machine does falls
on all of them alike. A ratio of two medians of one run is worth more than either.

On CUDA each call is captured in a graph once for every set of buffers, and a sample is one replay of the
graph: no launch cost, and by the time a set comes up again the others have pushed it out of the L2 cache.
What a graph cannot hold (transformers' placement waits for the host) is timed between two events instead;
ours is timed in both ways, so that a ratio compares like with like.
"""
# torch.utils.benchmark.Timer and triton.testing.do_bench(_cudagraph) time one call after the other, not in
# turn; the former reads no process time, the latter runs one set of buffers, warm or beside a cleared cache.

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Call = Callable[[], object]
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


def time_on_cpu(calls: Mapping[str, Call], *, num_samples: int, seconds: float) -> dict[str, Times]:
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


def _warm(call: Call) -> int:
    """Run a call until it is warm; returns how often it stands in one sample."""
    call()
    begin = time.perf_counter()
    call()
    spent = time.perf_counter() - begin
    repeats = max(1, math.ceil(SAMPLE_SECONDS / max(spent, 1e-7)))
    for _ in range(WARM_UPS * repeats if repeats > 1 else WARM_UPS - 2):
        call()
    return repeats


def _sample(call: Call, repeats: int) -> tuple[float, float]:
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


CUDA_WARM_UPS = 25
# Several times the L2 cache of any device so far (50 MB on H100 and H200, 126 MB on B200).
COLD_BYTES = 256 << 20
# A graph of more nodes than this takes seconds to build; below 1 MB per set the cache stays partly warm.
MOST_SETS = 256
HOT_CALLS = 20


def num_buffer_sets(bytes_per_set: int) -> int:
    """How many sets of buffers a sample goes through: together COLD_BYTES, but at most MOST_SETS."""
    return min(max(1, math.ceil(COLD_BYTES / max(bytes_per_set, 1))), MOST_SETS)


def time_on_cuda(
    calls: Mapping[str, Sequence[Call]],
    *,
    captured: Sequence[str],
    launched: Sequence[str],
    num_samples: int,
    stream: Any,
) -> dict[str, Times]:
    """Each call's time on the device, from interleaved samples.

    calls       for each name one call per set of buffers, whose forward pass ran on ``stream``
    captured    names that are timed as graphs; one that cannot be captured is timed with events
    launched    names that are timed with events
    """
    import torch

    with torch.cuda.stream(stream), collector_off():
        for sets in calls.values():
            for number in range(max(CUDA_WARM_UPS, len(sets))):
                sets[number % len(sets)]()
        stream.synchronize()
        runs: dict[tuple[str, str], tuple[Call, int]] = {}
        for name in calls:
            replay = _capture(calls[name], stream) if name in captured else None
            if replay is not None:
                runs[name, "graph"] = replay, len(calls[name])
            if replay is None or name in launched:
                runs[name, "events"] = _all(calls[name]), len(calls[name])
        samples = _sample_on_cuda(runs, num_samples, stream)
    return {
        name: {clock: timing(taken) for (one, clock), taken in samples.items() if one == name}
        for name in calls
    }


def _all(calls: Sequence[Call]) -> Call:
    def run() -> None:
        for call in calls:
            call()

    return run


def _capture(calls: Sequence[Call], stream: Any) -> Call | None:
    """One replay of all calls; None where the device refuses, because a call waits for the host."""
    import torch

    graph = torch.cuda.CUDAGraph()
    kept = []
    try:
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                # Kept until the capture ends, so that each set has outputs of its own.
                kept.append(call())
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    graph.replay()
    stream.synchronize()
    return graph.replay


def _sample_on_cuda(
    runs: Mapping[tuple[str, str], tuple[Call, int]], num_samples: int, stream: Any
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds per call. Nothing is waited for until all samples are on the stream."""
    import torch

    marks: dict[tuple[str, str], list[tuple[Any, Any]]] = {key: [] for key in runs}
    for number in range(num_samples):
        for key in in_turn(list(runs), number):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            runs[key][0]()
            end.record(stream)
            marks[key].append((start, end))
    stream.synchronize()
    return {
        key: [start.elapsed_time(end) / runs[key][1] for start, end in taken] for key, taken in marks.items()
    }
