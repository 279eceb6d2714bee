"""How much does output o take from input i, along one axis? The rule of `interpolate(mode="bilinear")`.

Bilinear pooling is separable: the weight of a source cell is the product of its two axes' weights. This is
PyTorch's rule for align_corners=False without anti-aliasing, with the size given (so scale = in / out):
https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/UpSample.h, area_pixel_compute_source_index.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis_taps(size_in: int, size_out: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The two inputs that each output reads, and the weight of the second.

    Returns ``first`` and ``second`` int64 [size_out] (equal at the border) and ``weight`` of `dtype`
    [size_out]; the weight of the first is 1 - weight.
    """
    scale = torch.tensor(size_in, dtype=dtype) / size_out
    real = (scale * (torch.arange(size_out, dtype=dtype) + 0.5) - 0.5).clamp(min=0)
    first = real.long().clamp(max=size_in - 1)
    second = (first + 1).clamp(max=size_in - 1)
    return first, second, (real - first).clamp(0, 1)


def axis_matrix(size_in: int, size_out: int, dtype: torch.dtype) -> Tensor:
    """[size_out, size_in]: the weights as a matrix, for reading and for checking."""
    first, second, weight = axis_taps(size_in, size_out, dtype)
    output = torch.arange(size_out)
    matrix = torch.zeros(size_out, size_in, dtype=dtype)
    matrix.index_put_((output, first), 1 - weight, accumulate=True)
    return matrix.index_put_((output, second), weight, accumulate=True)
