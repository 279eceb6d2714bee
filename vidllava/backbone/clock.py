"""Wall time of the stages of an answer, and of those that ran at the same time.

clock = StageClock(device)
with clock.stage("prefill"): ...
clock.seconds["prefill"]
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

Span = tuple[float, float]


class StageClock:
    """Wall seconds per stage, with the device idle at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: dict[str, list[Span]] = {}

    @contextmanager
    def stage(self, name: str, *, waits: bool = True) -> Iterator[None]:
        """Add the time of the block to stage ``name``. ``waits`` False: without waiting for the device."""
        self._wait(waits)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait(waits)
            self._spans.setdefault(name, []).append((start, time.perf_counter()))

    @property
    def seconds(self) -> dict[str, float]:
        """Per stage, in the order in which they began."""
        return {name: sum(end - start for start, end in spans) for name, spans in self._spans.items()}

    def overlap(self, one: str, other: str) -> float:
        """Seconds during which both stages ran."""
        return overlap(self._spans.get(one, ()), self._spans.get(other, ()))

    def _wait(self, wanted: bool) -> None:
        if wanted and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def overlap(one: Sequence[Span], other: Sequence[Span]) -> float:
    """Seconds in both; the spans of each do not overlap among themselves."""
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other)
