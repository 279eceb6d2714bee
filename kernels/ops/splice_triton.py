"""Splice in Triton: one launch builds every row of the packed input and its rotary table; one, the gradient.

A program makes one row of one block's output, for BLOCK_C channels: it reads that row's source cells once,
in runs of BLOCK_C elements, and writes its outputs. The programs after those gather text, newline and
padding rows; the last ones write the tables. The backward pass is a gather too: a program owns one row of
one tile and adds up, in a fixed order, the outputs that read each of its cells. So nothing is cleared
first, nothing is added atomically, and two runs are equal. Legend as in `reference.py`.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidllava.kernels.block import MODES
from vidllava.kernels.pool_triton import (
    average_cells,
    bilinear_cells,
    bilinear_gradient,
    load_block,
    load_cells,
    load_rows,
    max_cells,
    square_gradient,
)
from vidllava.kernels.work import Work

COPY, BILINEAR, AVERAGE = (tl.constexpr(MODES[mode]) for mode in ("copy", "bilinear", "average"))
# Cells that a program handles at a time: the 14 outputs of a row of OneVision's 27 -> 14 fit in one go.
BLOCK_X = 16
# Rows that one program gathers, or writes the tables of.
BLOCK_R = 16
# Channels of one program: 256 bytes of a row, 128 of bf16. 896 = 7 * 128 and 3584 = 28 * 128 need no mask.
BLOCK_BYTES = 256


@triton.jit
def _store_rows(rows, stride, row, channel, mask, values):
    offset = row.to(tl.int64)[:, None] * stride + channel[None, :]
    tl.store(rows + offset, values.to(rows.dtype.element_ty), mask=mask)


@triton.jit
def _pool(
    features, strides, rows, row_stride, blocks, items, item, channel, live,
    BLOCK_X: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """One row of one block's output."""
    y = tl.load(items + 2 * item + 1)
    source, window, output, mode, stride = load_block(blocks, tl.load(items + 2 * item))
    out_w, dst, pitch = output[1], output[2], output[3]
    corner_y = window[0] + y * stride
    for start in range(0, out_w, BLOCK_X):
        x = start + tl.arange(0, BLOCK_X)
        corner_x = window[1] + x * stride
        mask = (x < out_w)[:, None] & live[None, :]
        if mode == BILINEAR:
            values = bilinear_cells(features, strides, source, window, output, y, x, channel, mask, DTYPE)
        elif mode == COPY:
            values = load_cells(features, strides, source, corner_y, corner_x, channel, mask, DTYPE)
        elif mode == AVERAGE:
            values = average_cells(
                features, strides, source, corner_y, corner_x, stride, channel, mask, DTYPE
            )  # fmt: skip
        else:
            values = max_cells(features, strides, source, corner_y, corner_x, stride, channel, mask, DTYPE)[0]
        _store_rows(rows, row_stride, dst + y * pitch + x, channel, mask, values)


