"""Whom are the kernels compared with? Every path for the same work that can be had here, or why it cannot.

transformers            its own functions, as its model calls them
transformers_compiled   the same under torch.compile
liger, flash_attn       their fused rotations, where they can be imported
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass

import torch
import torch._functorch.config

from vidllava.bench.paths import Constants, Inputs, Path, gradients
from vidllava.bench.shapes import Case

NAMES = ("transformers", "transformers_compiled", "liger", "flash_attn")


@dataclass(frozen=True, eq=False)
class Baseline:
    """A path, or the reason why there is none. ``captures``: it may stand in a CUDA graph (no host sync)."""

    name: str
    path: Path | None
    reason: str | None = None
    captures: bool = True


def baselines(case: Case, constants: Constants, inputs: Inputs, *, compiled: bool) -> list[Baseline]:
    """One entry for each of NAMES."""
    from vidllava.bench import transformers_path

    reason = transformers_path.why_not(case)
    # The count of placeholders is read back to the host, and so is what masked_scatter's backward needs.
    captures = case.kernel == "rotate"
    plain = None if reason else transformers_path.transformers_path(case, constants)
    found = [Baseline("transformers", plain, reason, captures)]
    if plain is None or not compiled:
        found.append(Baseline("transformers_compiled", None, reason or "not asked for (--compile)"))
    else:
        found.append(_compiled(plain, inputs, captures))
    return [*found, *(_fused(name, case, constants, inputs) for name in ("liger", "flash_attn"))]


def _compiled(plain: Path, inputs: Inputs, captures: bool) -> Baseline:
    """Compiled now, in both directions, so that no sample is a compilation."""
    name = "transformers_compiled"
    torch.compiler.reset()
    # A backward pass that is timed alone keeps its graph, which donated buffers do not allow.
    torch._functorch.config.donated_buffer = False
    # transformers' check of the placeholder count breaks the graph, as it does in a model: no news.
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    path: Path = torch.compile(plain, dynamic=False)
    try:
        with torch.no_grad():
            path(inputs.leaves)
        gradients(path(inputs.leaves), inputs)
    except Exception as fault:
        # Whatever a compiler, a missing C++ compiler or a driver raises: it is this cell's reason.
        return Baseline(name, None, f"failed: {_first_line(fault)}")
    return Baseline(name, path, captures=captures)


def _fused(name: str, case: Case, constants: Constants, inputs: Inputs) -> Baseline:
    if case.kernel != "rotate":
        return Baseline(name, None, "has no such operation")
    device = inputs.leaves[0].device
    try:
        path = _liger(constants) if name == "liger" else _flash_attn(case, constants)
    except ImportError:
        return Baseline(name, None, "not installed")
    if device.type != "cuda":
        return Baseline(name, None, f"runs on CUDA, device is {device.type}")
    if case.rotated != case.head_size and name == "liger":
        return Baseline(name, None, "has no partial rotation")
    try:
        # Liger turns its inputs in place: timing bears that, the numbers of a check would not.
        leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in inputs.leaves)
        upstream = tuple(gradient.clone() for gradient in inputs.upstream)
        gradients(path(leaves), Inputs(leaves, upstream))
    except Exception as fault:
        return Baseline(name, None, f"failed: {_first_line(fault)}")
    return Baseline(name, path)


def _liger(constants: Constants) -> Path:
    rope = importlib.import_module("liger_kernel.transformers.rope").liger_rotary_pos_emb
    return lambda leaves: rope(leaves[0], leaves[1], constants.cos, constants.sin)


def _flash_attn(case: Case, constants: Constants) -> Path:
    """One call for each of q and k, in its layout [B, S, H, D], with tables of half the width."""
    apply = importlib.import_module("flash_attn.layers.rotary").apply_rotary_emb
    half = case.rotated // 2
    cos, sin = (table[0, :, :half].contiguous() for table in (constants.cos, constants.sin))
    return lambda leaves: tuple(apply(x.transpose(1, 2), cos, sin).transpose(1, 2) for x in leaves)


def _first_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return (lines[0] if lines else type(fault).__name__)[:200]
