"""A source in memory: samples of every modality, drawn from their index, with bad ones where asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from vidllava.data.source import Modality, Sample, Source, Visual
from vidllava.errors import MediaError
from vidllava.prompting.conversation import Turn

SIZE = 40


def frames(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


class World(Source):
    """These modalities, `repeats` times over. Samples whose index is in `bad` cannot be read."""

    def __init__(
        self, pattern: Sequence[Modality], repeats: int = 1, *, bad: Collection[int] = (), name: str = "world"
    ) -> None:
        self.name, self.bad = name, frozenset(bad)
        self.modalities = tuple(pattern) * repeats

    def __len__(self) -> int:
        return len(self.modalities)

    def modality(self, index: int) -> Modality:
        return self.modalities[index]

    def sample(self, index: int) -> Sample:
        if index in self.bad:
            raise MediaError(f"sample {index}", "is broken")
        visuals = self._visuals(index)
        marks = "".join("<video>" if visual.kind == "video" else "<image>" for visual in visuals)
        turns = [Turn("user", f"{marks}\nwhat?" if marks else "what?"), Turn("assistant", f"it is {index}")]
        turns += [Turn("user", "sure?"), Turn("assistant", "yes")] * (index % 3)
        return Sample(id=f"{self.name}-{index}", turns=tuple(turns), visuals=visuals)

    def _visuals(self, index: int) -> tuple[Visual, ...]:
        kind = self.modalities[index]
        if kind == "text":
            return ()
        if kind == "video":
            count = 2 + index % 3
            times = np.arange(count, dtype=np.float64)
            return (Visual(kind="video", frames=frames(count, index), timestamps_seconds=times),)
        several = 2 if kind == "pictures" else 1
        return tuple(Visual(kind=kind, frames=frames(1, index + n)) for n in range(several))
