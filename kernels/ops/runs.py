"""What of a batch can one view hold? Consecutive blocks of one shape, and consecutive rows.

The frames of a video are one strided view of the features and one of the rows; a question is one slice of the
rows. The PyTorch path works on these, found once for each plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vidllava.kernels.block import Block

# A slice is one call of a few microseconds: it pays from about as many rows on, or where there are few.
ROWS_PER_SPAN, FEW_SPANS = 16, 4


@dataclass(frozen=True)
class Run:
    """`count` blocks that differ in their place only; each is `src_step` features and `dst_step` rows on."""

    block: Block
    count: int = 1
    src_step: int = 0
    dst_step: int = 0

    @property
    def in_one_tile(self) -> bool:
        b = self.block
        return b.tiles_x == 1 and b.crop_y + b.in_h <= b.tile_h


class Span(NamedTuple):
    """`length` consecutive rows from `row` on, made of as many consecutive entries from `entry` on."""

    entry: int
    row: int
    length: int


@dataclass(frozen=True, eq=False)
class Places:
    """Rows of the packed input: as indices, and as spans where these are worth their calls."""

    index: Tensor
    """int64 [n]"""
    spans: tuple[Span, ...] | None

    def take(self, rows: Tensor) -> Tensor:
        """These rows of `rows`: a view where they are one span."""
        if self.spans is None or len(self.spans) > 1:
            return rows.index_select(0, self.index)
        return rows.narrow(0, self.spans[0].row, len(self.index)) if self.spans else rows[:0]

    def clear(self, rows: Tensor) -> None:
        """Write zeros to these rows."""
        if self.spans is None:
            rows.index_fill_(0, self.index, 0.0)
            return
        for span in self.spans:
            rows.narrow(0, span.row, span.length).zero_()

    def fill(self, rows: Tensor, value: Tensor) -> None:
        """Write `value` [D] to each of these rows."""
        if self.spans is None:
            rows.index_copy_(0, self.index, value.to(rows.dtype).expand(len(self.index), rows.shape[1]))
            return
        for span in self.spans:
            rows.narrow(0, span.row, span.length).copy_(value)


def find_places(rows: Tensor) -> Places:
    """The rows [n], any order, as `Places`; without spans on CUDA, to read nothing back."""
    index = rows.long().contiguous()
    if not len(index):
        return Places(index, ())
    if not index.is_cpu:
        return Places(index, None)
    starts = torch.cat((index.new_zeros(1), (index.diff() != 1).nonzero().flatten() + 1))
    if len(starts) > max(FEW_SPANS, len(index) // ROWS_PER_SPAN):
        return Places(index, None)
    stops = [*starts[1:].tolist(), len(index)]
    spans = zip(starts.tolist(), index[starts].tolist(), stops, strict=True)
    return Places(index, tuple(Span(entry, row, stop - entry) for entry, row, stop in spans))


def find_runs(blocks: Tensor) -> Iterator[Run]:
    """Consecutive blocks that one strided view can hold."""
    current: Run | None = None
    for fields in blocks.tolist():
        block = Block(*fields)
        longer = _extended(current, block) if current else None
        if longer is None and current is not None:
            yield current
        current = longer or Run(block)
    if current is not None:
        yield current


def _extended(run: Run, block: Block) -> Run | None:
    """`run` with `block` at its end, or None where that is no evenly spaced view of single tiles."""
    first = run.block
    if not run.in_one_tile or block._replace(src_row=first.src_row, dst_row=first.dst_row) != first:
        return None
    src_step = (block.src_row - first.src_row) // run.count
    dst_step = (block.dst_row - first.dst_row) // run.count
    expected = (first.src_row + run.count * src_step, first.dst_row + run.count * dst_step)
    even = run.count == 1 or (src_step, dst_step) == (run.src_step, run.dst_step)
    apart = src_step >= first.tile_h * first.tile_w and dst_step > 0
    if not (even and apart and (block.src_row, block.dst_row) == expected):
        return None
    return Run(first, run.count + 1, src_step, dst_step)
