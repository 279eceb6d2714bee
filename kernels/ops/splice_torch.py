"""Splice without Triton: what CPU users run.

Consecutive blocks of one shape (the frames of a video) are one strided view of the features, channels last,
and one strided view of the rows. PyTorch's pooling reads the first and writes the second: no permute,
no concatenation, no scatter. Forward and backward are deterministic on the CPU. Legend as in `reference.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vidllava.kernels.block import MODES, rotary_tables
from vidllava.kernels.work import BlockRun, Work

_aten = torch.ops.aten


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
    rows = embedding.new_empty(work.positions.shape[0], embedding.shape[1])
    _embed(rows, embedding, work)
    work.newlines.fill(rows, newline)
    dtype = torch.promote_types(features.dtype, rows.dtype)
    for run in work.runs:
        _pool(run, features, rows, dtype)
    work.padding.clear(rows)
    return rows, *_tables(inv_freq, work, rows.dtype, factor, attention_scaling)


def embed(
    embedding: Tensor, inv_freq: Tensor, work: Work, *, factor: float, attention_scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`splice` where every row is text or padding: an embedding layer, which autograd records itself."""
    assert work.all_ids is not None
    rows = torch.embedding(embedding, work.all_ids)
    if work.padding.index.shape[0]:
        rows = rows.index_fill(0, work.padding.index, 0.0)
    return rows, *_tables(inv_freq, work, rows.dtype, factor, attention_scaling)


def _tables(
    inv_freq: Tensor, work: Work, dtype: torch.dtype, factor: float, attention_scaling: float
) -> tuple[Tensor, Tensor]:
    """cos and sin [S, R] of `dtype`, with zeros on padding rows."""
    cos, sin = rotary_tables(
        work.positions, inv_freq, factor=factor, attention_scaling=attention_scaling, dtype=dtype
    )
    work.padding.clear(cos)
    work.padding.clear(sin)
    return cos, sin


def splice_backward(
    grad_rows: Tensor, features: Tensor | None, work: Work, num_feature_rows: int, dtype: torch.dtype
) -> Tensor:
    """The gradient of the features, `dtype` [num_feature_rows, D]; zero where no block reads.

    `features` is read where a block's mode is max, to find the maxima again.
    """
    adds = work.fills_tiles_once != num_feature_rows
    # Sums of several low-precision gradients are taken in fp32 and rounded once.
    compute = torch.promote_types(grad_rows.dtype, torch.float32) if adds else grad_rows.dtype
    make = torch.zeros if adds else torch.empty
    gradient = make(num_feature_rows, grad_rows.shape[1], dtype=compute, device=grad_rows.device)
    for run in work.runs:
        _unpool(run, _output(grad_rows, run).to(compute), features, gradient, adds)
    return gradient.to(dtype)


def _embed(rows: Tensor, embedding: Tensor, work: Work) -> None:
    """Write the text's embeddings to their rows, straight from the table where the rows are few slices."""
    if work.text.spans is None:
        rows.index_copy_(0, work.text.index, embedding.index_select(0, work.ids))
        return
    for span in work.text.spans:
        ids = work.ids.narrow(0, span.entry, span.length)
        torch.index_select(embedding, 0, ids, out=rows.narrow(0, span.row, span.length))


def _output(rows: Tensor, run: BlockRun) -> Tensor:
    """[count, out_h, out_w, D] view of the rows that a run writes."""
    b, (row, channel) = run.block, rows.stride()
    shape = (run.count, b.out_h, b.out_w, rows.shape[1])
    strides = (run.dst_step * row, b.dst_stride * row, row, channel)
    return rows.as_strided(shape, strides, rows.storage_offset() + b.dst_row * row)


def _tile(features: Tensor, run: BlockRun, tile: int) -> Tensor:
    """[count, tile_h, tile_w, D] view of one tile of each block of a run."""
    b, (row, channel) = run.block, features.stride()
    shape = (run.count, b.tile_h, b.tile_w, features.shape[1])
    strides = (run.src_step * row, b.tile_w * row, row, channel)
    start = b.src_row + tile * b.tile_h * b.tile_w
    return features.as_strided(shape, strides, features.storage_offset() + start * row)


