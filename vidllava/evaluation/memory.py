"""Peak memory: on CUDA what torch allocates, on a CPU what is resident of this process.

    with PeakMemory(device) as memory:
        ...
    memory.peak_bytes      # None where there is no way to tell

The high-water mark of a process never falls by itself: it is set back before each measurement, and what is
freed is given back to the system first, or a small answer after a large one would show that one's memory.
"""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to the present resident set
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
CUDA_METHOD = "torch.cuda.max_memory_allocated"
LINUX_METHOD = "resident set of the process, high-water mark set back before each answer (VmHWM)"


class PeakMemory:
    """Bytes held at most since ``start``, or inside the block."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peak_bytes: int | None = None
        self._can_reset = False

    def start(self) -> None:
        """Begin anew. Elsewhere than on Linux a CPU's peak is that since the process began."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
            self._can_reset = True

    def bytes(self) -> int:
        """At most so many at once."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if (mark := _high_water()) is not None:
            return mark
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        else:
            _give_back()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.peak_bytes = self.bytes()
        elif self._can_reset:
            self.peak_bytes = _high_water()


def method(device: torch.device) -> str | None:
    """In words, how the peak is found; None where it is not."""
    if device.type == "cuda":
        return CUDA_METHOD
    return LINUX_METHOD if device.type == "cpu" and _CLEAR.exists() else None


def _high_water() -> int | None:
    with suppress(OSError):
        found = _PEAK.search(_STATUS.read_text(encoding="ascii", errors="replace"))
        return None if found is None else int(found[1]) << 10
    return None


def _give_back() -> None:
    """Hand freed memory back to the system where the C library keeps it (glibc)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
