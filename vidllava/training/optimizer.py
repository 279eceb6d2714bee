"""The optimizers: AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the
nearest orthogonal matrix. It learns from far fewer samples where a model starts from random weights, as
nano does; a released checkpoint was trained with AdamW and is best fine-tuned with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vidllava.training import parameters
from vidllava.training.muon import Muon
from vidllava.training.settings import TrainingSettings


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
