"""What ran out? Memory, room on the disk, or the life of a data worker: each told in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidllava.data.batches import StepBatch, worker_died
from vidllava.errors import ResourceError, is_allocation_failure

_SMALLER = (
    "half the --per-device-train-batch-size and twice the --gradient-accumulation-steps, fewer frames, or a "
    "larger --pool-stride; the last checkpoint is whole"
)


@contextmanager
def told(step: int, data: StepBatch | None, *, hint: str = _SMALLER) -> Iterator[None]:
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
