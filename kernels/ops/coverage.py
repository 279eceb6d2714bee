"""Does a plan give every row exactly one source, and which block reads which cell?

Pure integer arithmetic on the plan's tables: the checks of `plan.SplicePlan` and its two work lists.
Everything is vectorised, for plans of tens of thousands of rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidllava.kernels.block import BLOCK_FIELDS, MODES, columns


def check_blocks(blocks: Tensor) -> None:
    """Raise ValueError, naming the first block at fault, unless every block's own numbers agree."""
    src, tile_h, tile_w, tiles_x, crop_y, crop_x, in_h, in_w, out_h, out_w, mode, stride, dst, pitch = (
        columns(blocks, *BLOCK_FIELDS)
    )
    sizes = torch.stack((tile_h, tile_w, tiles_x, in_h, in_w, out_h, out_w, stride))
    copies, pools = mode == MODES["copy"], mode >= MODES["average"]
    same = (in_h == out_h) & (in_w == out_w) & (stride == 1)
    floored = (out_h == in_h // stride.clamp(min=1)) & (out_w == in_w // stride.clamp(min=1))
    rules = (
        ((sizes < 1).any(0), "a size or a stride below 1"),
        (torch.stack((src, crop_y, crop_x, dst)).lt(0).any(0), "a negative row or crop"),
        ((mode < 0) | (mode >= len(MODES)), f"a mode that is none of {MODES}"),
        (crop_x + in_w > tiles_x * tile_w, "a window that is wider than its tiles"),
        (pitch < out_w, "a dst_stride below out_w: its rows would overlap"),
        (copies & ~same, "mode copy with a stride or with different sizes in and out"),
        (pools & ~floored, "an average or max whose output is not the floor of input / stride"),
    )
    for wrong, what in rules:
        if bool(wrong.any()):
            index = int(wrong.nonzero()[0, 0])
            raise ValueError(f"block {index} has {what}: {blocks[index].tolist()}")


def check_rows(blocks: Tensor, text: Tensor, newlines: Tensor, padding: Tensor, num_rows: int) -> None:
    """Raise ValueError, naming the first row at fault, unless each of `num_rows` rows has one source."""
    written = torch.cat((_block_rows(blocks), text[:, 0].long(), newlines.long(), padding.long()))
    outside = (written < 0) | (written >= num_rows)
    if bool(outside.any()):
        raise ValueError(f"row {int(written[outside][0])} is outside the plan's 0 to {num_rows - 1}")
    times = torch.bincount(written, minlength=num_rows)
    if bool((times != 1).any()):
        row = int((times != 1).nonzero()[0, 0])
        raise ValueError(f"row {row} has {int(times[row])} sources, every row needs exactly one")


def forward_items(blocks: Tensor) -> Tensor:
    """[num_items, 2] int32: block, output row; one item for each row of each block's output."""
    return torch.stack(_ragged(*columns(blocks, "out_h")), 1).int()


def source_tiles(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tiles that blocks read, who reads them, and the tiles' rows (see `SplicePlan` for the columns).

    Raises ValueError where two blocks cut the same features into different tiles: the gradient of a cell
    is gathered from the blocks that read its tile, in their order, so a tile must be one thing to all.
    """
    src, tile_h, tile_w, tiles_x, crop_y, crop_x, in_h, in_w = columns(blocks, *BLOCK_FIELDS[:8])
    first_y, first_x = crop_y // tile_h, crop_x // tile_w
    count_y = (crop_y + in_h - 1) // tile_h - first_y + 1
    count_x = (crop_x + in_w - 1) // tile_w - first_x + 1
    block, inner = _ragged(count_y * count_x)
    tile_y = first_y[block] + inner // count_x[block]
    tile_x = first_x[block] + inner % count_x[block]
    height, width = tile_h[block], tile_w[block]
    start = src[block] + (tile_y * tiles_x[block] + tile_x) * height * width
    order = torch.argsort(start, stable=True)
    readers = torch.stack((block, tile_y * height, tile_x * width), 1)[order]
    shape = torch.stack((start, height, width), 1)[order]
    shape, counts = torch.unique_consecutive(shape, dim=0, return_counts=True)
    ends = shape[:, 0] + shape[:, 1] * shape[:, 2]
    clash = (ends[:-1] > shape[1:, 0]).nonzero()
    if len(clash):
        first, second = shape[clash[0, 0]].tolist(), shape[clash[0, 0] + 1].tolist()
        raise ValueError(
            f"blocks cut the same features into different tiles (first row, height, width): {first}, {second}"
        )
    stop = counts.cumsum(0)
    tiles = torch.cat((shape, torch.stack((stop - counts, stop), 1)), 1)
    return tiles.int(), readers.int(), torch.stack(_ragged(tiles[:, 1]), 1).int()


def _block_rows(blocks: Tensor) -> Tensor:
    """Every row that a block writes, block by block, int64."""
    out_h, out_w, dst, pitch = columns(blocks, "out_h", "out_w", "dst_row", "dst_stride")
    block, inner = _ragged(out_h * out_w)
    return dst[block] + inner // out_w[block] * pitch[block] + inner % out_w[block]


def _ragged(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (2, 3): owner (0, 0, 1, 1, 1) and index within the owner (0, 1, 0, 1, 2)."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    starts = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner)) - starts[owner]
