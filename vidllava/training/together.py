"""What the processes of a run share: sums, texts, signals, and that all of them go the same way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from vidllava import errors
from vidllava.data.batches import StepBatch, worker_died
from vidllava.errors import ResourceError, VidllavaError, is_allocation_failure

_CLASSES: dict[int, type[VidllavaError]] = {
    kind.exit_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VidllavaError)
}


class Together:
    """Every process calls the same methods in the same order, or all wait for ever."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.alone = accelerator.num_processes == 1

    def sums(self, *values: float) -> list[float]:
        """Each number, summed over all processes: one message for all of them."""
        if self.alone:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(numbers, "sum").tolist()

    def texts(self, text: str) -> list[str]:
        """Everybody's text, by process. As bytes in tensors: objects would be unpickled."""
        if self.alone:
            return [text]
        device = self.accelerator.device
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
        sizes = self.accelerator.gather(torch.tensor([len(data)], device=device)).tolist()
        padded = torch.zeros(1, max(max(sizes), 1), dtype=torch.uint8, device=device)
        padded[0, : len(data)] = data
        rows = self.accelerator.gather(padded)
        return [bytes(row[:size].tolist()).decode() for row, size in zip(rows, sizes, strict=True)]

    def fail(self, own: VidllavaError | None) -> VidllavaError | SystemExit:
        """What each process raises where at least one has an error: the first process the first of them.

        The others end with its code and say nothing: the same line once is enough.
        """
        shared = "" if own is None else json.dumps([own.exit_code, own.thing, own.what, own.hint])
        code, thing, what, hint = json.loads(next(text for text in self.texts(shared) if text))
        if self.accelerator.is_main_process:
            return own or _CLASSES[code](thing, what, hint)
        return SystemExit(code)


_WATCHED = (signal.SIGINT, signal.SIGTERM)
# torchrun passes on what the terminal has sent to the whole process group already: one request, not two.
_ECHO_SECONDS = 3.0
Value = TypeVar("Value")


class _Interrupted(BaseException):
    """Ends a wait; nothing that catches errors may take it for one."""


class StopRequest:
    """`with StopRequest() as stop:` ... `stop.signal` is the number of the signal that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._waiting = False
        self._came_at = 0.0

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; a run in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._came) for number in _WATCHED}
        return self

    def __exit__(self, *_fault: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, call: Callable[[], Value]) -> Value | None:
        """`call()`, which only waits and reads; None as soon as somebody asks to stop, whatever it does."""
        try:
            self._waiting = True
            return call() if self.signal is None else None
        except _Interrupted:
            return None
        finally:
            self._waiting = False

    def _came(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._came_at = number, now
            if self._waiting:
                raise _Interrupted
        elif "LOCAL_RANK" not in os.environ or now - self._came_at > _ECHO_SECONDS:
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            raise KeyboardInterrupt


_SMALLER = (
    "half the --per-device-train-batch-size and twice the --gradient-accumulation-steps, fewer frames, or a "
    "larger --pool-stride; the last checkpoint is whole"
)


@contextmanager
def resource_errors(step: int, data: StepBatch | None, *, hint: str = _SMALLER) -> Iterator[None]:
    """Turn what torch raises where memory or a worker is gone into a ResourceError about this step."""
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        # A worker's end is raised by a signal handler: in the middle of anything.
        if isinstance(fault, RuntimeError) and (died := worker_died(fault)) is not None:
            raise died from None
        if not is_allocation_failure(fault):
            raise
        raise ResourceError(f"step {step}", f"not enough memory{_load(data)}", hint) from None


def _load(data: StepBatch | None) -> str:
    if data is None or not data.micro:
        return ""
    largest = max(data.micro, key=lambda batch: batch.plan.num_rows)
    samples, pictures, rows = len(largest.lengths), len(largest.pixels), largest.plan.num_rows
    return f" for a micro-batch of {samples} samples, {pictures} frames and tiles and {rows:,} rows"


def check_room(folder: Path, num_bytes: int) -> None:
    """Raises ResourceError if the disk could not hold one more checkpoint: better now than hours later."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        what = f"a checkpoint takes {num_bytes:,} bytes, the disk has {free:,} free"
        raise ResourceError(folder, what, "make room, or --save-steps 0 and another --output-dir")
