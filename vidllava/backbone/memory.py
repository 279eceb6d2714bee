"""Memory that a model and a prompt will need, computed before any of it is allocated, against what is free.

    need = estimate(config, weights_bytes, itemsize=4, workload=Workload(num_grids=8, num_tokens=1700))
    require_fit("onevision-7b", need, "cpu", "--dtype bfloat16 or a smaller model")

Linux does not refuse an allocation that is too large: it kills the process, or another one. So whoever is
about to load a model or to read a prompt asks here first. Imports no torch unless the device is a GPU.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidllava.errors import ResourceError
from vidllava.visuals.question import Question

CELLS_PER_CHUNK = 16 * 729
"""Cells that the vision tower reads at once: 16 frames of OneVision fill a GPU's matrix units, and take about
200 MB of MLP activations in bfloat16."""
# Tensors of a layer that live at once, in widths of its hidden states (input, normalised, q, k, v, the
# attention's output, residuals) and of its MLP.
_TOWER_STATES, _TOWER_MLP = 8, 2
_TEXT_STATES, _TEXT_MLP = 10, 3
_RUNTIME_BYTES = 40 << 20  # measured with nano (benchmarks/estimate.py)
SMALLER = "fewer frames, a larger --pool-stride, --dtype bfloat16 on a GPU, or a smaller model"


class OutOfMemory(ResourceError):
    """A model or one question does not fit in the device's memory."""


@dataclass(frozen=True)
class Workload:
    """What is asked at once: ``num_grids`` frames and tiles, ``num_tokens`` of prompt and answer."""

    num_grids: int
    num_tokens: int

    @classmethod
    def of(cls, question: Question, max_new_tokens: int) -> Workload:
        """Of one planned question."""
        budget = question.budget
        asked = budget.total_tokens - budget.reserve_tokens
        # The cache grows with what is generated, whose length nobody knows: this is its end.
        most = min(asked + max_new_tokens, max(budget.limit, asked))
        return cls(sum(item.layout.num_grids for item in question.items), most)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by part. ``vision`` and ``prompt`` are not needed at once; ``features`` and ``cache`` stay."""

    weights: int
    features: int
    vision: int
    prompt: int
    cache: int
    runtime: int = 0
    """What the libraries allocate at the first products: workspaces, thread stacks."""

    @property
    def total(self) -> int:
        """Bytes at the moment that needs most."""
        return self.weights + self.features + self.cache + self.runtime + max(self.vision, self.prompt)

    def __str__(self) -> str:
        parts = {"weights": self.weights, "vision": self.features + self.vision, "prompt": self.prompt}
        parts["cache"] = self.cache
        return ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if size)


def estimate(
    config: Any,
    weights_bytes: int,
    *,
    itemsize: int,
    workload: Workload | None = None,
    attn_implementation: str = "sdpa",
) -> MemoryNeed:
    """What ``weights_bytes`` of weights and ``workload`` need, for a ``LlavaOnevisionConfig``.

    ``itemsize``: bytes of a number. Eager attention keeps scores and probabilities of one layer, others none.
    """
    if workload is None:
        return MemoryNeed(weights_bytes, 0, 0, 0, 0)
    vision, text = config.vision_config, config.text_config
    cells = (vision.image_size // vision.patch_size) ** 2
    at_once = min(workload.num_grids, max(1, CELLS_PER_CHUNK // cells))
    tower_row = _TOWER_STATES * vision.hidden_size + _TOWER_MLP * vision.intermediate_size
    pixels = 3 * vision.image_size**2
    tokens = workload.num_tokens
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    text_row = _TEXT_STATES * text.hidden_size + _TEXT_MLP * text.intermediate_size
    eager = attn_implementation == "eager"
    tower_scores = 2 * at_once * vision.num_attention_heads * cells**2 if eager else 0
    scores = 2 * heads * tokens**2 if eager else 0
    return MemoryNeed(
        weights=weights_bytes,
        features=workload.num_grids * (cells * text.hidden_size * itemsize + pixels),
        vision=at_once * (cells * tower_row + pixels) * itemsize + tower_scores * itemsize,
        prompt=(tokens * text_row + text.vocab_size + scores) * itemsize,
        cache=2 * text.num_hidden_layers * text.num_key_value_heads * head_size * tokens * itemsize,
        runtime=_RUNTIME_BYTES,
    )


def num_elements(shapes: Iterable[tuple[int, ...]]) -> int:
    """Numbers in tensors of these shapes."""
    total = 0
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def require_fit(name: object, need: MemoryNeed, device: str, hint: str = SMALLER) -> None:
    """Raises OutOfMemory where ``need`` is more than what is free on ``device`` (``cpu``, ``cuda:0``)."""
    free = free_bytes(device)
    if need.total > free:
        what = f"needs {gigabytes(need.total)} of memory ({need}), {gigabytes(free)} are free on {device}"
        raise OutOfMemory(name, what, hint)


def free_bytes(device: str = "cpu") -> int:
    """Memory that this process may still take: the least that the machine, its container and limits leave."""
    if device.partition(":")[0] == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    limits = [_of_machine(), *_of_containers(), _of_process()]
    return max(0, min(limit for limit in limits if limit is not None))


def gigabytes(num_bytes: int) -> str:
    """``1.5 GB``; three digits."""
    return f"{num_bytes / 1e9:.3g} GB"


def _of_machine() -> int:
    # What can be had without swapping, file cache included.
    available = _table("/proc/meminfo").get("MemAvailable")
    if available is not None:
        return available
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return 8 << 30


def _of_process() -> int | None:
    """What RLIMIT_AS leaves of the address space."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    return limit - _table("/proc/self/status").get("VmSize", 0)


def _of_containers(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the memory limits of this process's control groups leave; their file cache can be had, too."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        is_first = "memory" in controllers.split(",")
        if controllers and not is_first:
            continue
        top = root / "memory" if is_first else root
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if is_first
            else ("memory.max", "memory.current")
        )
        folder = top / path.lstrip("/")
        # A container often sees its own group as the root; a limit may stand on any group above.
        for place in (folder, *folder.parents):
            limit, used = (_number(place / name) for name in names)
            if limit is not None and used is not None and limit < 1 << 60:
                cached = _table(str(place / "memory.stat"), unit=1).get("inactive_file", 0)
                found.append(limit - used + cached)
            if place == top:
                break
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is not a limit
        return None


def _table(path: str, unit: int = 1024) -> Mapping[str, int]:
    """Lines such as ``MemAvailable: 22 kB`` or ``inactive_file 22``, in bytes."""
    found: dict[str, int] = {}
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.replace(":", " ").split()
                if len(words) >= 2 and words[1].isdigit():
                    found[words[0]] = int(words[1]) * unit
    except OSError:
        pass
    return found
