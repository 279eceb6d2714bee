"""How much memory did this step take at most? Of the device, or of the process where it runs on the CPU.

watch = PeakMemory(device)
watch.start(); ...; watch.bytes()
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


class PeakMemory:
    """The peak since ``start``: bytes that torch holds on a GPU; resident bytes of this process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> None:
        """Begin anew."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with contextlib.suppress(OSError):  # elsewhere than on Linux it is the peak since the process began
            _CLEAR.write_text("5", encoding="ascii")

    def bytes(self) -> int:
        """At most so many at once."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        with contextlib.suppress(OSError):
            found = _PEAK.search(_STATUS.read_text(encoding="ascii", errors="replace"))
            if found is not None:
                return int(found[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
