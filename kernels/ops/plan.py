"""The plan: where every row of the packed input comes from, built on the CPU while tokenising.

    plan = SplicePlan(blocks=..., text=..., newlines=..., padding=..., positions=..., num_rows=...)
    plan = plan.to("cuda", non_blocking=True)      # one copy for all its tables

Integers only: no mask, no scan of ids, nothing read back from the device. A plan is checked when it is
built, so the kernels need not check anything. `kernels/README.md` has the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidllava.kernels.block import BLOCK_FIELDS, MODES
from vidllava.kernels.work import Operands, Work

Integers = npt.NDArray[np.int64]


def check_blocks(blocks: Integers) -> None:
    """Raise ValueError, naming the first block at fault, unless every block's own numbers agree."""
    src, tile_h, tile_w, tiles_x, crop_y, crop_x, in_h, in_w, out_h, out_w, mode, stride, dst, pitch = (
        blocks.T
    )
    copies, pools = mode == MODES["copy"], mode >= MODES["average"]
    same = (in_h == out_h) & (in_w == out_w) & (stride == 1)
    step = np.maximum(stride, 1)
    floored = (out_h == in_h // step) & (out_w == in_w // step)
    sizes, places = (tile_h, tile_w, tiles_x, in_h, in_w, out_h, out_w, stride), (src, crop_y, crop_x, dst)
    rules = (
        (np.minimum.reduce(sizes) < 1, "a size or a stride below 1"),
        (np.minimum.reduce(places) < 0, "a negative row or crop"),
        ((mode < 0) | (mode >= len(MODES)), f"a mode that is none of {MODES}"),
        (crop_x + in_w > tiles_x * tile_w, "a window that is wider than its tiles"),
        (pitch < out_w, "a dst_stride below out_w: its rows would overlap"),
        (copies & ~same, "mode copy with a stride or with different sizes in and out"),
        (pools & ~floored, "an average or max whose output is not the floor of input / stride"),
    )
    for wrong, what in rules:
        if wrong.any():
            index = int(wrong.argmax())
            raise ValueError(f"block {index} has {what}: {blocks[index].tolist()}")


def check_rows(
    blocks: Integers, text: Integers, newlines: Integers, padding: Integers, num_rows: int
) -> None:
    """Raise ValueError, naming the first row at fault, unless each of `num_rows` rows has one source."""
    written = np.concatenate((_block_rows(blocks), text[:, 0], newlines, padding))
    outside = (written < 0) | (written >= num_rows)
    if outside.any():
        raise ValueError(f"row {int(written[outside][0])} is outside the plan's 0 to {num_rows - 1}")
    times = np.bincount(written, minlength=num_rows)
    if (times != 1).any():
        row = int((times != 1).argmax())
        raise ValueError(f"row {row} has {int(times[row])} sources, every row needs exactly one")


def forward_items(blocks: Integers) -> Integers:
    """[num_items, 2]: block, output row; one item for each row of each block's output."""
    return np.stack(_ragged(blocks[:, BLOCK_FIELDS.index("out_h")]), 1)


def source_tiles(blocks: Integers) -> tuple[Integers, Integers, Integers]:
    """The tiles that blocks read, who reads them, and the tiles' rows (see `SplicePlan` for the columns).

    Raises ValueError where two blocks cut the same features into different tiles: the gradient of a cell
    is gathered from the blocks that read its tile, in their order, so a tile must be one thing to all.
    """
    src, tile_h, tile_w, tiles_x, crop_y, crop_x, in_h, in_w = blocks[:, :8].T
    first_y, first_x = crop_y // tile_h, crop_x // tile_w
    count_y = (crop_y + in_h - 1) // tile_h - first_y + 1
    count_x = (crop_x + in_w - 1) // tile_w - first_x + 1
    block, inner = _ragged(count_y * count_x)
    tile_y = first_y[block] + inner // count_x[block]
    tile_x = first_x[block] + inner % count_x[block]
    height, width = tile_h[block], tile_w[block]
    start = src[block] + (tile_y * tiles_x[block] + tile_x) * height * width
    order = np.argsort(start, kind="stable")
    readers = np.stack((block, tile_y * height, tile_x * width), 1)[order]
    shape = np.stack((start, height, width), 1)[order]
    # The first reader of each tile: where a row differs from the one before it.
    begins = np.flatnonzero(np.append(True, (shape[1:] != shape[:-1]).any(1))[: len(shape)])
    shape = shape[begins]
    ends = shape[:, 0] + shape[:, 1] * shape[:, 2]
    clash = np.flatnonzero(ends[:-1] > shape[1:, 0])
    if len(clash):
        first, second = shape[clash[0]].tolist(), shape[clash[0] + 1].tolist()
        raise ValueError(
            f"blocks cut the same features into different tiles (first row, height, width): {first}, {second}"
        )
    stop = np.append(begins[1:], len(readers))[: len(begins)]
    tiles = np.column_stack((shape, begins, stop))
    return tiles, readers, np.stack(_ragged(tiles[:, 1]), 1)


def _block_rows(blocks: Integers) -> Integers:
    """Every row that a block writes, block by block."""
    names = ("out_h", "out_w", "dst_row", "dst_stride")
    out_h, out_w, dst, pitch = (blocks[:, BLOCK_FIELDS.index(name)] for name in names)
    block, inner = _ragged(out_h * out_w)
    return dst[block] + inner // out_w[block] * pitch[block] + inner % out_w[block]


def _ragged(counts: Integers) -> tuple[Integers, Integers]:
    """For counts (2, 3): owner (0, 0, 1, 1, 1) and index within the owner (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    starts = counts.cumsum() - counts
    return owner, np.arange(len(owner)) - starts[owner]


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
