"""The definition of both operators in plain PyTorch, written to be read. Autograd gives the gradients.

Everything faster (`splice_torch`, `splice_triton`, `rotate_torch`, `rotate_triton`) is tested against this
file, in float64. Legend: N feature rows, S rows of the packed input, D channels, V vocabulary,
B batch, H heads, R <= D rotated channels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from vidllava.kernels.block import MODES, PlanBlock, axis_matrix, rotary_tables
from vidllava.kernels.plan import SplicePlan


def splice_reference(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    plan: SplicePlan,
    inv_freq: Tensor,
    *,
    factor: float = 1.0,
    attention_scaling: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """rows [S, D], cos [S, R], sin [S, R]: see `api.splice`."""
    rows = torch.zeros(plan.num_rows, embedding.shape[1], dtype=embedding.dtype)
    if len(plan.text):
        rows = rows.index_copy(0, plan.text[:, 0].long(), embedding[plan.text[:, 1].long()])
    if len(plan.newlines):
        rows = rows.index_copy(0, plan.newlines.long(), newline.to(rows.dtype).expand(len(plan.newlines), -1))
    for fields in plan.blocks.tolist():
        block = PlanBlock(*fields)
        pooled = pool_block(window(features, block), block).to(rows.dtype)
        y, x = torch.arange(block.out_h)[:, None], torch.arange(block.out_w)[None]
        rows = rows.index_copy(0, (block.dst_row + y * block.dst_stride + x).flatten(), pooled.flatten(0, 1))
    cos, sin = rotary_tables(
        plan.positions, inv_freq, factor=factor, attention_scaling=attention_scaling, dtype=rows.dtype
    )
    padding = plan.padding.long()
    return rows, cos.index_fill(0, padding, 0.0), sin.index_fill(0, padding, 0.0)


def window(features: Tensor, block: PlanBlock) -> Tensor:
    """[in_h, in_w, D]: the cells that a block reads, out of the map that its tiles form."""
    y = block.crop_y + torch.arange(block.in_h)[:, None]
    x = block.crop_x + torch.arange(block.in_w)[None]
    tile = (y // block.tile_h) * block.tiles_x + x // block.tile_w
    cell = (y % block.tile_h) * block.tile_w + x % block.tile_w
    return features[block.src_row + tile * block.tile_h * block.tile_w + cell]


def pool_block(cells: Tensor, block: PlanBlock) -> Tensor:
    """[in_h, in_w, D] -> [out_h, out_w, D]: bilinear, average or max; a copy where the stride is 1."""
    if block.mode == MODES["copy"]:
        return cells
    if block.mode == MODES["bilinear"]:
        down = axis_matrix(block.in_h, block.out_h, torch.float64).to(cells.dtype)
        across = axis_matrix(block.in_w, block.out_w, torch.float64).to(cells.dtype)
        return torch.einsum("yi,xj,ijd->yxd", down, across, cells)
    k = block.stride
    whole = cells[: block.out_h * k, : block.out_w * k]
    squares = rearrange(whole, "(y i) (x j) d -> y x (i j) d", i=k, j=k)
    # Where several cells share the maximum, torch.max names the first, in reading order, as max_pool2d does.
    return squares.mean(2) if block.mode == MODES["average"] else squares.max(2).values


def rotate_reference(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q [B, H, S, D] and k [B, Hkv, S, D] rotated by cos and sin [B or 1, S, R]: see `api.rotate`."""
    return _rotate_one(q, cos, sin), _rotate_one(k, cos, sin)


def _rotate_one(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1] // 2
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    c, s = cos[:, None, :, :half], sin[:, None, :, :half]
    return torch.cat((first * c - second * s, second * c + first * s, rest), -1)
