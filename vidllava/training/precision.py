"""In which numbers a step computes: float32, bfloat16, or float16 with a loss scale that is found on the way.

float16 holds nothing below 6e-8 and nothing above 65504: the loss is multiplied by a scale so that small
gradients do not vanish, and the gradients are divided by it. A scale that is too large gives Inf: that step
is not applied and the scale is halved, which is how it is found and no sign of divergence. A loss that is
NaN or Inf itself, or a gradient at scale 1, is one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from vidllava.errors import UsageError
from vidllava.training.optimizer import Optimizers
from vidllava.training.settings import TrainingSettings

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
