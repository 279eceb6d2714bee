"""``vidllava doctor``: what is installed, what was decided for this machine, and why. For bug reports."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import vidllava
from vidllava.bench.rows import version
from vidllava.cli import options
from vidllava.cli.console import Console
from vidllava.errors import VidllavaError

BEFORE_DECODERS = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "numpy",
    "pillow",
)
AFTER_DECODERS = (
    "triton",
    "kernels",
    "flash-attn",
)
VARIABLES = (
    "VIDLLAVA_MODEL",
    "VIDLLAVA_VIDEO_BACKEND",
    "VIDLLAVA_KERNELS",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


def doctor(as_json: options.Json = False) -> None:
    """Versions, devices, and what vidllava decided for this machine, with the reasons.

    vidllava doctor --json > report.json
    """
    from vidllava.media.decoders import decoders

    readers = (decoder.PACKAGE for decoder in decoders().values())
    report: dict[str, Any] = {
        "vidllava": vidllava.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in (*BEFORE_DECODERS, *readers, *AFTER_DECODERS)},
        "decisions": _decisions(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    if as_json:
        Console().json(report, indent=2)
        return
    rows: list[tuple[str, str, str]] = [
        ("vidllava", vidllava.__version__, ""),
        ("python", platform.python_version(), f"{platform.system()} {platform.machine()}"),
    ]
    rows += [
        (name, version or "-", "" if version else "not installed")
        for name, version in report["packages"].items()
    ]
    rows += [(name, made["choice"], made["reason"]) for name, made in report["decisions"].items()]
    rows += [(name, value, "set in the environment") for name, value in report["environment"].items()]
    Console().table(("what", "value", "why"), rows)


def _decisions() -> dict[str, dict[str, Any]]:
    """Every choice that depends on the machine, made by the code that a run would use."""
    import torch

    from vidllava.backbone.load import choose_device, choose_dtype, choose_kernels
    from vidllava.backbone.locate import locate
    from vidllava.media.decode import choose_backend

    device, why_device = choose_device("auto")
    dtype, why_dtype = choose_dtype("auto", device)
    kernels, why_kernels = _or_none(lambda: choose_kernels(device))
    backend, why_backend = _or_none(lambda: choose_backend(None))
    asked = os.environ.get("VIDLLAVA_MODEL", "auto")
    model, why_model = _or_none(lambda: locate(asked))
    found = {
        "device": (str(device), why_device),
        "dtype": (str(dtype).removeprefix("torch."), why_dtype),
        "kernels": (kernels, why_kernels),
        "video backend": (backend, why_backend),
        "model": (model, f"{asked}: {why_model}"),
        "threads": (str(torch.get_num_threads()), f"{os.cpu_count()} CPU cores"),
    }
    return {name: {"choice": choice, "reason": reason} for name, (choice, reason) in found.items()}


def _or_none(decide: Callable[[], tuple[object, object]]) -> tuple[str, str]:
    """A decision, or "none" and what stands against it: a diagnosis must not end at what it should find."""
    try:
        choice, reason = decide()
    except VidllavaError as fault:
        return "none", str(fault)
    return str(choice), str(reason)
