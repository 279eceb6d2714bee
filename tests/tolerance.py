"""How far may a result lie from the truth? Judged by the plain version's own error, never by taste.

    assert_as_good_as(result, eager, truth)

`truth` is computed in float64 and `eager` by the plain PyTorch chain in the dtype of `result`. Four rules,
because each is blind to what another sees:

    finite   no NaN and no infinity where the truth has none
    max      the worst element errs by at most twice the worst of eager: one wrong element, a zeroed token
    rms      the root mean square error is at most that of eager and a quarter: many small errors
    scale    the factor that fits truth to result is as near 1 as rounding at random would leave it

Eager may be exact by luck, so no bound is below what one rounding costs. The rule is itself tested, with
planted defects, in `tests/kernels/test_tolerance.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_RATIO = 2.0
RMS_RATIO = 1.25
# Rounding at random leaves the fitted scale off by about the rms error over the length of the truth: four of
# those, times four because errors come in up to 16 equal copies (the gradient of an average over 4 x 4).
SCALE_SIGMAS = 16.0


def assert_as_good_as(result: Tensor, eager: Tensor, truth: Tensor, *, name: str = "result") -> None:
    """Raise AssertionError, saying which rule fails and by how much, unless `result` passes all four."""
    assert result.shape == truth.shape, f"{name}: shape {tuple(result.shape)}, expected {tuple(truth.shape)}"
    assert truth.dtype == torch.float64, "the truth is computed in float64"
    assert eager.dtype == result.dtype, f"{name}: {result.dtype}, eager is {eager.dtype}"
    if truth.numel() == 0:
        return
    result, eager, truth = (tensor.detach().cpu() for tensor in (result, eager, truth))
    assert bool(result.isfinite().all()), f"{name}: {int((~result.isfinite()).sum())} elements are not finite"
    error, allowed = result.double() - truth, eager.double() - truth
    eps = torch.finfo(result.dtype).eps
    # One rounding: at most half a spacing of the largest value, on average a fifth of eps of each.
    worst, bound = _max(error), max(MAX_RATIO * _max(allowed), eps / 2 * _max(truth))
    where = int(error.abs().flatten().argmax())
    assert worst <= bound, f"{name}: max error {worst:.3g} at element {where}, bound {bound:.3g}"
    noise = max(_rms(allowed), eps / 4 * _rms(truth))
    spread, bound = _rms(error), RMS_RATIO * noise
    assert spread <= bound, f"{name}: rms error {spread:.3g}, bound {bound:.3g}"
    size = float(truth.square().sum())
    drift = abs(float((error * truth).sum()))
    bound = SCALE_SIGMAS * noise * size**0.5
    assert drift <= bound, f"{name}: scale is off by {drift / size:.3g}, bound {bound / size:.3g}"


def _max(error: Tensor) -> float:
    return float(error.abs().max())


def _rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())
