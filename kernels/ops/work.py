"""What the operators read of a plan, computed once for each plan.

A `SplicePlan` hands the same `Work` to every call. In a traced graph, where only tensors and numbers may
cross, the operators build one again from its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from vidllava.kernels.runs import Places, Run, find_places, find_runs


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
    def runs(self) -> tuple[Run, ...]:
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
