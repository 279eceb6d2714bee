"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from vidllava.training.settings import Scheduler


def warmup(total_steps: int, *, ratio: float, steps: int | None) -> int:
    """How many steps warm up: `steps` if given, else the share `ratio`, rounded up as Hugging Face does."""
    return min(steps if steps is not None else math.ceil(total_steps * ratio), total_steps)


def factor(step: int, *, total_steps: int, warmup_steps: int, kind: Scheduler) -> float:
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
