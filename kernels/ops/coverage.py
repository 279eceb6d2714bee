"""Checks that a plan gives every row exactly one source, and which block reads which cell.

Pure integer arithmetic on the plan's tables: the checks of `plan.SplicePlan` and its two work lists.
Everything is vectorised, for plans of tens of thousands of rows; in NumPy, whose calls cost a fraction of
PyTorch's on the few hundred integers of most plans.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vidllava.kernels.block import BLOCK_FIELDS, MODES

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
