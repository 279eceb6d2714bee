"""Muon with its matrix products in numbers that the machine is quick at.

torch's Muon orthogonalises in bfloat16. A CPU without bfloat16 units computes that slower than float32 (for
192 x 768 on one core: 50 ms against 7) and less exactly, so there it is float32. All else is torch's: Keller
Jordan's coefficients, and rates scaled to the size of AdamW's updates (Liu et al. 2025), so that one rate
serves all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_SMALL = 1e-7


class Muon(torch.optim.Muon):
    """Momentum, made orthogonal, for matrices between hidden layers."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float = 1e-3, weight_decay: float = 0.1
    ) -> None:
        super().__init__(
            groups, lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        grad, momentum = parameter.grad, group["momentum"]
        assert grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        direction = orthogonal(grad.lerp(average, momentum))  # Nesterov's
        rate = group["lr"] * 0.2 * math.sqrt(max(parameter.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction.to(parameter.dtype), alpha=-rate)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Near the closest orthogonal matrix to ``matrix`` [rows, columns]: Newton-Schulz, five steps."""
    found = matrix.to(_quick_type(matrix.device))
    if tall := matrix.shape[0] > matrix.shape[1]:
        found = found.T
    found = found / found.norm().clamp(min=_SMALL)
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), found, beta=_A)
    return found.T if tall else found


def _quick_type(device: torch.device) -> torch.dtype:
    if device.type != "cpu":
        return torch.bfloat16
    quick = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if quick else torch.float32
