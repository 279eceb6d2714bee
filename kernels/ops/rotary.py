"""Positions to rotary tables, with linear scaling.

    cos, sin = rotary_tables(positions, inv_freq, factor=2.0, attention_scaling=1.0, dtype=torch.bfloat16)

Linear scaling divides the inverse frequencies, in this order: that is what a checkpoint saved with
``{"rope_type": "linear", "factor": f}`` means, and at position 25,000 dividing the position instead differs
by half a bf16 ulp. Nothing is cached here, so no factor can be confused with another.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
