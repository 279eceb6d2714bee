"""Does `tl.fma` round once here? Hardware does; the interpreter before Triton 3.9 rounds the product too."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def square_less_one(x, result):
    value = tl.load(x)
    tl.store(result, tl.fma(value, value, -1.0))


def rounds_once() -> bool:
    """In the interpreter, on the CPU."""
    x = torch.tensor([1.0 + 2**-12], dtype=torch.float32)  # its square needs one bit more than float32 has
    result = torch.empty(1)
    square_less_one[(1,)](x, result)
    return result.item() == 2**-11 + 2**-24