@triton.jit
def _gather(
    embedding, strides, newline, newline_stride, rows, row_stride, plain, num_plain, group, channel, live,
    BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Text rows from the embedding, newline rows from the newline vector, padding rows as zeros."""
    entry = group * BLOCK_R + tl.arange(0, BLOCK_R)
    at = tl.load(plain + 2 * entry, mask=entry < num_plain, other=0)
    source = tl.load(plain + 2 * entry + 1, mask=entry < num_plain, other=-2)
    mask = (entry < num_plain)[:, None] & live[None, :]
    values = load_rows(
        embedding, strides, source, channel, mask & (source >= 0)[:, None], rows.dtype.element_ty
    )
    line = tl.load(newline + channel * newline_stride, mask=live, other=0.0).to(values.dtype)
    _store_rows(rows, row_stride, at, channel, mask, tl.where((source == -1)[:, None], line[None, :], values))


@triton.jit
def _tabulate(
    cos, sin, inv_freq, positions, num_rows, factor, scaling, group,
    HALF: tl.constexpr, HALF_PAD: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Both halves of the rotary tables of BLOCK_R rows; zeros on padding rows, whose position is -1."""
    row = group * BLOCK_R + tl.arange(0, BLOCK_R)
    i = tl.arange(0, HALF_PAD).to(tl.int64)
    position = tl.load(positions + row, mask=row < num_rows, other=-1)
    frequency = tl.div_rn(tl.load(inv_freq + i, mask=i < HALF, other=0.0), factor)
    angle = position.to(tl.float32)[:, None] * frequency[None, :]
    kept = tl.where(position < 0, 0.0, scaling)[:, None]
    offset = row.to(tl.int64)[:, None] * (2 * HALF) + i[None, :]
    mask = (row < num_rows)[:, None] & (i < HALF)[None, :]
    c = (tl.cos(angle) * kept).to(cos.dtype.element_ty)
    s = (tl.sin(angle) * kept).to(sin.dtype.element_ty)
    tl.store(cos + offset, c, mask=mask)
    tl.store(cos + (offset + HALF), c, mask=mask)
    tl.store(sin + offset, s, mask=mask)
    tl.store(sin + (offset + HALF), s, mask=mask)


@triton.jit
def splice_kernel(
    # Outputs, contiguous
    rows, cos, sin,
    # Inputs
    features, embedding, newline, inv_freq, blocks, plain, positions, items,
    # Sizes
    num_items, num_plain, num_rows, channels, factor, scaling,
    # Strides
    features_row, features_channel, embedding_row, embedding_channel, newline_channel,
    # Meta-parameters
    HALF: tl.constexpr, HALF_PAD: tl.constexpr,
    BLOCK_X: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Programs: [item][channel block], then [group of plain rows][channel block], then [group of tables]."""
    program = tl.program_id(0)
    slices = tl.cdiv(channels, BLOCK_C)
    group, part = program // slices, program % slices
    channel = part * BLOCK_C + tl.arange(0, BLOCK_C).to(tl.int64)
    live = channel < channels
    gathers = tl.cdiv(num_plain, BLOCK_R)
    if group < num_items:
        strides = (features_row, features_channel)
        _pool(features, strides, rows, channels, blocks, items, group, channel, live, BLOCK_X, DTYPE)
    elif group < num_items + gathers:
        strides = (embedding_row, embedding_channel)
        _gather(
            embedding, strides, newline, newline_channel, rows, channels, plain, num_plain,
            group - num_items, channel, live, BLOCK_R,
        )  # fmt: skip
    else:
        group = program - (num_items + gathers) * slices
        _tabulate(cos, sin, inv_freq, positions, num_rows, factor, scaling, group, HALF, HALF_PAD, BLOCK_R)


@triton.jit
def splice_backward_kernel(
    # Output, contiguous
    gradient,
    # Inputs
    grad_rows, features, blocks, tiles, readers, tile_rows,
    # Sizes and strides
    channels, grad_row, grad_channel, features_row, features_channel,
    # Meta-parameters
    USES_MAX: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Programs: [row of a tile][channel block]."""
    slices = tl.cdiv(channels, BLOCK_C)
    item, part = tl.program_id(0) // slices, tl.program_id(0) % slices
    channel = part * BLOCK_C + tl.arange(0, BLOCK_C).to(tl.int64)
    tile, row = tl.load(tile_rows + 2 * item), tl.load(tile_rows + 2 * item + 1)
    start, width = tl.load(tiles + 5 * tile), tl.load(tiles + 5 * tile + 2)
    first, last = tl.load(tiles + 5 * tile + 3), tl.load(tiles + 5 * tile + 4)
    upstream, strides = (grad_row, grad_channel), (features_row, features_channel)
    for column in range(0, width, BLOCK_X):
        cell = column + tl.arange(0, BLOCK_X)
        mask = (cell < width)[:, None] & (channel < channels)[None, :]
        total = tl.zeros((BLOCK_X, BLOCK_C), DTYPE)
        for reader in range(first, last):
            source, window, output, mode, stride = load_block(blocks, tl.load(readers + 3 * reader))
            crop_y, crop_x, in_h, in_w = window
            # The cell's place in the window. Rows and columns that fill no square are read by no output.
            y = tl.load(readers + 3 * reader + 1) + row - crop_y
            x = tl.load(readers + 3 * reader + 2) + cell - crop_x
            used_h = tl.where(mode == BILINEAR, in_h, output[0] * stride)
            used_w = tl.where(mode == BILINEAR, in_w, output[1] * stride)
            if (y >= 0) & (y < used_h):
                inside = mask & ((x >= 0) & (x < used_w))[:, None]
                if mode == BILINEAR:
                    total += bilinear_gradient(
                        grad_rows, upstream, window, output, y, x, channel, inside, DTYPE
                    )  # fmt: skip
                else:
                    total += square_gradient(
                        grad_rows, upstream, features, strides,
                        source, window, output, mode, stride, y, x, channel, inside, AVERAGE, USES_MAX, DTYPE,
                    )  # fmt: skip
        _store_rows(gradient, channels, start + row * width + cell, channel, mask, total)


def splice(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    inv_freq: Tensor,
    work: Work,
    *,
    factor: float,
    attention_scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """rows, cos and sin: see `api.splice`."""
    operands = work.operands
    num_rows, channels = len(operands.table_positions), embedding.shape[1]
    half = inv_freq.shape[0]
    rows = embedding.new_empty(num_rows, channels)
    cos, sin = (embedding.new_empty(num_rows, 2 * half) for _ in range(2))
    block_c = _block_c(rows)
    num_items, num_plain = len(operands.items), len(operands.plain)
    groups = num_items + triton.cdiv(num_plain, BLOCK_R)
    programs = groups * triton.cdiv(channels, block_c) + triton.cdiv(num_rows, BLOCK_R)
    with _on(rows):
        splice_kernel[(programs,)](
            rows, cos, sin,
            features, embedding, newline, inv_freq.float().contiguous(),
            operands.blocks, operands.plain, operands.table_positions, operands.items,
            num_items, num_plain, num_rows, channels, float(factor), float(attention_scaling),
            *features.stride(), *embedding.stride(), newline.stride(0),
            HALF=half, HALF_PAD=triton.next_power_of_2(half),
            BLOCK_X=BLOCK_X, BLOCK_R=BLOCK_R, BLOCK_C=block_c, DTYPE=_compute_dtype(features, embedding),
            enable_fp_fusion=False,
        )  # fmt: skip
    return rows, cos, sin


def splice_backward(
    grad_rows: Tensor, features: Tensor | None, work: Work, num_feature_rows: int, dtype: torch.dtype
) -> Tensor:
    """The gradient of the features, `dtype` [num_feature_rows, D]; zero where no block reads."""
    # Every cell of every tile is written: only features that lie in no tile need clearing.
    make = torch.empty if work.num_tile_cells == num_feature_rows else torch.zeros
    operands = work.operands
    channels = grad_rows.shape[1]
    gradient = make(num_feature_rows, channels, dtype=dtype, device=grad_rows.device)
    cells = grad_rows if features is None else features
    block_c = _block_c(gradient)
    programs = len(operands.tile_rows) * triton.cdiv(channels, block_c)
    if programs:
        with _on(gradient):
            splice_backward_kernel[(programs,)](
                gradient,
                grad_rows, cells, operands.blocks, operands.tiles, operands.readers, operands.tile_rows,
                channels, *grad_rows.stride(), *cells.stride(),
                USES_MAX=features is not None,
                BLOCK_X=BLOCK_X, BLOCK_C=block_c, DTYPE=_compute_dtype(grad_rows, gradient),
                enable_fp_fusion=False,
            )  # fmt: skip
    return gradient


def _block_c(rows: Tensor) -> int:
    return min(BLOCK_BYTES // rows.element_size(), triton.next_power_of_2(rows.shape[1]))


def _compute_dtype(*tensors: Tensor) -> tl.dtype:
    return tl.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else tl.float32


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Triton launches on the current device, whichever the tensors are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
