"""What is a block? One rectangle of source cells that becomes one rectangle of rows."""

from __future__ import annotations

from typing import NamedTuple

MODES = {"copy": 0, "bilinear": 1, "average": 2, "max": 3}


class Block(NamedTuple):
    """One row of `SplicePlan.blocks`.

    A block sees ``tiles_x`` tiles side by side, and as many below each other as its window needs, as one
    joined map. Cell (Y, X) of that map is feature row ``src_row + ((Y // tile_h) * tiles_x + X // tile_w)
    * tile_h * tile_w + (Y % tile_h) * tile_w + X % tile_w``. The block reads the window of ``in_h`` x
    ``in_w`` cells at (``crop_y``, ``crop_x``); its output (y, x) is row ``dst_row + y * dst_stride + x``.
    """

    src_row: int
    tile_h: int
    tile_w: int
    tiles_x: int
    crop_y: int
    crop_x: int
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    mode: int
    stride: int
    dst_row: int
    dst_stride: int


BLOCK_FIELDS = Block._fields
