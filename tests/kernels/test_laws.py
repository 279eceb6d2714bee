"""Laws that hold whatever the numbers: of pooling, of rotation, of linear scaling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.plans import Visual, case
from vidllava.kernels import rotary_tables, rotate, splice
from vidllava.kernels.block import axis_matrix

INV_FREQ = 10_000.0 ** -(torch.arange(4) / 4)


def tables(
    positions: Tensor, factor: float = 1.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    return rotary_tables(positions, INV_FREQ, factor=factor, attention_scaling=1.0, dtype=dtype)


@pytest.mark.parametrize("mode", ["bilinear", "average", "max"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_a_constant_grid_pools_to_the_constant(mode: str, stride: int, device: str):
    one = case((Visual((9, 7), mode, stride),))
    features, embedding, newline, inv_freq = one.inputs(torch.float64, channels=3, device=device)
    constant = torch.tensor([1.5, -2.0, 7.25], dtype=torch.float64, device=device)
    rows, _, _ = splice(constant.expand_as(features), embedding, newline, one.plan.to(device), inv_freq)
    torch.testing.assert_close(rows[:-1], constant.expand_as(rows[:-1]), rtol=0, atol=1e-14)


def test_halving_an_even_grid_is_the_mean_of_two_by_two(device: str):
    bilinear, average = (case((Visual((8, 6), mode, 2),)) for mode in ("bilinear", "average"))
    inputs = bilinear.inputs(torch.float64, device=device)
    a, b = (splice(*inputs[:3], one.plan.to(device), inputs[3])[0] for one in (bilinear, average))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("size_in", "size_out"), [(27, 14), (27, 9), (7, 16), (5, 5), (1, 3), (93, 81)])
def test_bilinear_weights_are_a_partition(size_in: int, size_out: int):
    matrix = axis_matrix(size_in, size_out, torch.float64)
    torch.testing.assert_close(matrix.sum(1), torch.ones(size_out, dtype=torch.float64))
    assert bool((matrix >= 0).all())
    # 27 -> 14: every cell is read once, except the middle one, which two outputs read (PERF 2.3).
    if (size_in, size_out) == (27, 14):
        assert (matrix != 0).sum(0).tolist() == [1] * 13 + [2] + [1] * 13


def test_pooling_commutes_with_a_linear_layer(device: str):
    one = case((Visual((5, 5), "bilinear", 2),))
    features, embedding, newline, inv_freq = one.inputs(torch.float64, device=device)
    weight = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    plan = one.plan.to(device)
    before = splice(features @ weight + 3.0, embedding, newline, plan, inv_freq)[0]
    after = splice(features, embedding, newline, plan, inv_freq)[0] @ weight + 3.0
    torch.testing.assert_close(before[:-1], after[:-1], rtol=0, atol=1e-13)


def test_factor_one_is_plain_rope(device: str):
    one = case((6,))
    features, embedding, newline, inv_freq = one.inputs(torch.float32, device=device)
    plan = one.plan.to(device)
    _, cos, sin = splice(features, embedding, newline, plan, inv_freq)
    angle = torch.outer(torch.arange(6.0), inv_freq.cpu())
    torch.testing.assert_close(cos[:6].cpu(), torch.cat((angle, angle), 1).cos(), rtol=0, atol=2.4e-7)
    torch.testing.assert_close(sin[:6].cpu(), torch.cat((angle, angle), 1).sin(), rtol=0, atol=2.4e-7)


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5, 4.0])
def test_scaling_by_a_factor_is_dividing_the_positions(factor: float, device: str):
    one = case((7,))
    features, embedding, newline, inv_freq = one.inputs(torch.float32, device=device)
    plan = one.plan.to(device)
    _, cos, sin = splice(features, embedding, newline, plan, inv_freq, factor=factor)
    angle = torch.outer(torch.arange(7.0) / factor, inv_freq.cpu())
    torch.testing.assert_close(cos[:7, :3].cpu(), angle.cos(), rtol=0, atol=5e-7)
    torch.testing.assert_close(sin[:7, 3:].cpu(), angle.sin(), rtol=0, atol=5e-7)


def test_tables_of_two_factors_are_never_confused():
    positions = torch.arange(5)[None]
    plain, scaled = tables(positions), tables(positions, factor=2.0)
    assert not torch.equal(plain[0], scaled[0])
    assert torch.equal(tables(2 * positions, factor=2.0)[0], plain[0])


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_attention_sees_relative_positions_only(factor: float, device: str):
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 1, 6, 8, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    scores = []
    for shift in (0, 64):
        cos, sin = (t.to(device) for t in tables(torch.arange(6)[None] + shift, factor))
        turned_q, turned_k = rotate(q, k, cos, sin)
        scores.append(turned_q @ turned_k.transpose(-1, -2))
    # The angles are float32, so the scores agree to its rounding of an angle of 70.
    torch.testing.assert_close(*scores, rtol=0, atol=1e-4)


def test_turning_back_gives_what_was_turned(device: str):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64).to(device)
    cos, sin = (t.to(device) for t in tables(torch.arange(5)[None]))
    turned, _ = rotate(q, q, cos, sin)
    # The tables hold float32 cosines: their squares add up to 1 within its rounding.
    torch.testing.assert_close(rotate(turned, turned, cos, -sin)[0], q, rtol=0, atol=1e-6)
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1), rtol=0, atol=1e-6)
    assert torch.equal(turned[:, :, 0], q[:, :, 0])
