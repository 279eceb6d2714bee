"""Pieces of the splice kernels: which cells, with which weights, forward and backward.

Functions that Triton inlines. `geometry.py` states the bilinear rule, `reference.py` the rest. Y and X are
cells of a block's joined map, y and x its outputs; a vector of cells is [BLOCK_X], values are
[BLOCK_X, BLOCK_C] in DTYPE (float32; float64 for checks).
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidllava.kernels.block import BLOCK_FIELDS

FIELDS = tl.constexpr(len(BLOCK_FIELDS))


@triton.jit
def load_block(blocks, index):
    """The fields of one block, in the order of BLOCK_FIELDS."""
    at = blocks + index * FIELDS
    source = (tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3))
    crop_y, crop_x, in_h, in_w = tl.load(at + 4), tl.load(at + 5), tl.load(at + 6), tl.load(at + 7)
    out_h, out_w, mode, stride = tl.load(at + 8), tl.load(at + 9), tl.load(at + 10), tl.load(at + 11)
    return source, crop_y, crop_x, in_h, in_w, out_h, out_w, mode, stride, tl.load(at + 12), tl.load(at + 13)


@triton.jit
def load_rows(matrix, strides, row, channel, mask, DTYPE: tl.constexpr):
    """Rows of a matrix, for a vector of rows and one of channels. Offsets are 64-bit."""
    offset = row.to(tl.int64)[:, None] * strides[0] + channel[None, :] * strides[1]
    return tl.load(matrix + offset, mask=mask, other=0.0).to(DTYPE)


@triton.jit
def load_cells(features, strides, source, Y, X, channel, mask, DTYPE: tl.constexpr):
    """The features of cells (Y, X) of the map that a block's tiles form; Y is one number."""
    first, tile_h, tile_w, tiles_x = source
    tile = (Y // tile_h) * tiles_x + X // tile_w
    row = first + tile * (tile_h * tile_w) + (Y % tile_h) * tile_w + X % tile_w
    return load_rows(features, strides, row, channel, mask, DTYPE)


@triton.jit
def divide(a, b, DTYPE: tl.constexpr):
    """a / b rounded as IEEE says: plain division of float32 is approximate on CUDA."""
    if DTYPE == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def taps(o, size_in, size_out, DTYPE: tl.constexpr):
    """The two inputs that output `o` reads along one axis, and the weight of the second."""
    scale = divide(size_in.to(DTYPE), size_out.to(DTYPE), DTYPE)
    real = tl.maximum(scale * (o.to(DTYPE) + 0.5) - 0.5, 0.0)
    first = tl.minimum(real.to(tl.int32), size_in - 1)
    return first, tl.minimum(first + 1, size_in - 1), tl.minimum(real - first.to(DTYPE), 1.0)


@triton.jit
def weight_of(i, o, size_in, size_out, DTYPE: tl.constexpr):
    """What output `o` takes from input `i`: 0 if it does not read it."""
    first, second, weight = taps(o, size_in, size_out, DTYPE)
    return tl.where(first == i, 1.0 - weight, 0.0) + tl.where(second == i, weight, 0.0)


@triton.jit
def first_reader(i, size_in, size_out):
    """The first output whose source coordinate exceeds i - 1: no earlier one reads input `i`.

    In float32: where rounding puts this off by one, the output left out has a weight of about 1e-7.
    """
    outputs_per_input = size_out.to(tl.float32) / size_in.to(tl.float32)
    reach = (i.to(tl.float32) - 0.5) * outputs_per_input - 0.5
    return tl.maximum(tl.floor(reach).to(tl.int32) + 1, 0)


@triton.jit
def most_readers(size_in, size_out):
    """How many outputs may read one input: those in an interval of 2 inputs, open at both ends."""
    if size_in < size_out:
        return tl.cdiv(2 * size_out, size_in) + 1
    return size_out * 0 + 2


@triton.jit
def bilinear_cells(features, strides, source, crop_y, crop_x, in_h, in_w, out_h, out_w, y, x, channel, mask, DTYPE: tl.constexpr):  # fmt: skip
    """Four neighbours and their weights, in the order in which PyTorch adds them."""
    top, bottom, down = taps(y, in_h, out_h, DTYPE)
    left, right, across = taps(x, in_w, out_w, DTYPE)
    left, right = crop_x + left, crop_x + right
    across = across[:, None]
    a = load_cells(features, strides, source, crop_y + top, left, channel, mask, DTYPE)
    b = load_cells(features, strides, source, crop_y + top, right, channel, mask, DTYPE)
    c = load_cells(features, strides, source, crop_y + bottom, left, channel, mask, DTYPE)
    d = load_cells(features, strides, source, crop_y + bottom, right, channel, mask, DTYPE)
    return (1.0 - down) * ((1.0 - across) * a + across * b) + down * ((1.0 - across) * c + across * d)


@triton.jit
def average_cells(features, strides, source, Y, X, stride, channel, mask, DTYPE: tl.constexpr):
    """The mean of the square of `stride` cells whose first is (Y, X)."""
    total = tl.zeros(mask.shape, DTYPE)
    for dy in range(stride):
        for dx in range(stride):
            total += load_cells(features, strides, source, Y + dy, X + dx, channel, mask, DTYPE)
    return divide(total, (stride * stride).to(DTYPE), DTYPE)


@triton.jit
def max_cells(features, strides, source, Y, X, stride, channel, mask, DTYPE: tl.constexpr):
    """The maximum of that square, and which cell of it, in reading order, holds it first.

    A NaN wins, the last of several: this is max_pool2d.
    """
    best = tl.full(mask.shape, float("-inf"), DTYPE)
    holder = tl.zeros(mask.shape, tl.int32)
    for dy in range(stride):
        for dx in range(stride):
            cells = load_cells(features, strides, source, Y + dy, X + dx, channel, mask, DTYPE)
            wins = (cells > best) | (cells != cells)
            best = tl.where(wins, cells, best)
            holder = tl.where(wins, dy * stride + dx, holder)
    return best, holder


@triton.jit
def bilinear_gradient(grad, strides, Y, X, in_h, in_w, out_h, out_w, dst, pitch, channel, mask, DTYPE: tl.constexpr):  # fmt: skip
    """For cells (Y, X) of a block's window: the sum over the outputs that read them, in reading order."""
    total = tl.zeros(mask.shape, DTYPE)
    first_y, first_x = first_reader(Y, in_h, out_h), first_reader(X, in_w, out_w)
    for dy in range(most_readers(in_h, out_h)):
        y = first_y + dy
        down = tl.where(y < out_h, weight_of(Y, y, in_h, out_h, DTYPE), 0.0)
        if down != 0.0:
            for dx in range(most_readers(in_w, out_w)):
                x = first_x + dx
                across = tl.where(x < out_w, weight_of(X, x, in_w, out_w, DTYPE), 0.0)
                reads = mask & (across != 0.0)[:, None]
                upstream = load_rows(grad, strides, dst + y * pitch + x, channel, reads, DTYPE)
                total += (down * across)[:, None] * upstream
    return total
