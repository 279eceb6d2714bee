"""What the operators read of a plan, computed once for each plan: places, and runs of like blocks.

A `SplicePlan` hands the same `Work` to every call. In a traced graph, where only tensors and numbers may
cross, the operators build one again from its parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vidllava.kernels.block import BLOCK_FIELDS, PlanBlock

_SRC, _DST, _TILE_H, _TILE_W = map(BLOCK_FIELDS.index, ("src_row", "dst_row", "tile_h", "tile_w"))

# A slice is one call of a few microseconds: it pays from about as many rows on, or where there are few.
ROWS_PER_SPAN, FEW_SPANS = 16, 4


@dataclass(frozen=True)
class BlockRun:
    """`count` blocks that differ in their place only; each is `src_step` features and `dst_step` rows on."""

    block: PlanBlock
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
    count = len(index)
    if not count:
        return Places(index, ())
    if not index.is_cpu:
        return Places(index, None)
    # NumPy's calls cost a fraction of PyTorch's on so few integers, and a plan is often used once.
    numbers = index.numpy()
    starts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()] if count > 1 else [0]
    if len(starts) > max(FEW_SPANS, count // ROWS_PER_SPAN):
        return Places(index, None)
    stops = [*starts[1:], count]
    spans = zip(starts, numbers[starts].tolist(), stops, strict=True)
    return Places(index, tuple(Span(entry, row, stop - entry) for entry, row, stop in spans))


def find_runs(blocks: Tensor) -> Iterator[BlockRun]:
    """Consecutive blocks that one strided view can hold."""
    rows: list[list[int]] = blocks.tolist()
    start = 0
    while start < len(rows):
        first = BlockRun(PlanBlock(*rows[start]))
        count, src_step, dst_step = _evenly_spaced(rows, start) if first.in_one_tile else (1, 0, 0)
        yield BlockRun(first.block, count, src_step, dst_step)
        start += count


def _evenly_spaced(rows: list[list[int]], start: int) -> tuple[int, int, int]:
    """How many blocks from `start` on one strided view of single tiles holds, and its two steps."""
    first = rows[start]
    if start + 1 == len(rows):
        return 1, 0, 0
    src_step = rows[start + 1][_SRC] - first[_SRC]
    dst_step = rows[start + 1][_DST] - first[_DST]
    if src_step < first[_TILE_H] * first[_TILE_W] or dst_step <= 0:
        return 1, 0, 0
    expected, count = list(first), 1
    for block in rows[start + 1 :]:
        expected[_SRC] += src_step
        expected[_DST] += dst_step
        if block != expected:
            break
        count += 1
    return (count, src_step, dst_step) if count > 1 else (1, 0, 0)


class Operands(NamedTuple):
    """The tables that the operators read, in the order in which they take them; see SplicePlan."""

    blocks: Tensor
    plain: Tensor
    table_positions: Tensor
    items: Tensor
    tiles: Tensor
    readers: Tensor
    tile_rows: Tensor


@dataclass(frozen=True, eq=False)
class Work:
    """The tables and the counts that go with them; below, what the PyTorch path derives when it first asks.

    Those reads come back to the host: free on the CPU; on CUDA only VIDLLAVA_KERNELS=torch makes them.
    """

    operands: Operands
    num_text: int
    num_newlines: int
    num_tile_cells: int
    uses_max: bool

    @cached_property
    def runs(self) -> tuple[BlockRun, ...]:
        return tuple(find_runs(self.operands.blocks))

    @cached_property
    def positions(self) -> Tensor:
        """fp32 [num_rows]: exact, since a context has fewer than 2^24 tokens."""
        return self.operands.table_positions.float()

    @cached_property
    def text(self) -> Places:
        return find_places(self.operands.plain[: self.num_text, 0])

    @cached_property
    def ids(self) -> Tensor:
        """int64 [num_text]: the vocabulary id of each row of text."""
        return self.operands.plain[: self.num_text, 1].long().contiguous()

    @cached_property
    def newlines(self) -> Places:
        return find_places(self.operands.plain[self.num_text : self.num_text + self.num_newlines, 0])

    @cached_property
    def padding(self) -> Places:
        return find_places(self.operands.plain[self.num_text + self.num_newlines :, 0])

    @cached_property
    def all_ids(self) -> Tensor | None:
        """int64 [num_rows], if every row is text or padding (which has id 0 here); None if not."""
        if self.operands.blocks.shape[0] or self.num_newlines:
            return None
        ids = self.ids.new_zeros(self.operands.table_positions.shape[0])
        return ids.index_copy_(0, self.text.index, self.ids)

    @cached_property
    def fills_tiles_once(self) -> int | None:
        """The number of features, if each lies in one window, whole and in one tile; None if not.

        Their gradient then has nothing to clear and nothing to add.
        """
        if len(self.operands.readers) != len(self.operands.tiles):
            return None
        blocks = [(run.block, run.count) for run in self.runs]
        if any((b.in_h, b.in_w, b.tiles_x) != (b.tile_h, b.tile_w, 1) for b, _ in blocks):
            return None
        return sum(count * b.in_h * b.in_w for b, count in blocks)
