"""As much of torch.cuda as the benchmark calls, on a CPU and with a made-up clock: the order of its steps."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch


class Device:
    """Events read ``now``, in milliseconds; calls move it, and a replay by what was captured."""

    def __init__(self) -> None:
        self.now, self.capturing, self.waits = 0.0, None, 0

    def event(self, enable_timing: bool) -> Any:
        one = SimpleNamespace(at=None)
        one.record = lambda stream: setattr(one, "at", self.now)
        one.elapsed_time = lambda end: end.at - one.at
        return one

    def graph(self, graph: Any, stream: Any) -> Any:
        device = self

        class Capture:
            def __enter__(self) -> None:
                device.capturing = graph

            def __exit__(self, *_: object) -> None:
                device.capturing = None

        return Capture()

    def new_graph(self) -> Any:
        graph = SimpleNamespace(ms=0.0)
        graph.replay = lambda: setattr(self, "now", self.now + graph.ms)
        return graph

    def call(self, ms: float, launch_ms: float, *, waits: bool = False):
        def run() -> None:
            if self.capturing is None:
                self.now += ms + launch_ms
            elif waits:
                raise RuntimeError("operation not permitted when stream is capturing")
            else:
                self.capturing.ms += ms

        return run

    @classmethod
    def instead_of_cuda(cls, monkeypatch: pytest.MonkeyPatch) -> Device:
        """A device in the place of torch.cuda."""
        one = cls()
        one.stream = SimpleNamespace(synchronize=lambda: None)
        fake = SimpleNamespace(
            stream=lambda stream: nullcontext(),
            Event=one.event,
            CUDAGraph=one.new_graph,
            graph=one.graph,
            synchronize=lambda device=None: None,
            empty_cache=lambda: None,
            memory_allocated=lambda device=None: 100,
            max_memory_allocated=lambda device=None: 160,
            reset_peak_memory_stats=lambda device=None: None,
        )
        monkeypatch.setattr(torch, "cuda", fake)
        return one
