"""The rows that one visual gives the language model. Pure arithmetic on sizes.

A visual goes through the vision tower as `num_grids` square pictures; each gives a grid of side x side
feature rows. A `VisualLayout` says how those grids become rows: which window of them, shrunk how, with
newline rows where. The splice kernel follows it and the token budget counts it, so both always agree.
Source of every rule: LLaVA-NeXT `llava/model/llava_arch.py` and `llava/mm_utils.py`, with transformers'
rounding (`models/llava_onevision`).

    video_layout(32, side=27, stride=2, mode="bilinear", newline="one_token").num_tokens     # 6273
    picture_layout(480, 640, side=27, tile_size=384, pinpoints=pinpoints).num_tokens         # 2929
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from vidllava.errors import MediaError, UsageError

PoolMode = Literal["bilinear", "average", "max", "conv"]
"""`conv`: a learned convolution, where the checkpoint holds one (LLaVA-NeXT-Video's `spatial_pool_mode`)."""
PoolAt = Literal["tower", "projected"]
"""Whether the tower's features are pooled, and then projected, or the projected ones."""
NewlineMode = Literal["one_token", "grid", "frame", "no_token"]
Pinpoints = Sequence[tuple[int, int]]

# A picture's grid is shrunk only where it is this much larger than the cap, per side.
CAP_TOLERANCE = 1.1

_BLOCK_NEWLINE: dict[NewlineMode, Literal["none", "row", "end"]] = {
    "grid": "row",
    "frame": "end",
    "one_token": "none",
    "no_token": "none",
}


@dataclass(frozen=True)
class Block:
    """One window of tower outputs that becomes one rectangle of rows, read row by row.

    `tiles_y` x `tiles_x` grids of `tile_h` x `tile_w` cells, the first being number `first_grid` of the
    visual, are joined row-major into one map; its window at (`crop_y`, `crop_x`) of `in_h` x `in_w` cells
    becomes `out_h` x `out_w` rows. `bilinear` maps in to out with half-pixel centres and no antialiasing;
    `average`, `max` and `conv` take windows of `stride` x `stride` cells and drop an incomplete last one;
    `copy` has out = in.
    """

    first_grid: int
    tile_h: int
    tile_w: int
    tiles_y: int
    tiles_x: int
    crop_y: int
    crop_x: int
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    mode: Literal["copy", "bilinear", "average", "max", "conv"]
    stride: int
    newline: Literal["none", "row", "end"]  # row: one after each output row; end: one after the block

    @property
    def num_visual_tokens(self) -> int:
        """Rows that hold features."""
        return self.out_h * self.out_w

    @property
    def num_newline_tokens(self) -> int:
        """Rows that hold the learned newline vector."""
        return {"none": 0, "row": self.out_h, "end": 1}[self.newline]

    @property
    def num_tokens(self) -> int:
        """All rows of the block."""
        return self.num_visual_tokens + self.num_newline_tokens


@dataclass(frozen=True)
class VisualLayout:
    """The rows of one visual: its blocks in order, then one newline row if `trailing_newline`.

    `kind` is "video", "picture" (alone in its prompt: AnyRes tiles) or "pictures" (one square of several).
    """

    kind: Literal["video", "picture", "pictures"]
    num_grids: int
    blocks: tuple[Block, ...]
    trailing_newline: bool = False
    pool_at: PoolAt = "projected"

    @property
    def num_visual_tokens(self) -> int:
        """Rows that hold features."""
        return sum(block.num_visual_tokens for block in self.blocks)

    @property
    def num_newline_tokens(self) -> int:
        """Rows that hold the learned newline vector."""
        return sum(block.num_newline_tokens for block in self.blocks) + int(self.trailing_newline)

    @property
    def num_tokens(self) -> int:
        """All rows of the visual: what it costs in the language model's context."""
        return self.num_visual_tokens + self.num_newline_tokens


def pooled_side(side: int, *, stride: int, mode: PoolMode) -> int:
    """Side of a grid after pooling: ceil(side / stride) for bilinear, floor for average, max and conv.

    Raises UsageError for a stride below 1, an unknown mode, or a stride that leaves no cell.
    """
    if mode not in get_args(PoolMode):
        raise UsageError(f"--pool-mode {mode}", "no such mode", f"one of {', '.join(get_args(PoolMode))}")
    if stride < 1:
        raise UsageError(f"--pool-stride {stride}", "must be 1 (no pooling) or more", "1 or 2")
    # Bilinear never reaches 0 cells, but a stride beyond the grid is surely a slip there too.
    if stride > side:
        raise UsageError(
            f"--pool-stride {stride}", f"a frame has only {side}x{side} cells", f"at most {side}"
        )
    return math.ceil(side / stride) if mode == "bilinear" else side // stride


def _whole_grid(first_grid: int, side: int, newline: Literal["none", "row", "end"]) -> Block:
    return Block(first_grid, side, side, 1, 1, 0, 0, side, side, side, side, "copy", 1, newline)


def video_layout(
    num_frames: int, *, side: int, stride: int, mode: PoolMode, newline: NewlineMode
) -> VisualLayout:
    """The rows of a video of `num_frames` frames, each a grid of `side` x `side` cells.

    Tokens for F frames pooled to h x w: grid F*h*(w+1), frame F*(h*w+1), one_token F*h*w+1, no_token F*h*w.
    Raises UsageError for values that cannot be meant.
    """
    if num_frames < 1:
        raise UsageError(f"--num-frames {num_frames}", "a video needs at least one frame", "for example 8")
    if newline not in get_args(NewlineMode):
        raise UsageError(
            f"newline mode {newline}", "no such mode", f"one of {', '.join(get_args(NewlineMode))}"
        )
    pooled = pooled_side(side, stride=stride, mode=mode)
    pool: Literal["copy", "bilinear", "average", "max", "conv"] = mode
    if stride == 1 and mode != "conv":  # a convolution of one cell still changes it
        pool = "copy"
    after = _BLOCK_NEWLINE[newline]
    blocks = tuple(
        Block(frame, side, side, 1, 1, 0, 0, side, side, pooled, pooled, pool, stride, after)
        for frame in range(num_frames)
    )
    return VisualLayout("video", num_frames, blocks, trailing_newline=newline == "one_token")


def square_layout(*, side: int) -> VisualLayout:
    """The rows of one of several pictures: one padded square, side*side rows and one newline."""
    return VisualLayout("pictures", 1, (_whole_grid(0, side, "end"),))


def whole_layout(*, side: int) -> VisualLayout:
    """The rows of a picture that is seen once, without tiles: side*side rows, as in stage 1 of training."""
    return VisualLayout("picture", 1, (_whole_grid(0, side, "none"),))


def best_resolution(height: int, width: int, pinpoints: Pinpoints) -> tuple[int, int]:
    """The (height, width) of `pinpoints` on which a picture of this size keeps most pixels.

    Most effective pixels first, then fewest wasted, then the order of the list: transformers'
    `select_best_resolution`. Raises MediaError for a picture with no area or too thin for every candidate.
    """
    if height < 1 or width < 1:
        raise MediaError(f"picture of {width}x{height} pixels", "has no area", "give another picture")
    if not pinpoints:
        raise UsageError("AnyRes resolutions", "the list is empty", "the checkpoint's image_grid_pinpoints")
    best: tuple[int, int] | None = None
    best_effective, least_wasted = 0, math.inf
    for candidate_h, candidate_w in pinpoints:
        scale = min(candidate_w / width, candidate_h / height)
        # Truncated, not rounded: a different choice here reads the tiles of another picture shape.
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = candidate_h * candidate_w - effective
        if effective > best_effective or (effective == best_effective and wasted < least_wasted):
            best, best_effective, least_wasted = (candidate_h, candidate_w), effective, wasted
    if best is None or best_effective == 0:
        raise _too_thin(height, width)
    return best


def _too_thin(height: int, width: int) -> MediaError:
    return MediaError(f"picture of {width}x{height} pixels", "too thin for AnyRes tiles", "crop it")


def _unpadded(height: int, width: int, map_h: int, map_w: int) -> tuple[int, int, int, int]:
    """The window (y, x, h, w) of a map_h x map_w map that a centred picture of height x width pixels covers.

    The padding is the same on both sides, so an odd remainder keeps one row of padding. Rounding to 7 digits
    before truncation is transformers'; LLaVA-NeXT lacks it and differs on rare sizes (1872x832).
    """
    if width / height > map_w / map_h:
        pad = (map_h - int(round(height * (map_w / width), 7))) // 2
        return pad, 0, map_h - 2 * pad, map_w
    pad = (map_w - int(round(width * (map_h / height), 7))) // 2
    return 0, pad, map_h, map_w - 2 * pad


def picture_layout(
    height: int, width: int, *, side: int, tile_size: int, pinpoints: Pinpoints, max_tiles: int | None = 9
) -> VisualLayout:
    """The rows of a picture that is alone in its prompt: base view, then the un-padded AnyRes tiles.

    `height` and `width` are the picture's in pixels, `tile_size` a tile's, `pinpoints` the canvas sizes
    (height, width) in pixels. The base view gives side*side rows; the tiles, joined and un-padded to h x w
    cells, give h*(w+1). Where t = sqrt(h*w / (max_tiles*side^2)) exceeds 1.1, h x w first shrinks to
    int(h//t) x int(w//t); `max_tiles=None` never shrinks. Raises MediaError for a picture that is too thin.
    """
    best_h, best_w = best_resolution(height, width, pinpoints)
    tiles_y, tiles_x = best_h // tile_size, best_w // tile_size
    crop_y, crop_x, in_h, in_w = _unpadded(height, width, tiles_y * side, tiles_x * side)
    out_h, out_w = in_h, in_w
    if max_tiles is not None:
        shrink = math.sqrt(in_h * in_w / (max_tiles * side**2))
        if shrink > CAP_TOLERANCE:
            out_h, out_w = int(in_h // shrink), int(in_w // shrink)
    if min(out_h, out_w) < 1:
        raise _too_thin(height, width)
    mode: Literal["copy", "bilinear"] = "copy" if (out_h, out_w) == (in_h, in_w) else "bilinear"
    tiles = Block(1, side, side, tiles_y, tiles_x, crop_y, crop_x, in_h, in_w, out_h, out_w, mode, 1, "row")
    return VisualLayout("picture", 1 + tiles_y * tiles_x, (_whole_grid(0, side, "none"), tiles))


def parse_pinpoints(text: str, tile_size: int) -> tuple[tuple[int, int], ...]:
    """Canvas sizes (height, width) in pixels from "(1x1),...,(6x6)" or "(1x2),(2x1),(2x2)".

    A pair is columns x rows of tiles. With "..." every grid between the first and the last pair counts, in
    the order of transformers' configuration (by height, then width). Raises UsageError naming the text.
    """
    pair = r"\(\s*([1-9]\d?)\s*x\s*([1-9]\d?)\s*\)"
    pairs = [(int(columns), int(rows)) for columns, rows in re.findall(pair, text)]
    is_range = re.fullmatch(rf"\s*{pair}\s*,\s*\.\.\.\s*,\s*{pair}\s*", text) is not None
    is_list = re.fullmatch(rf"\s*{pair}(\s*,\s*{pair})*\s*", text) is not None
    if not (is_range or is_list):
        raise UsageError(
            f"AnyRes grids {text!r}", "cannot be read", 'write "(1x1),...,(6x6)" or "(1x2),(2x2)"'
        )
    if is_range:
        (first_columns, first_rows), (last_columns, last_rows) = pairs
        pairs = [
            (columns, rows)
            for rows in range(first_rows, last_rows + 1)
            for columns in range(first_columns, last_columns + 1)
        ]
        if not pairs:
            raise UsageError(
                f"AnyRes grids {text!r}",
                "the last grid is smaller than the first",
                "for example (1x1),...,(6x6)",
            )
    return tuple((rows * tile_size, columns * tile_size) for columns, rows in pairs)
