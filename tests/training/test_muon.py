"""Muon: torch's own update, in the numbers that this machine is quick at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidllava.training import optimizer
from vidllava.training.optimizer import Muon, orthogonal


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_it_makes_the_update_that_torch_makes(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]):
    monkeypatch.setattr(optimizer, "_quick_type", lambda device: torch.bfloat16)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([{"params": [ours]}], lr=1e-2, weight_decay=0.3)
    torchs = torch.optim.Muon(
        [theirs], lr=1e-2, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(1, 4):
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert mine.state[ours].keys() == torchs.state[theirs].keys()
    assert not torch.allclose(ours, start, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_a_cpu_without_bfloat16_units_computes_in_float32(monkeypatch: pytest.MonkeyPatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert orthogonal(torch.ones(3, 4)).dtype == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert orthogonal(torch.ones(3, 4)).dtype == torch.bfloat16
