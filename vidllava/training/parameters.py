"""Which parameters learn, in which module, how fast, with or without decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vidllava.training.settings import MODULES, Module, TrainingSettings


def module_of(name: str) -> Module:
    """The module of a parameter by its name. The newline vector and the head belong to the language model,
    as in LLaVA-NeXT's `--mm_tunable_parts`."""
    if "vision_tower." in name:
        return "vision"
    return "projector" if "multi_modal_projector." in name else "llm"


def freeze(model: nn.Module, frozen: Iterable[Module]) -> None:
    """Stop the `frozen` modules from learning. What the forward pass never reads was frozen at loading."""
    still = set(frozen)
    for name, parameter in model.named_parameters():
        if module_of(name) in still:
            parameter.requires_grad_(False)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that learn, in the model's order; tied weights once."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Matrices and kernels decay; biases, norms and the newline vector do not."""
    return parameter.ndim > 1 and not name.endswith("bias")


def is_hidden_matrix(name: str, parameter: torch.Tensor) -> bool:
    """What Muon is made for: matrices between hidden layers; not embeddings, the head or kernels."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head"))


def module_rates(settings: TrainingSettings) -> dict[Module, float]:
    """The peak learning rate of each module."""
    resolved = settings.resolved()
    llm, vision, projector = resolved.learning_rate, resolved.vision_lr, resolved.projector_lr
    assert llm is not None
    assert vision is not None
    assert projector is not None
    return {"vision": vision, "projector": projector, "llm": llm}


def groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """One group per module, optimizer and decay, with its `module`, `use_muon` and peak rate `peak_lr`."""
    rates = module_rates(settings)
    found = []
    for module in MODULES:
        own = [(name, p) for name, p in trainable(model) if module_of(name) == module]
        muon = [(n, p) for n, p in own if settings.optim == "muon" and is_hidden_matrix(n, p)]
        chosen = {name for name, _ in muon}
        rest = [(n, p) for n, p in own if n not in chosen]
        scaled = rates[module] * settings.muon_lr_scale
        for members, rate, decay, use_muon in (
            ([p for _, p in muon], scaled, True, True),
            ([p for n, p in rest if decays(n, p)], rates[module], True, False),
            ([p for n, p in rest if not decays(n, p)], rates[module], False, False),
        ):
            if members:
                found.append(
                    {
                        "params": members,
                        "lr": rate,
                        "peak_lr": rate,
                        "weight_decay": settings.weight_decay if decay else 0.0,
                        "module": module,
                        "use_muon": use_muon,
                    }
                )
    return found


def table(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """What learns, one row per module: `module`, `parameters`, `trainable`, `learning_rate`."""
    rates = module_rates(settings)
    rows = []
    for module in MODULES:
        own = [p for name, p in model.named_parameters() if module_of(name) == module]
        learning = sum(p.numel() for p in own if p.requires_grad)
        rows.append(
            {
                "module": module,
                "parameters": sum(p.numel() for p in own),
                "trainable": learning,
                "learning_rate": rates[module] if learning else 0.0,
            }
        )
    return rows
