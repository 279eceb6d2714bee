"""Triton or PyTorch? Decided per kind of device, with a reason to print.

    name, reason = choose("cuda")      # ("triton", "CUDA device of compute capability 9.0")

``VIDLLAVA_KERNELS=triton|torch|auto`` overrides; auto, the default, is Triton on a CUDA device that can run
it and the PyTorch path elsewhere. Nothing falls back in silence: ``triton`` where Triton cannot run raises.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Literal

import torch

VARIABLE = "VIDLLAVA_KERNELS"
CHOICES = ("triton", "torch", "auto")
# Below this, Triton's generated code has no bf16 arithmetic to rely on.
MINIMUM_CAPABILITY = (8, 0)


def choose(device: torch.device | str) -> tuple[Literal["triton", "torch"], str]:
    """Which kernels run on `device`, and why. Raises ValueError where the variable asks the impossible."""
    return _choose(torch.device(device).type, os.environ.get(VARIABLE, "auto"))


@cache
def _choose(kind: str, wanted: str) -> tuple[Literal["triton", "torch"], str]:
    if wanted not in CHOICES:
        raise ValueError(f"{VARIABLE}: {wanted!r} is none of {', '.join(CHOICES)}")
    if wanted == "torch":
        return "torch", f"{VARIABLE}=torch"
    obstacle = _obstacle(kind)
    if obstacle is None:
        if kind == "cuda":
            major, minor = torch.cuda.get_device_capability()
            return "triton", f"CUDA device of compute capability {major}.{minor}"
        if wanted == "triton":
            return "triton", "Triton's interpreter: for tests, slow"
        obstacle = f"no CUDA device, device is {kind}"
    if wanted == "triton":
        raise ValueError(f"{VARIABLE}: triton cannot run here: {obstacle} (use {VARIABLE}=auto)")
    return "torch", obstacle


def _obstacle(kind: str) -> str | None:
    """Why Triton cannot serve devices of this kind; None if it can."""
    try:
        interpreted = bool(importlib.import_module("triton").knobs.runtime.interpret)
    except ImportError:
        return "triton is not installed"
    if kind == "cpu" and interpreted:
        return None
    if kind != "cuda":
        return f"no CUDA device, device is {kind}"
    capability = torch.cuda.get_device_capability()
    if capability < MINIMUM_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    return None
