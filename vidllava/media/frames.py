"""The two values that travel from the sampler to the model: which frames, and their pixels.

A ``FramePlan`` says which frames of a file are wanted and why; it can be printed, saved and used again.
A ``FrameBatch`` holds the pixels of those frames together with their true presentation times, so that
nobody has to compute a time from an index again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

# Told the place of each frame in the plan as soon as its pixels are final, and the array they lie in; told
# None where a pass starts again and everything reported so far is void. May be called from any thread.
OnReady = Callable[[int | None, npt.NDArray[np.uint8]], None]


@dataclass(frozen=True)
class CentreCrop:
    """Pictures scaled until the short edge has ``edge`` pixels; of that the middle ``side`` x ``side``.

    CLIP's preprocessing, and so that of LLaVA-NeXT-Video's frames.
    """

    edge: int
    side: int

    def __post_init__(self) -> None:
        if not 1 <= self.side <= self.edge:
            raise ValueError(f"a square of {self.side} pixels does not fit a short edge of {self.edge}")


FrameSize = int | CentreCrop
"""How a picture of any shape becomes a square: squashed into one of so many pixels, or cropped."""


def side_of(size: FrameSize) -> int:
    """Pixels on each side of the square."""
    return size if isinstance(size, int) else size.side


@dataclass(frozen=True)
class FramePlan:
    """Which instants are wanted and which frames they fall on; index ``i`` is the i-th shown frame."""

    instants_seconds: tuple[float, ...]
    """The instants asked for, seconds from the clip's start, in order."""
    indices: tuple[int, ...]
    """The frame for each instant, counted from 0 in presentation order, in order."""
    timestamps_seconds: tuple[float, ...]
    """The presentation time of each frame, seconds from the clip's start."""
    reason: str
    """Why these frames: the rule, the range, and whatever made the count differ from the one asked for."""
    sampling: str = ""
    """The rule: ``time`` or ``index`` (evenly over it), ``fps``, ``all``; empty in plans of old versions."""

    def __post_init__(self) -> None:
        count = len(self.indices)
        if count == 0 or len(self.instants_seconds) != count or len(self.timestamps_seconds) != count:
            raise ValueError(
                f"a plan needs at least one frame and equally long fields, got {len(self.instants_seconds)} "
                f"instants, {count} indices, {len(self.timestamps_seconds)} timestamps"
            )
        if self.indices[0] < 0 or any(b < a for a, b in zip(self.indices, self.indices[1:], strict=False)):
            raise ValueError(f"frame indices must be >= 0 and in order, got {self.indices}")
        if not all(map(math.isfinite, (*self.instants_seconds, *self.timestamps_seconds))):
            raise ValueError("instants and timestamps must be finite")

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, some: slice) -> FramePlan:
        """The plan of some of its frames."""
        return replace(
            self,
            instants_seconds=self.instants_seconds[some],
            indices=self.indices[some],
            timestamps_seconds=self.timestamps_seconds[some],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``; ``from_json`` takes them back unchanged."""
        return {
            "instants_seconds": list(self.instants_seconds),
            "indices": list(self.indices),
            "timestamps_seconds": list(self.timestamps_seconds),
            "reason": self.reason,
            "sampling": self.sampling,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FramePlan:
        """The plan that ``to_json`` wrote. Raises KeyError or ValueError for a wrong field."""
        return cls(
            instants_seconds=tuple(float(value) for value in values["instants_seconds"]),
            indices=tuple(int(value) for value in values["indices"]),
            timestamps_seconds=tuple(float(value) for value in values["timestamps_seconds"]),
            reason=str(values["reason"]),
            sampling=str(values.get("sampling", "")),
        )


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Decoded frames with their times; validated on construction, compared by identity."""

    pixels: npt.NDArray[np.uint8]
    """[T, H, W, 3] uint8, RGB, in display orientation."""
    timestamps_seconds: npt.NDArray[np.float64]
    """[T] presentation time of each frame, seconds from the clip's start."""
    plan: FramePlan
    """What was really decoded: equal to the plan asked for unless ``notes`` says otherwise."""
    backend: str = "pyav"
    """The decoder that produced the pixels."""
    method: str = ""
    """How the frames were found, for those who ask: how much was decoded, or why from the first frame on."""
    notes: tuple[str, ...] = ()
    """Whatever a reader of the result must know: damage, substituted frames, a fall-back."""

    def __post_init__(self) -> None:
        pixels, times = self.pixels, self.timestamps_seconds
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"pixels must be uint8 [T, H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        if times.dtype != np.float64 or times.shape != (len(pixels),) or len(self.plan) != len(pixels):
            raise ValueError(
                f"{len(pixels)} frames need as many float64 timestamps and planned frames, got "
                f"{times.dtype} {list(times.shape)} and a plan of {len(self.plan)}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        first, last = self.timestamps_seconds[0], self.timestamps_seconds[-1]
        return f"FrameBatch(pixels=uint8{list(self.pixels.shape)}, {first:.3f}-{last:.3f} s, {self.backend})"
