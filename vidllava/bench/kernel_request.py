"""The request to `vidllava bench kernels`, checked before torch is imported; its runs in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from vidllava.errors import UsageError
from vidllava.prompting.layout import NewlineMode

Kernel = Literal["splice", "rotate"]
Direction = Literal["forward", "backward", "both"]
MODEL_NAMES = ("nano", "0.5b", "7b")
DTYPE_NAMES = ("float32", "bfloat16", "float16")
MOST_FRAMES, MOST_SAMPLES, MOST_THREADS, MOST_PROCESSES = 4096, 100_000, 1024, 100


@dataclass(frozen=True, kw_only=True)
class KernelRequest:
    """Which rows to measure, and how long. An empty tuple is the device's own default."""

    models: tuple[str, ...] = ()
    num_frames: tuple[int, ...] = ()
    newline_modes: tuple[NewlineMode, ...] = ()
    kernels: tuple[Kernel, ...] = ("splice", "rotate")
    directions: tuple[Direction, ...] = ("forward", "backward", "both")
    dtypes: tuple[str, ...] = ()
    odd: bool = True
    """Also the decode step and the shapes that kernels were found wrong at."""
    share: bool = True
    """Also the share of a whole prefill."""
    compile: bool = False
    """Also transformers' operations under torch.compile."""
    threads: int = 1
    num_samples: int = 100
    row_seconds: float = 1.5
    """On the CPU: no more samples of a row after so long. On CUDA every sample is taken."""
    process: int = 0
    """The number of this process among those that measure the same."""

    def __post_init__(self) -> None:
        for flag, value, most in (
            ("--threads", self.threads, MOST_THREADS),
            ("--samples", self.num_samples, MOST_SAMPLES),
        ):
            if not 1 <= value <= most:
                raise UsageError(f"{flag} {value}", f"must be 1 to {most}", f"a number up to {most}")
        if not 0 < self.row_seconds <= 3600:
            raise UsageError(
                f"--row-seconds {self.row_seconds:g}", "must be above 0 and at most 3600", "for example 1.5"
            )


def parse_words(flag: str, text: str | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """``a,b`` -> ("a", "b"), each of them allowed and once. None gives none. Raises UsageError."""
    if text is None:
        return ()
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in allowed:
            raise UsageError(f"{flag} {word!r}", "no such choice", f"one or more of {','.join(allowed)}")
    return words


def parse_counts(flag: str, text: str | None, most: int) -> tuple[int, ...]:
    """``8,32`` -> (8, 32), each 1 to ``most``. None gives none. Raises UsageError."""
    if text is None:
        return ()
    counts = []
    for word in text.split(","):
        if not word.strip().isascii() or not word.strip().isdigit() or not 1 <= int(word) <= most:
            raise UsageError(f"{flag} {word.strip()!r}", f"must be whole numbers from 1 to {most}", "8,32")
        counts.append(int(word))
    return tuple(dict.fromkeys(counts))


def parse_request(
    *,
    model: str | None,
    num_frames: str | None,
    newline_mode: str | None,
    kernel: str | None,
    direction: str | None,
    dtype: str | None,
    **others: object,
) -> KernelRequest:
    """The request that a command line makes; ``others`` are fields of it. Raises UsageError."""
    lists = {
        "models": parse_words("--model", model, MODEL_NAMES),
        "num_frames": parse_counts("--num-frames", num_frames, MOST_FRAMES),
        "newline_modes": parse_words(
            "--newline-mode",
            None if newline_mode is None else newline_mode.replace("-", "_"),  # as everywhere
            get_args(NewlineMode),
        ),
        "kernels": parse_words("--kernel", kernel, get_args(Kernel)) or get_args(Kernel),
        "directions": parse_words("--direction", direction, get_args(Direction)) or get_args(Direction),
        "dtypes": parse_words("--dtype", dtype, DTYPE_NAMES),
    }
    return KernelRequest(**cast(dict, lists | others))


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
