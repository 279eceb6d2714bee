"""Rotate q and k without Triton: what CPU users run.

A piece of the tokens at a time, small enough for the processor's cache: one product over the full width and
two fused multiply-adds over halves, then the piece goes to memory once. transformers' chain (multiply,
negate, concatenate, multiply, add) sends each of its steps there. Legend as in `reference.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Measured on an EPYC with 1 MiB of second-level cache per core: half and twice this are 10-20 % slower.
PIECE_BYTES = 2 << 20


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k rotated, by minus the angle where `inverse`; each result has its input's strides.

    The maths is in fp32 at least, rounded once, whatever the dtype of q and k.
    """
    # For one token it is the calls that cost, even calls that do nothing.
    dtype = q.dtype if q.dtype in (torch.float32, torch.float64) else torch.float32
    if cos.dtype != dtype:
        cos, sin = cos.to(dtype), sin.to(dtype)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    # Both halves of a table are equal (transformers' layout).
    sin = sin.narrow(-1, 0, sin.shape[-1] // 2)
    sign = -1 if inverse else 1
    return _rotate_one(q, cos, sin, sign), _rotate_one(k, cos, sin, sign)


def _rotate_one(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    batch, heads, length, channels = x.shape
    rotated = cos.shape[-1]
    token_bytes = batch * heads * channels * cos.element_size()
    if rotated == channels and x.dtype == cos.dtype and length * token_bytes <= PIECE_BYTES:
        turned = _turn(x, cos, sin, sign)
        if turned.stride() == x.stride():
            return turned
    result = torch.empty_like(x)
    step = max(PIECE_BYTES // max(token_bytes, 1), 1)
    for start in range(0, length, step):
        piece = slice(start, start + step)
        part = x[:, :, piece, :rotated].to(cos.dtype)
        result[:, :, piece, :rotated] = _turn(part, cos[:, :, piece], sin[:, :, piece], sign)
    if rotated < channels:
        result[..., rotated:] = x[..., rotated:]
    return result


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """x [B, H, s, R] turned."""
    half = sin.shape[-1]
    turned = x * cos
    turned.narrow(-1, 0, half).addcmul_(x.narrow(-1, half, half), sin, value=-sign)
    turned.narrow(-1, half, half).addcmul_(x.narrow(-1, 0, half), sin, value=sign)
    return turned
