"""What besides the weights a run must save to go on bit for bit: optimizer moments and random numbers.

Tensors only, by parameter name, in safetensors: nothing that could run code when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vidllava.errors import ModelError
from vidllava.training.optimizer import Optimizers

OPTIMIZER_FILE = "optimizer.safetensors"
RANDOM_FILE = "random.safetensors"
Named = Iterable[tuple[str, nn.Parameter]]


def save_optimizer(optimizer: Optimizers, named: Named, folder: Path) -> None:
    """Write the optimizers' state of the `named` parameters that have one."""
    tensors = {}
    for name, parameter in named:
        for moment, value in optimizer.owner(parameter).state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / OPTIMIZER_FILE)


def load_optimizer(optimizer: Optimizers, named: Named, folder: Path) -> None:
    """Restore what `save_optimizer` wrote. Raises ModelError if it belongs to other parameters."""
    saved: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in _load(folder / OPTIMIZER_FILE).items():
        moment, _, name = key.partition(".")
        saved.setdefault(name, {})[moment] = value
    for name, parameter in named:
        state = saved.pop(name, {})  # empty: it never had a gradient
        owner = optimizer.owner(parameter)
        wanted = (
            {"momentum_buffer"} if isinstance(owner, torch.optim.Muon) else {"step", "exp_avg", "exp_avg_sq"}
        )
        moments = [value for moment, value in state.items() if moment != "step"]
        if state and (set(state) != wanted or any(value.shape != parameter.shape for value in moments)):
            raise ModelError(
                folder / OPTIMIZER_FILE,
                f"does not fit parameter {name}",
                "resume with the settings that it was saved with",
            )
        if state:
            # A fused AdamW keeps even its step count beside the parameter.
            owner.state[parameter] = {moment: value.to(parameter.device) for moment, value in state.items()}
    if saved:
        raise ModelError(
            folder / OPTIMIZER_FILE,
            f"has a state for {min(saved)}, which is not trained",
            "resume with the settings that it was saved with",
        )


def random_state(device: torch.device) -> torch.Tensor:
    """uint8 [n]: torch's generators on the CPU and, where used, the CUDA device; n is equal on all ranks."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    return torch.cat(parts)


def restore_random(state: torch.Tensor, device: torch.device) -> None:
    """Undo `random_state`. A state from another kind of device restores the CPU's part."""
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size])
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:], device)


def save_random(states: torch.Tensor, folder: Path) -> None:
    """Write the states of all processes, uint8 [world_size, n]."""
    save_file({"states": states.cpu().contiguous()}, folder / RANDOM_FILE)


def load_random(folder: Path, rank: int) -> torch.Tensor:
    """The state of process `rank`. Raises ModelError if there is none."""
    states = _load(folder / RANDOM_FILE).get("states")
    if states is None or rank >= len(states):
        raise ModelError(
            folder / RANDOM_FILE,
            f"holds no random numbers of process {rank}",
            "resume with as many processes as it was saved with",
        )
    return states[rank].clone()


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as fault:
        raise ModelError(path, f"cannot be read: {fault}", "use an earlier checkpoint") from None
