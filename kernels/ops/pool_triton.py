"""Pieces of the splice kernels: which cells, with which weights, forward and backward.

Functions that Triton inlines. `geometry.py` states the bilinear rule, `reference.py` the rest. A block's
fields come as source (src_row, tile_h, tile_w, tiles_x), window (crop_y, crop_x, in_h, in_w), output (out_h,
out_w, dst_row, dst_stride), mode and stride. One y and a vector of x [BLOCK_X] give values
[BLOCK_X, BLOCK_C] in DTYPE: float32, or float64 to check the gradients with.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidllava.kernels.block import BLOCK_FIELDS

FIELDS = tl.constexpr(len(BLOCK_FIELDS))


@triton.jit
def load_block(blocks, index):
    """source, window, output, mode, stride of one block."""
    at = blocks + index * FIELDS
    source = (tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3))
    window = (tl.load(at + 4), tl.load(at + 5), tl.load(at + 6), tl.load(at + 7))
    output = (tl.load(at + 8), tl.load(at + 9), tl.load(at + 12), tl.load(at + 13))
    return source, window, output, tl.load(at + 10), tl.load(at + 11)


@triton.jit
def load_rows(matrix, strides, row, channel, mask, DTYPE: tl.constexpr):
    """Rows of a matrix, for a vector of rows and one of channels. Offsets are 64-bit."""
    offset = row.to(tl.int64)[:, None] * strides[0] + channel[None, :] * strides[1]
    return tl.load(matrix + offset, mask=mask, other=0.0).to(DTYPE)


@triton.jit
def load_cells(features, strides, source, y, x, channel, mask, DTYPE: tl.constexpr):
    """The features of cells (y, x) of the map that a block's tiles form."""
    first, tile_h, tile_w, tiles_x = source
    tile = (y // tile_h) * tiles_x + x // tile_w
    row = first + tile * (tile_h * tile_w) + (y % tile_h) * tile_w + x % tile_w
    return load_rows(features, strides, row, channel, mask, DTYPE)


@triton.jit
def divide(a, b, DTYPE: tl.constexpr):
    """a / b rounded as IEEE says: plain division of float32 is approximate on CUDA."""
    if DTYPE.is_fp64():
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def taps(o, size_in, size_out, DTYPE: tl.constexpr):
    """The two inputs that output `o` reads along one axis, and the weight of the second."""
    scale = divide(size_in.to(DTYPE), size_out.to(DTYPE), DTYPE)
    # Rounded once, as PyTorch's own kernels are compiled to do: at cell 25 that is 2e-6 of a weight.
    real = tl.maximum(tl.fma(scale, o.to(DTYPE) + 0.5, -0.5), 0.0)
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
    return tl.where(size_in < size_out, tl.cdiv(2 * size_out, size_in) + 1, 2)


@triton.jit
def bilinear_cells(features, strides, source, window, output, y, x, channel, mask, DTYPE: tl.constexpr):
    """Outputs (y, x): four neighbours and their weights, in the order in which PyTorch adds them."""
    crop_y, crop_x, in_h, in_w = window
    top, bottom, down = taps(y, in_h, output[0], DTYPE)
    left, right, across = taps(x, in_w, output[1], DTYPE)
    left, right, across = crop_x + left, crop_x + right, across[:, None]
    a = load_cells(features, strides, source, crop_y + top, left, channel, mask, DTYPE)
    b = load_cells(features, strides, source, crop_y + top, right, channel, mask, DTYPE)
    c = load_cells(features, strides, source, crop_y + bottom, left, channel, mask, DTYPE)
    d = load_cells(features, strides, source, crop_y + bottom, right, channel, mask, DTYPE)
    return (1.0 - down) * ((1.0 - across) * a + across * b) + down * ((1.0 - across) * c + across * d)


@triton.jit
def average_cells(features, strides, source, y, x, stride, channel, mask, DTYPE: tl.constexpr):
    """The mean of the square of `stride` cells whose first is (y, x)."""
    total = tl.zeros(mask.shape, DTYPE)
    for dy in range(stride):
        for dx in range(stride):
            total += load_cells(features, strides, source, y + dy, x + dx, channel, mask, DTYPE)
    return divide(total, (stride * stride).to(DTYPE), DTYPE)


@triton.jit
def max_cells(features, strides, source, y, x, stride, channel, mask, DTYPE: tl.constexpr):
    """The maximum of that square, and which of its cells, in reading order, holds it first.

    A NaN wins, the last of several: this is max_pool2d.
    """
    best = tl.full(mask.shape, float("-inf"), DTYPE)
    holder = tl.zeros(mask.shape, tl.int32)
    for dy in range(stride):
        for dx in range(stride):
            cells = load_cells(features, strides, source, y + dy, x + dx, channel, mask, DTYPE)
            wins = (cells > best) | (cells != cells)
            best = tl.where(wins, cells, best)
            holder = tl.where(wins, dy * stride + dx, holder)
    return best, holder


@triton.jit
def bilinear_gradient(grad, strides, window, output, y, x, channel, mask, DTYPE: tl.constexpr):
    """Cells (y, x) of a window: the sum over the outputs that read them, in reading order."""
    in_h, in_w = window[2], window[3]
    out_h, out_w, dst, pitch = output
    total = tl.zeros(mask.shape, DTYPE)
    first_y, first_x = first_reader(y, in_h, out_h), first_reader(x, in_w, out_w)
    for dy in range(most_readers(in_h, out_h)):
        out_y = first_y + dy
        down = tl.where(out_y < out_h, weight_of(y, out_y, in_h, out_h, DTYPE), 0.0)
        if down != 0.0:
            for dx in range(most_readers(in_w, out_w)):
                out_x = first_x + dx
                across = tl.where(out_x < out_w, weight_of(x, out_x, in_w, out_w, DTYPE), 0.0)
                reads = mask & (across != 0.0)[:, None]
                upstream = load_rows(grad, strides, dst + out_y * pitch + out_x, channel, reads, DTYPE)
                total += (down * across)[:, None] * upstream
    return total


@triton.jit
def square_gradient(
    grad, grad_strides, features, feature_strides,
    source, window, output, mode, stride, y, x, channel, mask,
    AVERAGE: tl.constexpr, USES_MAX: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Cells (y, x) of a window, each read by the one output of its square (copy: a square of one cell)."""
    out_y, out_x = y // stride, x // stride
    value = load_rows(grad, grad_strides, output[2] + out_y * output[3] + out_x, channel, mask, DTYPE)
    if mode == AVERAGE:
        value = divide(value, (stride * stride).to(DTYPE), DTYPE)
    if USES_MAX:  # noqa: SIM102 - a constant: without it the branch is not compiled at all
        if mode > AVERAGE:
            corner_y, corner_x = window[0] + out_y * stride, window[1] + out_x * stride
            holder = max_cells(
                features, feature_strides, source, corner_y, corner_x, stride, channel, mask, DTYPE
            )[1]
            mine = (y % stride) * stride + x % stride
            value = tl.where(holder == mine[:, None], value, 0.0)
    return value
