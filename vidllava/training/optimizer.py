"""Optimizers (AdamW, or Muon for hidden matrices), the schedule of their rates, and number formats.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the
nearest orthogonal matrix. It learns from far fewer samples where a model starts from random weights, as
nano does; a released checkpoint was trained with AdamW and is best fine-tuned with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from vidllava.errors import UsageError
from vidllava.training import parameters
from vidllava.training.settings import Scheduler, TrainingSettings

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


class Optimizers:
    """Optimizers that step together; each parameter belongs to exactly one of them.

    ``others`` are groups for AdamW, ``matrices`` groups for Muon; ``adamw`` are AdamW's own options.
    """

    def __init__(
        self,
        others: Sequence[dict[str, Any]],
        matrices: Sequence[dict[str, Any]] = (),
        *,
        muon_decay: float = 0.1,
        **adamw: Any,
    ) -> None:
        parts: list[torch.optim.Optimizer] = []
        if others:
            parts.append(torch.optim.AdamW(list(others), **adamw))
        if matrices:
            parts.append(Muon(list(matrices), weight_decay=muon_decay))
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts: to set rates."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that they update."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def owner(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        """The part that updates ``parameter``."""
        for part in self.parts:
            if any(parameter is member for group in part.param_groups for member in group["params"]):
                return part
        raise KeyError("the parameter is not trained")

    def step(self) -> None:
        """Apply the gradients."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def build_optimizers(model: nn.Module, settings: TrainingSettings) -> Optimizers:
    """What ``settings.optim`` names, over the trainable parameters of ``model``."""
    groups = parameters.groups(model, settings)
    return Optimizers(
        [group for group in groups if not group["use_muon"]],
        [group for group in groups if group["use_muon"]],
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )


def num_warmup_steps(total_steps: int, *, ratio: float, steps: int | None) -> int:
    """How many steps warm up: `steps` if given, else the share `ratio`, rounded up as Hugging Face does."""
    return min(steps if steps is not None else math.ceil(total_steps * ratio), total_steps)


def schedule_factor(step: int, *, total_steps: int, warmup_steps: int, kind: Scheduler) -> float:
    """What the peak rates are multiplied with in `step`, counted from 0.

    Rises linearly and reaches 1 in the last step of the warm-up (the first step already learns); then falls
    along half a cosine or a line towards 0 after the last step, or stays.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0 - progress if kind == "linear" else 1.0


Kind = Literal["no", "bf16", "fp16"]
FIRST_SCALE = 2.0**16


def precision_of(settings: TrainingSettings) -> Kind:
    """What the settings ask for, or else `accelerate launch --mixed_precision`. Raises UsageError for fp8."""
    if settings.bf16 or settings.fp16:
        return "bf16" if settings.bf16 else "fp16"
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "bf16", "fp16"):
        raise UsageError("accelerate launch", f"mixed precision {asked} is not supported", "bf16 or fp16")
    return asked  # type: ignore[return-value]


class Precision:
    """How one process computes its steps; accelerate itself sees to bfloat16."""

    def __init__(self, kind: Kind, device: torch.device) -> None:
        self.device = device
        self.scaler: Any = torch.amp.GradScaler(device.type, FIRST_SCALE) if kind == "fp16" else None
        self.scale_was_too_large = False
        """Whether the last step was not applied for no other reason."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The forward pass runs in here."""
        if self.scaler is None:
            yield
            return
        with torch.autocast(self.device.type, torch.float16):
            yield

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to go backward from."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizers) -> None:
        """Give the gradients their true size."""
        if self.scaler is not None:
            for part in optimizer.parts:
                self.scaler.unscale_(part)

    def done(self, *, loss: float, applied: bool) -> None:
        """After a step, applied or not, with this mean loss of all processes: find the next scale."""
        if self.scaler is None:
            return
        self.scale_was_too_large = not applied and math.isfinite(loss) and self.scaler.get_scale() > 1
        self.scaler.update()

    def row(self) -> dict[str, float]:
        """What metrics say of it."""
        return {} if self.scaler is None else {"loss_scale": float(self.scaler.get_scale())}

    def state(self) -> dict[str, Any] | None:
        """What a resumed run needs: JSON values."""
        return None if self.scaler is None else self.scaler.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Undo ``state``."""
        if self.scaler is not None and state is not None:
            self.scaler.load_state_dict(state)
