"""The memory that a shape of a kernel needs on a device, about."""

from __future__ import annotations

from vidllava.bench.shapes import Case

# Inputs, gradients, outputs, and the copies of transformers' chain (kernels/README.md: 7 times the least).
TIMES_INPUTS = 12


def why_skipped(case: Case, *, element_bytes: int, num_sets: int, free: int) -> str | None:
    """Why a case is not measured; None if it fits ``free`` bytes."""
    needed = bytes_needed(case, element_bytes=element_bytes, num_sets=num_sets)
    if needed <= free:
        return None
    return f"needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


def bytes_needed(case: Case, *, element_bytes: int, num_sets: int) -> int:
    """About: TIMES_INPUTS times the inputs, and four times them for every further set of buffers."""
    if case.kernel == "rotate":
        elements = case.batch_size * case.length * (case.q_heads + case.k_heads) * case.head_size
    else:
        cells = case.layout.num_grids * case.side**2
        elements = case.batch_size * case.channels * (cells + case.length)
    return elements * element_bytes * (TIMES_INPUTS + 4 * (num_sets - 1))
