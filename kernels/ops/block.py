"""A block: a rectangle of source cells that becomes one of rows; its fields, modes, weights; and rotation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MODES = {"copy": 0, "bilinear": 1, "average": 2, "max": 3}


class PlanBlock(NamedTuple):
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


BLOCK_FIELDS = PlanBlock._fields


def axis_taps(size_in: int, size_out: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The two inputs that each output reads, and the weight of the second.

    Returns ``first`` and ``second`` int64 [size_out] (equal at the border) and ``weight`` of `dtype`
    [size_out]; the weight of the first is 1 - weight.
    """
    scale = torch.tensor(size_in, dtype=dtype) / size_out
    real = (scale * (torch.arange(size_out, dtype=dtype) + 0.5) - 0.5).clamp(min=0)
    first = real.long().clamp(max=size_in - 1)
    second = (first + 1).clamp(max=size_in - 1)
    return first, second, (real - first).clamp(0, 1)


def axis_matrix(size_in: int, size_out: int, dtype: torch.dtype) -> Tensor:
    """[size_out, size_in]: the weights as a matrix, for reading and for checking."""
    first, second, weight = axis_taps(size_in, size_out, dtype)
    output = torch.arange(size_out)
    matrix = torch.zeros(size_out, size_in, dtype=dtype)
    matrix.index_put_((output, first), 1 - weight, accumulate=True)
    return matrix.index_put_((output, second), weight, accumulate=True)


def rotary_tables(
    positions: Tensor, inv_freq: Tensor, *, factor: float, attention_scaling: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos and sin of position * (inv_freq / factor), times `attention_scaling`.

    positions   integers [...], or the same as fp32
    inv_freq    fp32 [R / 2]

    Returns two tables of `dtype` [..., R] whose halves are equal, which is the layout that transformers'
    rotate_half expects. The angle is computed in fp32 and rounded once.
    """
    # Dividing and multiplying by 1 changes nothing but the time of a decode step.
    frequency = inv_freq.float() if factor == 1 else inv_freq.float() / factor
    angle = positions.unsqueeze(-1) * frequency
    cos, sin = angle.cos(), angle.sin()
    if attention_scaling != 1:
        cos, sin = cos * attention_scaling, sin * attention_scaling
    if dtype != torch.float32:
        cos, sin = cos.to(dtype), sin.to(dtype)
    return torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
