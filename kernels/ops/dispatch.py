"""The choice of Triton or PyTorch for a device, with a reason to print.

    name, reason = choose("cuda")      # ("triton", "CUDA device of compute capability 9.0")

``VIDLLAVA_KERNELS=triton|torch|auto`` overrides; auto, the default, is Triton on a CUDA device that can run
it and the PyTorch path elsewhere. Nothing falls back in silence: ``triton`` where Triton cannot run raises.

One size is decided apart: `launch_bound` says where `rotate` on CUDA is a matter of calls, not of bytes.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType
from typing import Literal

import torch

VARIABLE = "VIDLLAVA_KERNELS"
CHOICES = ("triton", "torch", "auto")
# Below this, Triton's generated code has no bf16 arithmetic to rely on.
MINIMUM_CAPABILITY = (8, 0)
# Elements of q: 16 tokens of a 7B model's 28 heads of 128, 64 of a 0.5B model's.
LAUNCH_BOUND_ELEMENTS = 1 << 16


def choose(device: torch.device | str) -> tuple[Literal["triton", "torch"], str]:
    """Which kernels run on `device`, and why. Raises ValueError where the variable asks the impossible."""
    return _choose(torch.device(device), os.environ.get(VARIABLE, "auto"))


def launch_bound(kind: str, num_elements: int) -> bool:
    """Whether rotating a q of `num_elements` on such a device is a matter of launches, as in a decode step.

    Then PyTorch's own operations rotate, though Triton could. transformers' chain launches ten kernels for q
    and k, ours six or eight, none of them larger: so a decode step cannot be slower than eager, which for one
    launch through Triton's launcher, in Python, is not certain (Liger's own table has a fused rotary at 0.46
    times eager where launches dominate). In a traced graph the operator stays one node and one launch.
    ``VIDLLAVA_KERNELS=triton`` means Triton at every size. Reasoned, not timed: no GPU has run this.
    """
    automatic = os.environ.get(VARIABLE, "auto") == "auto"
    return automatic and kind == "cuda" and num_elements <= LAUNCH_BOUND_ELEMENTS


def implementation(operator: str, device: torch.device, num_elements: int | None = None) -> ModuleType:
    """The module whose functions serve `operator` ("splice" or "rotate") on `device`, by size too."""
    kind = device.type
    if kind == "cuda" and num_elements is not None and launch_bound(kind, num_elements):
        return _load(operator, device, "torch")
    return _load(operator, device, os.environ.get(VARIABLE, "auto"))


@cache
def _load(operator: str, device: torch.device, wanted: str) -> ModuleType:
    return importlib.import_module(f"vidllava.kernels.{operator}_{_choose(device, wanted)[0]}")


@cache
def _choose(device: torch.device, wanted: str) -> tuple[Literal["triton", "torch"], str]:
    if wanted not in CHOICES:
        raise ValueError(f"{VARIABLE}: {wanted!r} is none of {', '.join(CHOICES)}")
    if wanted == "torch":
        return "torch", f"{VARIABLE}=torch"
    kind, obstacle = device.type, _obstacle(device)
    if obstacle is None:
        if kind == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            return "triton", f"CUDA device of compute capability {major}.{minor}"
        if wanted == "triton":
            return "triton", "Triton's interpreter: for tests, slow"
        obstacle = f"no CUDA device, device is {kind}"
    if wanted == "triton":
        raise ValueError(f"{VARIABLE}: triton cannot run here: {obstacle} (use {VARIABLE}=auto)")
    return "torch", obstacle


def _obstacle(device: torch.device) -> str | None:
    """Why Triton cannot serve this device; None if it can."""
    kind = device.type
    try:
        interpreted = bool(importlib.import_module("triton").knobs.runtime.interpret)
    except ImportError:
        return "triton is not installed"
    if kind == "cpu" and interpreted:
        return None
    if kind != "cuda":
        return f"no CUDA device, device is {kind}"
    capability = torch.cuda.get_device_capability(device)
    if capability < MINIMUM_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    return None
