"""The same measurement in fresh processes: what differs between two starts is no property of a kernel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from vidllava.bench.kernel_request import KernelRequest


def run_fresh(arguments: Sequence[str], *, module: str, processes: int) -> int:
    """``python -m module arguments --process N`` for each N in turn; returns the worst exit code.

    1 is a wrong result: the other processes still run. Anything else ends it.
    """
    worst = 0
    for number in range(processes):
        done = subprocess.run([sys.executable, "-m", module, *arguments, "--process", str(number)])
        worst = max(worst, done.returncode)
        if done.returncode not in (0, 1):
            return done.returncode
    return worst


def flags_of(request: KernelRequest) -> list[str]:
    """The command line that asks for the same; which process it is stands apart."""
    lists = {
        "--model": request.models,
        "--num-frames": request.num_frames,
        "--newline-mode": request.newline_modes,
        "--kernel": request.kernels,
        "--direction": request.directions,
        "--dtype": request.dtypes,
    }
    flags = [word for flag, values in lists.items() if values for word in (flag, ",".join(map(str, values)))]
    flags += ["--odd" if request.odd else "--no-odd", "--share" if request.share else "--no-share"]
    flags += ["--compile"] if request.compile else []
    numbers = {
        "--threads": request.threads,
        "--samples": request.num_samples,
        "--row-seconds": request.row_seconds,
    }
    return [*flags, *(str(word) for pair in numbers.items() for word in pair)]
