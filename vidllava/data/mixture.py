"""Several sources as one: a global index, a modality per index, a weight per source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vidllava.data.source import MODALITIES, Modality, Sample, Source
from vidllava.errors import DatasetError, UsageError

MODALITY_CODE: dict[Modality, int] = {name: code for code, name in enumerate(MODALITIES)}


@dataclass(frozen=True, eq=False)
class Mixture:
    """Sources laid end to end.

    A weight is how often a source is drawn in one epoch: 2 draws every sample twice, 0.5 draws half of
    them, another half in the next epoch (`vidllava.data.mixing`).
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...] = ()
    lengths: np.ndarray | None = None
    """int32 [len]: each sample's tokens, 0 where they are unknown; None where nobody has looked."""
    offsets: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.sources))
        if len(self.weights) != len(self.sources):
            raise UsageError(
                "--data-weights",
                f"{len(self.weights)} weights for {len(self.sources)} data sets",
                "give one weight per --data, in the same order",
            )
        for weight in self.weights:
            if not 0 < weight <= 1000:
                raise UsageError(
                    "--data-weights", f"{weight} is not a weight", "give numbers above 0, at most 1000"
                )
        for source in self.sources:
            if len(source) == 0:
                raise DatasetError(source.name, "holds no samples", "leave it out, or give its rows")
        sizes = [len(source) for source in self.sources]
        object.__setattr__(self, "offsets", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def modalities(self) -> np.ndarray:
        """int8 [len]: the place in `MODALITIES` of every global index."""
        return np.concatenate([source.modality_codes for source in self.sources])

    def locate(self, index: int) -> tuple[Source, int]:
        """The source that holds global `index`, and the index within it."""
        which = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return self.sources[which], int(index - self.offsets[which])

    def sample(self, index: int) -> Sample:
        """The sample at global `index`."""
        source, local = self.locate(index)
        return source.sample(local)

    def counts(self) -> dict[str, int]:
        """How many samples of each modality there are."""
        found = np.bincount(self.modalities, minlength=len(MODALITIES))
        return {name: int(count) for name, count in zip(MODALITIES, found, strict=True) if count}

    def fingerprint(self) -> list[list[object]]:
        """What a resumed run compares: weight and length of each source, its own `fingerprint` if it has one,
        and which modality stands where."""
        rows: list[list[object]] = []
        for which, (source, weight) in enumerate(zip(self.sources, self.weights, strict=True)):
            start, stop = self.offsets[which : which + 2]
            order = hashlib.blake2b(self.modalities[start:stop].tobytes(), digest_size=8).hexdigest()
            rows.append([weight, len(source), source.fingerprint or source.name, order])
        return rows

    def replacements(self, index: int, limit: int) -> Sequence[int]:
        """The next at most `limit` indices of the same modality, cyclic: what stands in for a bad sample."""
        same = np.flatnonzero(self.modalities == self.modalities[index])
        here = int(np.searchsorted(same, index))
        steps = range(1, min(limit, len(same) - 1) + 1)
        return [int(same[(here + step) % len(same)]) for step in steps]