def _places(features: Tensor, run: BlockRun) -> Iterator[tuple[Tensor, tuple[slice, ...]]]:
    """For each tile that a run's window meets: the view of the cells, and where they lie in the window."""
    b = run.block
    for ty in range(b.crop_y // b.tile_h, (b.crop_y + b.in_h - 1) // b.tile_h + 1):
        for tx in range(b.crop_x // b.tile_w, (b.crop_x + b.in_w - 1) // b.tile_w + 1):
            # The tile's first cell, seen from the window's.
            y, x = ty * b.tile_h - b.crop_y, tx * b.tile_w - b.crop_x
            rows = slice(max(y, 0), min(y + b.tile_h, b.in_h))
            cols = slice(max(x, 0), min(x + b.tile_w, b.in_w))
            tile = _tile(features, run, ty * b.tiles_x + tx)
            cells = tile[:, rows.start - y : rows.stop - y, cols.start - x : cols.stop - x]
            yield cells, (slice(None), rows, cols)


def _window(features: Tensor, run: BlockRun) -> Tensor:
    """[count, in_h, in_w, D]: the cells that a run reads; a view where they lie in single tiles."""
    if run.in_one_tile:
        return next(_places(features, run))[0]
    b = run.block
    joined = features.new_empty(run.count, b.in_h, b.in_w, features.shape[1])
    for cells, place in _places(features, run):
        joined[place] = cells
    return joined


def _channels(view: Tensor) -> Tensor:
    """[n, h, w, D] as PyTorch's pooling wants it, [n, D, h, w] with channels last in memory: still a view."""
    return view.permute(0, 3, 1, 2)


def _pool(run: BlockRun, features: Tensor, rows: Tensor, dtype: torch.dtype) -> None:
    """Write a run's pooled cells to their rows, computing in `dtype`."""
    b, output = run.block, _output(rows, run)
    if b.mode == MODES["copy"]:
        for part, place in _places(features, run):
            output[place] = part
        return
    cells = _channels(_window(features, run).to(dtype))
    # PyTorch's kernels write to the rows themselves, unless these are of another dtype.
    pooled = output if dtype == rows.dtype else output.to(dtype)
    if b.mode == MODES["bilinear"]:
        _aten.upsample_bilinear2d.out(cells, [b.out_h, b.out_w], False, None, None, out=_channels(pooled))
    elif b.mode == MODES["average"]:
        _aten.avg_pool2d.out(cells, [b.stride, b.stride], out=_channels(pooled))
    else:
        _channels(pooled).copy_(F.max_pool2d(cells, b.stride))
    if pooled is not output:
        output.copy_(pooled)


def _unpool(run: BlockRun, upstream: Tensor, features: Tensor | None, gradient: Tensor, adds: bool) -> None:
    """Give a run's source cells, in `gradient`, the gradient of the outputs that read them."""
    b = run.block
    shape = (run.count, b.in_h, b.in_w, gradient.shape[1])
    spread = gradient.new_empty(shape) if adds else _window(gradient, run)
    if b.mode == MODES["copy"]:
        spread.copy_(upstream)
    elif b.mode == MODES["bilinear"]:
        _aten.upsample_bilinear2d_backward.grad_input(
            _channels(upstream),
            [b.out_h, b.out_w],
            list(_channels(spread).shape),
            False,
            None,
            None,
            grad_input=_channels(spread),
        )
    elif b.mode == MODES["average"]:
        k = b.stride
        # Rows and columns that fill no square are read by no output.
        spread[:, b.out_h * k :], spread[:, :, b.out_w * k :] = 0.0, 0.0
        squares = (
            spread[:, : b.out_h * k, : b.out_w * k].unflatten(2, (b.out_w, k)).unflatten(1, (b.out_h, k))
        )
        squares.copy_((upstream / (k * k))[:, :, None, :, None])
    else:
        assert features is not None, "mode max needs the features again"
        _unpool_max(_channels(upstream), _channels(_window(features, run)).to(spread.dtype), b.stride, spread)
    if adds:
        for part, place in _places(gradient, run):
            part += spread[place]


def _unpool_max(upstream: Tensor, cells: Tensor, stride: int, spread: Tensor) -> None:
    """Give each square's gradient to its maximum: to the first one in reading order, if several are equal."""
    k = [stride, stride]
    where = F.max_pool2d(cells, k, return_indices=True)[1]
    found = _aten.max_pool2d_with_indices_backward(upstream, cells, k, k, [0, 0], [1, 1], False, where)
    _channels(spread).copy_(found)
