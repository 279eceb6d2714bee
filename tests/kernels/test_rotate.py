"""Rotate turns q and k as the definition says, whatever their shapes, strides and heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.plans import DTYPES
from tests.tolerance import assert_as_good_as
from vidllava.kernels import rotary_tables, rotate
from vidllava.kernels.reference import rotate_reference

# batch, heads of q, heads of k, tokens, head size, rotated channels, one table for all samples
SHAPES = {
    "qwen2-0.5b": (1, 14, 2, 9, 64, 64, True),
    "llama-7b": (1, 4, 4, 9, 128, 128, True),
    "yi-34b": (1, 7, 1, 5, 128, 128, True),
    "mistral-7b": (2, 8, 2, 3, 128, 128, False),
    "13-heads-size-80": (2, 13, 13, 5, 80, 80, False),
    "partial": (1, 3, 1, 7, 24, 10, False),
    "partial-odd-rest": (1, 2, 1, 4, 13, 6, True),
    "217-tokens": (1, 5, 1, 217, 16, 16, True),
    "one-token": (3, 4, 2, 1, 8, 8, False),
    "73-over-1": (1, 73, 1, 2, 4, 4, True),
    "two-channels": (1, 1, 1, 3, 2, 2, True),
}


def make(shape: tuple, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """q and k as transformers makes them (transposed views), cos, sin, and gradients for both results."""
    batch, q_heads, k_heads, length, size, rotated, shared = shape
    generator = torch.Generator().manual_seed(3)

    def heads(count: int) -> Tensor:
        x = torch.randn(batch, length, count, size, generator=generator, dtype=torch.float64)
        return x.to(device, dtype).transpose(1, 2)

    positions = torch.arange(length) + 50 * torch.arange(1 if shared else batch)[:, None]
    inv_freq = 100.0 ** -(torch.arange(rotated // 2) / (rotated // 2))
    tables = rotary_tables(positions, inv_freq, factor=2.5, attention_scaling=1.0, dtype=dtype)
    return [heads(q_heads), heads(k_heads), *(t.to(device) for t in tables), heads(q_heads), heads(k_heads)]


def run(tensors: list[Tensor], function=rotate) -> list[Tensor]:
    """The results, and the gradients of q and k."""
    q, k, cos, sin, grad_q, grad_k = tensors
    q, k = q.detach().requires_grad_(), k.detach().requires_grad_()
    turned = function(q, k, cos, sin)
    return [*turned, *torch.autograd.grad(turned, (q, k), (grad_q, grad_k))]


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_those_of_the_definition(name: str, device: str, poisoned: None):
    results = run(make(SHAPES[name], torch.float64, device))
    for result, truth in zip(results, run(make(SHAPES[name], torch.float64), rotate_reference), strict=True):
        torch.testing.assert_close(result.cpu(), truth, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name", ["qwen2-0.5b", "llama-7b", "yi-34b", "13-heads-size-80", "partial", "217-tokens"]
)
def test_low_precision_is_as_good_as_the_eager_chain(name: str, dtype: torch.dtype, device: str):
    exact = [x.double() for x in make(SHAPES[name], dtype)]
    eager = run(make(SHAPES[name], dtype), rotate_reference)
    results = run(make(SHAPES[name], dtype, device))
    for what, result, plain, truth in zip(
        ("q", "k", "dq", "dk"), results, eager, run(exact, rotate_reference), strict=True
    ):
        assert_as_good_as(result, plain, truth, name=what)


@pytest.mark.parametrize("grad", [False, True])
def test_inputs_are_untouched_and_two_runs_are_equal(grad: bool, device: str):
    tensors = make(SHAPES["partial"], torch.bfloat16, device)
    before = [x.clone() for x in tensors]
    with torch.set_grad_enabled(grad):
        first, second = (rotate(*tensors[:2].copy(), *tensors[2:4]) for _ in range(2))
        if grad:
            first, second = run(tensors), run(tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


def test_an_operators_results_have_the_strides_of_their_inputs(device: str):
    """What a traced graph was promised. (Outside of one, few tokens may be two views of one tensor.)"""
    q, k, cos, sin, *_ = make(SHAPES["qwen2-0.5b"], torch.float32, device)
    turned_q, turned_k = torch.ops.vidllava.rotate(q, k.contiguous(), cos, sin, False)
    assert turned_q.stride() == q.stride()
    assert turned_k.stride() == k.contiguous().stride()


def test_heads_of_one_packed_projection_are_read_as_they_are(device: str):
    q, k, cos, sin, *_ = make((2, 6, 2, 5, 8, 8, False), torch.float64, device)
    packed = torch.cat((q, k, k), 1).transpose(1, 2).contiguous().transpose(1, 2)
    turned = rotate(packed[:, :6], packed[:, 6:8], cos, sin)
    for a, b in zip(turned, rotate(q, k, cos, sin), strict=True):
        assert torch.equal(a, b)


def test_a_gradient_that_is_one_number_for_all_is_no_special_case(device: str):
    q, k, cos, sin, *_ = make(SHAPES["partial"], torch.float64, device)
    leaves = [x.detach().requires_grad_() for x in (q, k)]
    sum(x.sum() for x in rotate(*leaves, cos, sin)).backward()
    ones = run([q, k, cos, sin, torch.ones_like(q), torch.ones_like(k)])
    assert all(torch.equal(a.grad, b) for a, b in zip(leaves, ones[2:], strict=True))


def test_a_result_that_is_not_used_costs_the_other_nothing(device: str):
    q, k, cos, sin, grad_q, _ = make(SHAPES["partial"], torch.float64, device)
    q = q.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(rotate(q, k, cos, sin)[0], q, grad_q)
    assert torch.equal(gradient, run([q, k, cos, sin, grad_q, torch.zeros_like(k)])[2])


def test_gradcheck_and_second_order(device: str):
    q, k, cos, sin, *_ = make((1, 2, 1, 2, 4, 2, True), torch.float64, device)
    q, k = q.detach().requires_grad_(), k.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: rotate(a, b, cos, sin), (q, k), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda a, b: rotate(a, b, cos, sin), (q, k), fast_mode=True)


def test_nothing_to_rotate_is_no_error(device: str):
    q, k, cos, sin, *_ = make((1, 2, 1, 0, 4, 4, True), torch.float32, device)
    assert rotate(q, k, cos, sin)[0].shape == (1, 2, 0, 4)


@pytest.mark.parametrize(
    ("q", "k", "table", "message"),
    [
        ((1, 2, 3, 8), (1, 2, 4, 8), (1, 3, 8), "only the heads may differ"),
        ((2, 2, 3, 8), (1, 2, 3, 8), (2, 3, 8), "only the heads may differ"),
        ((2, 2, 3, 8), (2, 2, 3, 8), (3, 3, 8), r"expected \[2 or 1, 3, even and at most 8\]"),
        ((2, 2, 3, 8), (2, 2, 3, 8), (1, 3, 10), "at most 8"),
        ((2, 2, 3, 8), (2, 2, 3, 8), (1, 3, 7), "even"),
        ((2, 2, 3, 8), (2, 2, 3, 8), (3, 8), "do not fit"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(q: tuple, k: tuple, table: tuple, message: str, device: str):
    cos = torch.zeros(table)
    with pytest.raises(ValueError, match=message):
        rotate(torch.zeros(q), torch.zeros(k), cos, cos)


@pytest.mark.parametrize("shape", ["qwen2-0.5b", "partial", "one-token"])
def test_permission_to_overwrite_changes_no_value(shape: str, device: str):
    q, k, cos, sin, *_ = make(SHAPES[shape], torch.float32, device)
    expected = rotate(q, k, cos, sin)
    turned = rotate(q.clone(), k.clone(), cos, sin, may_overwrite=True)
    assert all(torch.equal(a, b) for a, b in zip(turned, expected, strict=True))


def test_many_tokens_are_turned_where_they_lie(device: str):
    q, k, cos, sin, *_ = make((1, 14, 14, 1300, 64, 40, True), torch.float32, device)
    expected = rotate(q, k, cos, sin)
    turned = rotate(q, k, cos, sin, may_overwrite=True)
    assert [a.data_ptr() for a in turned] == [q.data_ptr(), k.data_ptr()]
    assert all(torch.equal(a, b) for a, b in zip(turned, expected, strict=True))


@pytest.mark.parametrize("grad", [False, True])
def test_what_trains_or_is_expanded_is_never_overwritten(grad: bool, device: str):
    q, k, cos, sin, *_ = make(SHAPES["partial"], torch.float64, device)
    trained = q.clone().requires_grad_()
    with torch.set_grad_enabled(grad):
        rotate(trained, k.clone(), cos, sin, may_overwrite=True)
    wide = q[:, :1].expand(-1, 3, -1, -1)
    before = wide.clone()
    turned = rotate(wide, k.clone(), cos, sin, may_overwrite=True)
    assert torch.equal(trained, q)
    assert torch.equal(wide, before)
    assert torch.equal(turned[0], rotate(before, k, cos, sin)[0])


def test_overwriting_what_a_backward_pass_needs_is_seen_by_autograd(device: str):
    q, k, cos, sin, *_ = make(SHAPES["partial"], torch.float64, device)
    weight = torch.ones_like(q).requires_grad_()
    loss = (weight * q).sum()  # keeps q
    turned = rotate(q, k, cos, sin, may_overwrite=True)
    assert turned[0].data_ptr() == q.data_ptr()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
