"""The tolerance sees each kind of defect, and lets an honest result pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.tolerance import assert_as_good_as
from vidllava.kernels.block import rotary_tables
from vidllava.kernels.reference import rotate_reference

LENGTH = 217


def rotated(dtype: torch.dtype, scale: float = 1.0, compute: torch.dtype | None = None) -> Tensor:
    """[1, 4, 217, 64]: the same heads turned in `compute`; positions times `scale`."""
    q = torch.randn(1, 4, LENGTH, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inv_freq = 10_000.0 ** -(torch.arange(32) / 32)
    cos, sin = rotary_tables(
        torch.arange(LENGTH)[None], inv_freq * scale, factor=1.0, attention_scaling=1.0, dtype=torch.float64
    )
    work = compute or dtype
    q, cos, sin = (x.to(dtype).to(work) for x in (q, cos, sin))
    return rotate_reference(q, q, cos, sin)[0].to(dtype if compute is None else compute)


def parts(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """An honest result (fp32 maths, rounded once), eager, and the truth for the same rounded inputs."""
    return (
        rotated(dtype, compute=torch.float32).to(dtype),
        rotated(dtype),
        rotated(dtype, compute=torch.float64),
    )


def one_wrong_element(x: Tensor) -> Tensor:
    x = x.clone()
    x[0, 1, 100, 3] += 0.1
    return x


def last_token_zeroed(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, -1] = 0.0
    return x


def nan_tail(x: Tensor) -> Tensor:
    x = x.clone()
    x[0, 3, -1, -1] = float("nan")
    return x


def all_a_little_off(x: Tensor) -> Tensor:
    """Errors of twice the rounding, none of them large."""
    sign = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return (x.double() + sign * 2e-3).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_an_honest_result_passes(dtype: torch.dtype):
    assert_as_good_as(*parts(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("defect", [one_wrong_element, last_token_zeroed, nan_tail, all_a_little_off])
def test_a_planted_defect_is_seen(defect: Callable[[Tensor], Tensor], dtype: torch.dtype):
    result, eager, truth = parts(dtype)
    with pytest.raises(AssertionError, match=r"max error|rms error|not finite"):
        assert_as_good_as(defect(result), eager, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_rope_scale_off_by_three_hundredths_of_a_percent_is_seen(dtype: torch.dtype):
    _, eager, truth = parts(dtype)
    with pytest.raises(AssertionError, match="error"):
        assert_as_good_as(rotated(dtype, scale=1.0003, compute=torch.float32).to(dtype), eager, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_off_by_three_hundredths_of_a_percent_are_seen(dtype: torch.dtype):
    _, eager, truth = parts(dtype)
    # Below half a bf16 ulp everywhere: only the fitted scale can tell.
    with pytest.raises(AssertionError):
        assert_as_good_as((truth * 1.0003).to(dtype), eager, truth)


def test_a_wrong_shape_or_dtype_is_seen():
    result, eager, truth = parts(torch.float32)
    with pytest.raises(AssertionError, match="shape"):
        assert_as_good_as(result[:, :1], eager, truth)
    with pytest.raises(AssertionError, match=r"eager is torch\.float32"):
        assert_as_good_as(result.half(), eager, truth)
