"""Splice does what the definition says, forward and backward, for every kind of row and block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels.plans import CASES, DTYPES, Case, Visual, case
from tests.tolerance import assert_as_good_as
from vidllava.kernels import MODES, reference, splice
from vidllava.kernels.block import PlanBlock
from vidllava.kernels.reference import splice_reference

SCALING = {"factor": 2.5, "attention_scaling": 0.75}
ONEVISION = case((1, Visual((27, 27), "bilinear", 2, newline="one")))
NEXT_VIDEO = case((Visual((27, 27), "average", 2), 1))


def run(one: Case, inputs: tuple[Tensor, ...], device: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """rows, cos, sin and the gradients of features, embedding and newline, for a fixed upstream gradient."""
    outputs = splice(*inputs[:3], one.plan.to(device), inputs[3], **SCALING)
    gradients = torch.autograd.grad(
        outputs[0], inputs[:3], upstream(outputs[0]), allow_unused=True, materialize_grads=True
    )
    return outputs, gradients


def upstream(rows: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)


def defined(one: Case, dtype: torch.dtype, compute: torch.dtype) -> tuple[Tensor, ...]:
    """What the definition gives in `compute`, for inputs that `dtype` holds: rows, tables, gradients."""
    inputs = [x.detach().to(compute).requires_grad_() for x in one.inputs(dtype)[:3]]
    outputs = splice_reference(*inputs, one.plan, one.inputs(dtype)[3], **SCALING)
    grad = upstream(outputs[0].to(dtype)).to(compute)
    return *outputs, *torch.autograd.grad(outputs[0], inputs, grad, allow_unused=True, materialize_grads=True)


def pool_eagerly(cells: Tensor, block: PlanBlock) -> Tensor:
    """Pooling as the peers write it, in the dtype that it is given."""
    x = cells.permute(2, 0, 1)[None]
    if block.mode == MODES["bilinear"]:
        x = F.interpolate(x, size=(block.out_h, block.out_w), mode="bilinear")
    elif block.mode != MODES["copy"]:
        x = (F.avg_pool2d if block.mode == MODES["average"] else F.max_pool2d)(x, block.stride)
    return x[0].permute(1, 2, 0)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_definition(name: str, device: str, poisoned: None):
    one = CASES[name]
    outputs, gradients = run(one, one.inputs(torch.float64, device=device), device)
    truths = defined(one, torch.float64, torch.float64)
    # Tables are computed in float32 everywhere, and cosines of two libraries differ in their last bit.
    bounds = (1e-12, 1e-6, 1e-6, *[1e-12] * 3)
    for result, truth, atol in zip((*outputs, *gradients), truths, bounds, strict=True):
        torch.testing.assert_close(result.cpu(), truth, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["slow-and-fast", "anyres-capped", "average-3", "clip-average", "onevision"])
def test_low_precision_is_as_good_as_the_eager_chain(
    name: str, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
):
    one = {**CASES, "onevision": ONEVISION}[name]
    outputs, gradients = run(one, one.inputs(dtype, device=device), device)
    truths = defined(one, dtype, torch.float64)
    monkeypatch.setattr(reference, "pool_block", pool_eagerly)
    eager = defined(one, dtype, dtype)
    names = ("rows", "cos", "sin", "features' gradient", "embedding's gradient", "newline's gradient")
    for what, result, plain, truth in zip(names, (*outputs, *gradients), eager, truths, strict=True):
        if dtype == torch.float32 and what in ("cos", "sin"):
            # Cosines of two libraries differ by a unit in the last place, and eager is the truth here.
            torch.testing.assert_close(result.cpu(), plain, rtol=0, atol=2.4e-7)
        else:
            assert_as_good_as(result, plain, truth, name=what)


def test_a_grid_of_27_by_27_becomes_14_by_14_as_interpolate_does(
    device: str, poisoned: None, weight_error: float
):
    inputs = ONEVISION.inputs(torch.float32, channels=8, device=device)
    (rows, _, _), gradients = run(ONEVISION, inputs, device)
    features = inputs[0].detach().cpu().requires_grad_()
    grids = features.view(1, 27, 27, 8).permute(0, 3, 1, 2)
    pooled = F.interpolate(grids, size=(14, 14), mode="bilinear").permute(0, 2, 3, 1).reshape(-1, 8)

    def close(result: Tensor, expected: Tensor, values: Tensor) -> None:
        span = (values.max() - values.min()).item()
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=5e-7 + weight_error * span)

    close(rows[1:197], pooled, features)
    grad = upstream(rows)[1:197].cpu()
    close(gradients[0], torch.autograd.grad(pooled, features, grad)[0], grad)


def test_rows_that_fill_no_square_get_no_gradient(device: str, poisoned: None):
    _, gradients = run(NEXT_VIDEO, NEXT_VIDEO.inputs(torch.float32, device=device), device)
    grid = gradients[0].view(27, 27, -1)
    assert not grid[26].any()
    assert not grid[:, 26].any()
    assert grid[:26, :26].all()


def test_features_that_no_block_reads_get_no_gradient(device: str, poisoned: None):
    one = CASES["mixed-batch"]
    _, gradients = run(one, one.inputs(torch.float32, device=device), device)
    assert not gradients[0][-4:].any()


def test_equal_maxima_give_their_gradient_to_the_first(device: str):
    one = case((Visual((4, 4), "max", 2),))
    inputs = one.inputs(torch.float32, device=device)
    features = torch.ones_like(inputs[0]).requires_grad_()
    rows, _, _ = splice(features, *inputs[1:3], one.plan.to(device), inputs[3])
    (gradient,) = torch.autograd.grad(rows.sum(), features)
    expected = torch.zeros(4, 4)
    expected[::2, ::2] = 1.0
    assert torch.equal(gradient.view(4, 4, -1)[..., 0].cpu(), expected)


def test_a_nan_in_a_square_is_its_maximum(device: str):
    one = case((Visual((2, 4), "max", 2),))
    inputs = one.inputs(torch.float32, device=device)
    features = inputs[0].detach().clone()
    features[1] = float("nan")
    rows, _, _ = splice(features, *inputs[1:3], one.plan.to(device), inputs[3])
    assert rows[0].isnan().all()
    assert rows[1].isfinite().all()


@pytest.mark.parametrize("name", ["mixed-batch", "max-2"])
def test_inputs_are_untouched_and_two_runs_are_equal(name: str, device: str):
    one = CASES[name]
    inputs = one.inputs(torch.bfloat16, device=device)
    before = [x.detach().clone() for x in inputs]
    first, second = run(one, inputs, device), run(one, inputs, device)
    assert all(torch.equal(old, new) for old, new in zip(before, inputs, strict=True))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["bilinear", "average", "max"])
def test_gradcheck(name: str, device: str):
    one = case((1, Visual((3, 3), name, 2, newline="row")))
    features, embedding, newline, inv_freq = one.inputs(torch.float64, channels=2, device=device)
    plan = one.plan.to(device)
    assert torch.autograd.gradcheck(
        lambda *x: splice(*x, plan, inv_freq)[0], (features, embedding, newline), fast_mode=True
    )


def test_strided_inputs_are_read_as_they_are(device: str):
    one = CASES["mixed-batch"]
    inputs = one.inputs(torch.float64, device=device)
    outputs, gradients = run(one, inputs, device)
    strided = [x.detach().t().contiguous().t().requires_grad_() for x in inputs[:2]]
    wide = inputs[2].detach().repeat_interleave(2)[::2].requires_grad_()
    again, more = run(one, (*strided, wide, inputs[3]), device)
    for a, b in zip((*outputs, *gradients), (*again, *more), strict=True):
        torch.testing.assert_close(a, b)


def test_only_what_trains_gets_a_gradient(device: str):
    one = CASES["mixed-batch"]
    features, embedding, newline, inv_freq = one.inputs(torch.float32, device=device)
    rows, cos, sin = splice(features, embedding.detach(), newline.detach(), one.plan.to(device), inv_freq)
    assert not cos.requires_grad
    assert not sin.requires_grad
    rows.sum().backward()
    assert features.grad is not None
    assert embedding.grad is None
    rows, _, _ = splice(features.detach(), embedding, newline.detach(), one.plan.to(device), inv_freq)
    (gradient,) = torch.autograd.grad(rows.sum(), embedding)
    counts = torch.bincount(one.plan.text[:, 1].long(), minlength=len(embedding))
    assert torch.equal(gradient[:, 0].cpu(), counts.float())


def test_rows_have_the_dtype_of_the_embedding(device: str):
    one = CASES["mixed-batch"]
    features, embedding, newline, inv_freq = one.inputs(torch.float32, device=device)
    low = features.detach().bfloat16().requires_grad_()
    outputs, gradients = run(one, (low, embedding, newline, inv_freq), device)
    exact, wanted = run(one, (low.detach().float().requires_grad_(), embedding, newline, inv_freq), device)
    assert [x.dtype for x in (*outputs, gradients[0])] == [torch.float32] * 3 + [torch.bfloat16]
    torch.testing.assert_close(outputs[0], exact[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients[0], wanted[0].bfloat16(), rtol=2**-7, atol=0)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32], ids=str)
def test_gradients_of_low_precision_are_added_in_float32_and_rounded_once(dtype: torch.dtype, device: str):
    """A unit is less than half a spacing of the first summand: one after the other they would all be lost."""
    first = 2 / torch.finfo(dtype).eps
    one = case((Visual((1, 2), "copy"), *[Visual((1, 2), "copy", again=True)] * 40))
    features, *others = one.inputs(dtype, device=device)
    rows, _, _ = splice(features, *others[:2], one.plan.to(device), others[2])
    grad = torch.ones_like(rows)
    grad[:2] = first
    grad[-1] = 0.0  # the padding
    (gradient,) = torch.autograd.grad(rows, features, grad)
    assert gradient.dtype == dtype
    assert gradient.tolist() == [[first + 40] * features.shape[1]] * 2


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32], ids=str)
def test_a_newline_of_float32_gets_its_gradient_in_float32(dtype: torch.dtype, device: str):
    one = case((Visual((4, 2), "copy", newline="row"),))
    features, embedding, newline, inv_freq = one.inputs(dtype, device=device)
    newline = newline.detach().float().requires_grad_()
    rows, _, _ = splice(features, embedding, newline, one.plan.to(device), inv_freq)
    first = 2 / torch.finfo(dtype).eps
    grad = torch.zeros_like(rows)
    grad[one.plan.newlines.long()] = 1.0
    grad[one.plan.newlines[0].item()] = first
    (gradient,) = torch.autograd.grad(rows, newline, grad)
    assert gradient.dtype == torch.float32
    # Odd, so no number of the low precision.
    assert gradient.tolist() == [first + 3] * len(newline)


@pytest.mark.parametrize("factor", [1.0, 2.5, 3.0, 7.0])
def test_the_factor_is_a_true_division_which_far_positions_tell(factor: float, device: str):
    """At position 30,000 one unit in the last place of a frequency turns a row by a milliradian."""
    one = case((64,))
    positions = torch.arange(30_000, 30_065, dtype=torch.int32)
    plan = replace(one.plan, positions=positions).to(device)
    inv_freq = 10_000.0 ** -(torch.arange(32) / 32)
    features, embedding, newline, _ = one.inputs(torch.float32, device=device)
    _, cos, sin = splice(features, embedding, newline, plan, inv_freq.to(device), factor=factor)
    frequency = inv_freq / torch.tensor(factor)
    angle = (positions[:64].float()[:, None] * frequency).double().repeat(1, 2)
    # Cosines of two libraries differ by a unit in the last place.
    torch.testing.assert_close(cos[:64].cpu().double(), angle.cos(), rtol=0, atol=3e-7)
    torch.testing.assert_close(sin[:64].cpu().double(), angle.sin(), rtol=0, atol=3e-7)
    multiplied = (positions[:64].float()[:, None] * (inv_freq * torch.tensor(1 / factor))).double()
    told = (multiplied.cos() - angle[:, :32].cos()).abs().max() > 1e-5
    assert told == (factor != 1.0)  # or the test could not tell one from the other


def test_what_does_not_fit_the_plan_is_refused(device: str):
    one = CASES["mixed-batch"]
    features, embedding, newline, inv_freq = one.inputs(torch.float32, device=device)
    plan = one.plan.to(device)
    with pytest.raises(ValueError, match="plan reads 91 feature rows"):
        splice(features[:-5], embedding, newline, plan, inv_freq)
    with pytest.raises(ValueError, match="and 11 embeddings"):
        splice(features, embedding[:10], newline, plan, inv_freq)
    with pytest.raises(ValueError, match="do not fit embeddings of 4 channels"):
        splice(features, embedding[:, :4], newline, plan, inv_freq)
