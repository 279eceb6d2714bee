"""Rotate q and k on the CPU: four passes over halves, written straight into the result.

transformers' chain (multiply, negate, concatenate, multiply, add) moves twice the bytes. Legend as in
`reference.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k rotated, by minus the angle where `inverse`; each result has its input's strides.

    The maths is in fp32 at least, rounded once, whatever the dtype of q and k.
    """
    half = cos.shape[-1] // 2
    dtype = torch.promote_types(q.dtype, torch.float32)
    # Both halves of a table are equal (HF's layout): read the first.
    c, s = cos[:, None, :, :half].to(dtype), sin[:, None, :, :half].to(dtype)
    return _rotate_one(q, c, -s if inverse else s), _rotate_one(k, c, -s if inverse else s)


def _rotate_one(x: Tensor, c: Tensor, s: Tensor) -> Tensor:
    half = c.shape[-1]
    result = torch.empty_like(x)
    first, second = x[..., :half].to(c.dtype), x[..., half : 2 * half].to(c.dtype)
    if result.dtype == c.dtype:
        out_first, out_second = result[..., :half], result[..., half : 2 * half]
        torch.mul(first, c, out=out_first).addcmul_(second, s, value=-1)
        torch.mul(second, c, out=out_second).addcmul_(first, s)
    else:
        result[..., :half] = (first * c).addcmul_(second, s, value=-1)
        result[..., half : 2 * half] = (second * c).addcmul_(first, s)
    if 2 * half < x.shape[-1]:
        result[..., 2 * half :] = x[..., 2 * half :]
    return result
