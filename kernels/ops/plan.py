"""Where does every row of the packed input come from? The plan, built on the CPU while tokenising.

    plan = SplicePlan(blocks=..., text=..., newlines=..., padding=..., positions=..., num_rows=...)
    plan = plan.to("cuda", non_blocking=True)      # one copy for all its tables

Integers only: no mask, no scan of ids, nothing read back from the device. A plan is checked when it is
built, so the kernels need not check anything. `kernels/README.md` has the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vidllava.kernels.block import BLOCK_FIELDS, MODES
from vidllava.kernels.coverage import Integers, check_blocks, check_rows, forward_items, source_tiles
from vidllava.kernels.work import Operands, Work


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SplicePlan:
    """The source of every row of the packed language input. Integers, int32, on one device.

    Raises ValueError, naming the row or the block, unless every row has exactly one source and every block
    is consistent. Build it on the CPU; `to` moves it. Blocks may read the same features (slow and fast
    tokens of one frame) as long as they agree on the tiles these are made of.
    """

    blocks: Tensor
    """[num_blocks, 14], the columns of BLOCK_FIELDS."""
    text: Tensor
    """[num_text, 2]: row, vocabulary id."""
    newlines: Tensor
    """[num_newlines]: rows that hold the newline vector."""
    padding: Tensor
    """[num_padding]: rows of zeros, in the rotary tables too."""
    positions: Tensor
    """[num_rows]: the position id of every row."""
    num_rows: int

    plain: Tensor = field(init=False)
    """[num_text + num_newlines + num_padding, 2]: row, and vocabulary id, -1 (newline) or -2 (zeros)."""
    table_positions: Tensor = field(init=False)
    """[num_rows]: `positions`, with -1 on padding rows."""
    items: Tensor = field(init=False)
    """[num_items, 2]: block, output row; the forward kernel's work list."""
    tiles: Tensor = field(init=False)
    """[num_tiles, 5]: first feature row, height, width, first and last (exclusive) entry in `readers`."""
    readers: Tensor = field(init=False)
    """[num_readers, 3]: block, and the row and column of the tile's first cell in the block's joined map."""
    tile_rows: Tensor = field(init=False)
    """[sum of tile heights, 2]: tile, row of cells; the backward kernel's work list."""
    num_feature_rows: int = field(init=False)
    """Rows that `features` must have at least."""
    num_tile_cells: int = field(init=False)
    """Cells in `tiles`: where it equals the rows of `features`, the backward pass writes every one."""
    num_vocabulary: int = field(init=False)
    """Rows that `embedding` must have at least."""
    uses_max: bool = field(init=False)
    """The backward pass needs the features again, to find the maxima."""

    def __post_init__(self) -> None:
        columns = {"blocks": len(BLOCK_FIELDS), "text": 2, "newlines": 0, "padding": 0, "positions": 0}
        for name, width in columns.items():
            _check_table(name, getattr(self, name), width)
        if self.num_rows < 1:
            raise ValueError(f"num_rows is {self.num_rows}: a plan needs at least one row")
        if self.positions.shape[0] != self.num_rows:
            raise ValueError(f"positions has {self.positions.shape[0]} entries for {self.num_rows} rows")
        blocks, text, newlines, padding = (
            table.numpy().astype(np.int64) for table in (self.blocks, self.text, self.newlines, self.padding)
        )
        check_blocks(blocks)
        check_rows(blocks, text, newlines, padding, self.num_rows)
        for name, values in (("positions", self.positions.numpy()), ("text", text[:, 1])):
            if len(values) and values.min() < 0:
                raise ValueError(f"{name} holds {int(values.min())}: the smallest possible value is 0")
        self._derive(blocks, text, newlines, padding)

    def _derive(self, blocks: Integers, text: Integers, newlines: Integers, padding: Integers) -> None:
        newline = np.stack((newlines, np.full_like(newlines, -1)), 1)
        zeros = np.stack((padding, np.full_like(padding, -2)), 1)
        positions = self.positions.numpy().copy()
        positions[padding] = -1
        tiles, readers, tile_rows = source_tiles(blocks)
        tables = {
            "plain": np.concatenate((text, newline, zeros)),
            "table_positions": positions,
            "items": forward_items(blocks),
            "tiles": tiles,
            "readers": readers,
            "tile_rows": tile_rows,
        }
        counts = {
            "num_feature_rows": int((tiles[:, 0] + tiles[:, 1] * tiles[:, 2]).max()) if len(tiles) else 0,
            "num_tile_cells": int((tiles[:, 1] * tiles[:, 2]).sum()),
            "num_vocabulary": int(text[:, 1].max()) + 1 if len(text) else 0,
            "uses_max": bool((blocks[:, BLOCK_FIELDS.index("mode")] == MODES["max"]).any()),
        }
        tensors = {name: torch.from_numpy(table.astype(np.int32)) for name, table in tables.items()}
        for name, value in (tensors | counts).items():
            object.__setattr__(self, name, value)

    @property
    def device(self) -> torch.device:
        return self.blocks.device

    @property
    def operands(self) -> Operands:
        """What the operators read, all of it on the plan's device."""
        return Operands(*(getattr(self, name) for name in Operands._fields))

    @cached_property
    def work(self) -> Work:
        """The operands and their counts: one object for all calls, so that what it finds out is kept."""
        return Work(self.operands, len(self.text), len(self.newlines), self.num_tile_cells, self.uses_max)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}" for name in ("blocks", "text", "newlines", "padding")
        )
        return f"SplicePlan({self.num_rows} rows: {counts}; on {self.device})"

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SplicePlan:
        """This plan on `device`, in one copy: from pinned memory, unsynchronised, if `non_blocking`."""
        target = torch.device(device)
        if target.type == self.device.type and target.index in (None, self.device.index):
            return self
        names = [name for name, value in vars(self).items() if isinstance(value, Tensor)]
        tables = [getattr(self, name) for name in names]
        packed = torch.cat([table.reshape(-1) for table in tables])
        if non_blocking and target.type == "cuda" and not packed.is_cuda:
            packed = packed.pin_memory()
        parts = packed.to(target, non_blocking=non_blocking).split([table.numel() for table in tables])
        # The tables are known to be right: no second check, which would have to read them back.
        moved = object.__new__(SplicePlan)
        vars(moved).update(vars(self))
        vars(moved).pop("work", None)
        for name, table, part in zip(names, tables, parts, strict=True):
            vars(moved)[name] = part.view(table.shape)
        return moved


def _check_table(name: str, table: Tensor, columns: int) -> None:
    """Raise ValueError unless `table` is int32 on the CPU, of one dimension (`columns` 0) or that wide."""
    shape = f"[n, {columns}]" if columns else "[n]"
    fits = table.ndim == 2 and table.shape[1] == columns if columns else table.ndim == 1
    if table.dtype != torch.int32 or not fits:
        raise ValueError(f"{name} is {table.dtype} {list(table.shape)}, expected torch.int32 {shape}")
    if table.device.type != "cpu":
        raise ValueError(f"{name} is on {table.device}: build a plan on the CPU, then move it with .to()")
