"""What share of a whole prefill is a kernel? The vision tower, the projector and the language model, timed.

    prefills = Prefills(device, threads=1)
    prefills.of(case, torch.float32)     # Prefill(ms=6210.0, how="measured: one language layer x 24, ...")

Random weights; our rotation inside. nano runs whole; of a larger model one layer of each kind is timed and
multiplied by their number. Where even that would take long, the time is computed from floating-point
operations and the rate of a matrix product on this machine, and `how` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from vidllava.backbone.memory import free_bytes
from vidllava.bench.clock import quantile
from vidllava.bench.shapes import MODELS, Case, ModelSizes

M = TypeVar("M", bound=nn.Module)
# What one layer may take; below QUICK_SECONDS a median of REPEATS is affordable too.
MOST_SECONDS, QUICK_SECONDS, REPEATS = 10.0, 0.5, 3
# Frames that the tower reads at once: as the backbone on CUDA, one of OneVision's on a CPU.
CELLS_AT_ONCE = {"cuda": 16 * 729, "cpu": 729}
RATE_SIZE = {"cuda": 4096, "cpu": 512}


@dataclass(frozen=True)
class Prefill:
    """Milliseconds of a prefill, and in which words to say where they are from."""

    ms: float
    how: str


class Prefills:
    """Each prefill timed once, when it is first asked for."""

    def __init__(self, device: torch.device, *, threads: int) -> None:
        self._device, self._threads = device, threads
        self._known: dict[tuple[object, ...], Prefill] = {}
        self._rates: dict[torch.dtype, float] = {}

    def of(self, case: Case, dtype: torch.dtype) -> Prefill | None:
        """The prefill that a case is a part of; None for a shape that belongs to no model."""
        if case.model is None:
            return None
        key = (case.model, case.batch_size, case.num_frames, case.length, dtype)
        if key not in self._known:
            self._known[key] = self._time(MODELS[case.model], case, dtype)
        return self._known[key]

    def _time(self, sizes: ModelSizes, case: Case, dtype: torch.dtype) -> Prefill:
        whole = sizes.name == "nano"
        frames = case.batch_size * (case.num_frames or 0)
        flops = language_flops(sizes, case.batch_size, case.length)
        cells = frames * sizes.side**2
        tower = tower_flops(sizes, cells)
        rate = self._rate(dtype)
        if flops / sizes.layers / rate > MOST_SECONDS or self._too_large(sizes, dtype):
            seconds = (flops + tower) / rate
            return Prefill(
                1e3 * seconds, f"computed: {(flops + tower) / 1e12:.3g} TFLOP at {rate / 1e9:.3g} GFLOP/s"
            )
        with torch.no_grad():
            seconds = self._language(sizes, case, dtype, whole)
            if frames:
                seconds += self._vision(sizes, frames, dtype, whole)
        if whole:
            return Prefill(1e3 * seconds, "measured whole")
        kinds = f"one language layer x {sizes.layers}"
        if frames:
            kinds += f", one tower layer x {sizes.tower_layers}"
        return Prefill(1e3 * seconds, f"measured: {kinds}" + (" and the projector" if frames else ""))

    def _language(self, sizes: ModelSizes, case: Case, dtype: torch.dtype, whole: bool) -> float:
        from vidllava.bench.paths import language_model

        layers = sizes.layers if whole else 1
        model = self._built(lambda: language_model(sizes, layers), dtype)
        rows = torch.randn(case.batch_size, case.length, sizes.width, dtype=dtype, device=self._device)
        short = rows[:, : min(64, case.length)]
        model(inputs_embeds=short, use_cache=False)
        spent = self._seconds(lambda: model(inputs_embeds=rows, use_cache=False))
        return spent * sizes.layers / layers

    def _vision(self, sizes: ModelSizes, frames: int, dtype: torch.dtype, whole: bool) -> float:
        from vidllava.backbone.model import tower_states
        from vidllava.bench.paths import projector, vision_tower

        layers = sizes.tower_layers if whole else 1
        tower = self._built(lambda: vision_tower(sizes, layers), dtype)
        project = self._built(lambda: projector(sizes), dtype)
        chunk = min(frames, max(1, CELLS_AT_ONCE[self._device.type] // sizes.side**2))
        size = sizes.image_size
        pixels = torch.randn(chunk, 3, size, size, dtype=dtype, device=self._device)
        embeddings = self._seconds(lambda: tower_states(tower, pixels, 0))
        spent = self._seconds(lambda: tower_states(tower, pixels, layers)) - embeddings
        hidden = tower_states(tower, pixels, layers)
        rest = self._seconds(lambda: project(hidden))
        return (embeddings + spent * sizes.tower_layers / layers + rest) * frames / chunk

    def _built(self, build: Callable[[], M], dtype: torch.dtype) -> M:
        with torch.device(self._device):
            return build().to(dtype).eval()

    def _seconds(self, call: Callable[[], object]) -> float:
        """Once, and REPEATS times more where that is quick: the median then leaves out the first."""
        first = self._once(call)
        if first > QUICK_SECONDS:
            return first
        return quantile([self._once(call) for _ in range(REPEATS)], 0.5)

    def _once(self, call: Callable[[], object]) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        clock = time.process_time if self._threads == 1 and self._device.type == "cpu" else time.perf_counter
        begin = clock()
        call()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - begin

    def _rate(self, dtype: torch.dtype) -> float:
        """Floating-point operations per second of a square matrix product."""
        if dtype not in self._rates:
            size = RATE_SIZE[self._device.type]
            a = torch.randn(size, size, device=self._device).to(dtype)
            self._rates[dtype] = 2 * size**3 / self._seconds(lambda: a @ a)
        return self._rates[dtype]

    def _too_large(self, sizes: ModelSizes, dtype: torch.dtype) -> bool:
        """Would the weights of one layer take more than a quarter of the memory that is free?"""
        weights = _layer_weights(sizes) * dtype.itemsize
        return 4 * weights > free_bytes(str(self._device))


def language_flops(sizes: ModelSizes, batch_size: int, length: int) -> float:
    """Two per weight and token, and the lower half of the two products of attention."""
    tokens = batch_size * length
    return float(sizes.layers * (2 * tokens * _layer_weights(sizes) + 2 * tokens * length * sizes.width))


def tower_flops(sizes: ModelSizes, cells: int) -> float:
    """Two per weight and cell of the tower's layers, the two products of attention, and the projector."""
    width = sizes.tower_width
    layer = 2 * (4 * width**2 + 2 * width * sizes.tower_mlp) + 4 * sizes.side**2 * width
    projector = 2 * (width * sizes.width + sizes.width**2)
    return float(cells * (sizes.tower_layers * layer + projector))


def _layer_weights(sizes: ModelSizes) -> int:
    keys = sizes.k_heads * sizes.head_size
    return 2 * sizes.width**2 + 2 * sizes.width * keys + 3 * sizes.width * sizes.mlp


# Inputs, gradients, outputs, and the copies of transformers' chain (kernels/README.md: 7 times the least).
TIMES_INPUTS = 12


def why_skipped(case: Case, *, element_bytes: int, num_sets: int, free: int) -> str | None:
    """Why a case is not measured; None if it fits ``free`` bytes."""
    needed = bytes_needed(case, element_bytes=element_bytes, num_sets=num_sets)
    if needed <= free:
        return None
    return f"needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


def bytes_needed(case: Case, *, element_bytes: int, num_sets: int) -> int:
    """About: TIMES_INPUTS times the inputs, and four times them for every further set of buffers."""
    if case.kernel == "rotate":
        elements = case.batch_size * case.length * (case.q_heads + case.k_heads) * case.head_size
    else:
        cells = case.layout.num_grids * case.side**2
        elements = case.batch_size * case.channels * (cells + case.length)
    return elements * element_bytes * (TIMES_INPUTS + 4 * (num_sets - 1))
