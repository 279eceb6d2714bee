"""Rotate q and k without Triton: what CPU users run, and a decode step on CUDA (see `dispatch.py`).

A product over the full width, then two fused multiply-adds over halves: three calls that copy nothing, where
transformers' chain (multiply, negate, concatenate, multiply, add) makes five. Many tokens go a piece at a
time, small enough for the processor's cache, so that each piece goes to memory once. A decode step costs
calls, not bytes: there q and k are turned as one tensor. Legend as in `reference.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Measured on an EPYC with 1 MiB of second-level cache per core: half and twice this are 10-20 % slower.
PIECE_BYTES = 2 << 20
# Of q: up to here a call costs more than a copy. Measured on the same machine.
FEW_BYTES = 128 << 10


def rotate(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    inverse: bool,
    overwrite: bool = False,
    apart: bool = False,
) -> tuple[Tensor, Tensor]:
    """q and k rotated, by minus the angle where `inverse`.

    Where q, k and the tables have one dtype the maths is in it, rounded at most twice (a multiply-add rounds
    once); else in the wider of the two. `overwrite`: a result may take its input's memory. `apart`: each has
    its input's strides and memory of its own; else both may be views of one tensor.
    """
    channels = cos.shape[-1]
    # Both halves of a table are equal (transformers' layout).
    cos, half = cos.unsqueeze(1), sin.unsqueeze(1).narrow(-1, 0, channels // 2)
    if not apart and q.nbytes <= FEW_BYTES and q.shape[-1] == channels and q.dtype == k.dtype == cos.dtype:
        turned = _turn(torch.cat((q, k), 1), cos, half, inverse)
        return turned.narrow(1, 0, q.shape[1]), turned.narrow(1, q.shape[1], k.shape[1])
    return _rotate_one(q, cos, half, inverse, overwrite), _rotate_one(k, cos, half, inverse, overwrite)


def _rotate_one(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool, overwrite: bool) -> Tensor:
    batch, heads, length, channels = x.shape
    rotated = cos.shape[-1]
    if x.dtype != cos.dtype:
        dtype = torch.promote_types(x.dtype, cos.dtype)
        cos, sin = cos.to(dtype), sin.to(dtype)
    size = batch * heads * length * channels * cos.element_size()
    if rotated == channels and x.dtype == cos.dtype and size <= PIECE_BYTES:
        return _turn(x, cos, sin, inverse)
    result = x if overwrite else torch.empty_like(x)
    step = max(PIECE_BYTES * length // max(size, 1), 1)
    for start in range(0, length, step):
        piece = slice(start, start + step)
        part = x[:, :, piece, :rotated].to(cos.dtype)
        result[:, :, piece, :rotated] = _turn(part, cos[:, :, piece], sin[:, :, piece], inverse)
    if rotated < channels and not overwrite:
        result[..., rotated:] = x[..., rotated:]
    return result


def _turn(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> Tensor:
    """x [B, H, s, R] turned by cos [.., R] and half a sine [.., R / 2]; a new tensor."""
    turned, half, sign = x * cos, sin.shape[-1], -1 if inverse else 1
    turned.narrow(-1, 0, half).addcmul_(x.narrow(-1, half, half), sin, value=-sign)
    turned.narrow(-1, half, half).addcmul_(x.narrow(-1, 0, half), sin, value=sign)
    return turned
