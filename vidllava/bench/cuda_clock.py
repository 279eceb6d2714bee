"""Time of a call on a CUDA device, with nothing of its data in the cache.

Each call is captured in a CUDA graph once for every set of buffers, and a sample is one replay of the graph:
no launch cost, and by the time a set comes up again the others have pushed it out of the L2 cache. What a
graph cannot hold (transformers' placement waits for the host) is timed between two events instead; ours is
timed in both ways, so that a ratio compares like with like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vidllava.bench.clock import Times, collector_off, in_turn, timing

Call = Callable[[], object]
WARM_UPS = 25
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
    with torch.cuda.stream(stream), collector_off():
        for sets in calls.values():
            for number in range(max(WARM_UPS, len(sets))):
                sets[number % len(sets)]()
        stream.synchronize()
        runs: dict[tuple[str, str], tuple[Call, int]] = {}
        for name in calls:
            replay = _capture(calls[name], stream) if name in captured else None
            if replay is not None:
                runs[name, "graph"] = replay, len(calls[name])
            if replay is None or name in launched:
                runs[name, "events"] = _all(calls[name]), len(calls[name])
        samples = _sample(runs, num_samples, stream)
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


def _sample(
    runs: Mapping[tuple[str, str], tuple[Call, int]], num_samples: int, stream: Any
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds per call. Nothing is waited for until all samples are on the stream."""
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
