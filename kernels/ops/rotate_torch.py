"""Rotate q and k without Triton: what CPU users run, and a decode step on CUDA (see `dispatch.py`).

A product over the full width, then two fused multiply-adds over halves: three calls that copy nothing, where
transformers' chain (multiply, negate, concatenate, multiply, add) makes five. Many tokens go a piece at a
time, small enough for the processor's cache, so that each piece goes to memory once. A decode step costs
calls, not bytes: there q and k share one signed sine. Legend as in `reference.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Measured on an EPYC with 1 MiB of second-level cache per core: half and twice this are 10-20 % slower.
PIECE_BYTES = 2 << 20
# Of q: up to here a call costs more than a copy. Measured on the same machine.
FEW_BYTES = 16 << 10


def rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """q and k rotated, by minus the angle where `inverse`; results have their inputs' strides.

    Where q, k and the tables have one dtype the maths is in it, rounded at most twice (a multiply-add rounds
    once); else in the wider of the two. `overwrite`: a result may take its input's memory.
    """
    if q.nbytes <= FEW_BYTES and q.shape[-1] == cos.shape[-1] and q.dtype == k.dtype == cos.dtype:
        batch, length, channels = cos.shape
        halves = (batch, 1, length, 2, channels // 2)
        cos, sin = cos.view(halves), sin.view(halves).clone()
        sin.select(3, 1 if inverse else 0).neg_()
        return _turn_few(q, cos, sin), _turn_few(k, cos, sin)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    # Both halves of a table are equal (transformers' layout).
    half = sin.chunk(2, -1)[0]
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


def _turn_few(x: Tensor, cos: Tensor, signed: Tensor) -> Tensor:
    """`_turn` with both halves at once, the sine's sign being that of the other half's share: fewer calls."""
    batch, heads, length, channels = x.shape
    halves = x.view(batch, heads, length, 2, channels // 2)
    return (halves * cos).addcmul_(halves.flip(3), signed).flatten(3)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> Tensor:
    """x [B, H, s, R] turned by cos [.., R] and half a sine [.., R / 2]; a new tensor."""
    turned = x * cos
    (a, b), (first, second) = x.chunk(2, -1), turned.chunk(2, -1)
    sign = -1 if inverse else 1
    first.addcmul_(b, sin, value=-sign)
    second.addcmul_(a, sin, value=sign)
    return turned
