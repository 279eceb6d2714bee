"""Which samples stand in which batch: a pure function of (seed, step).

The order never depends on how many processes or workers read it, and asking for step 100,000 decodes
nothing, so a resumed run goes on exactly where it stopped. Draws form one endless row, epoch after epoch;
batch `s` is draws `s * B .. (s + 1) * B`, which may straddle two epochs, so no sample is ever left out.

`in-batch` is the order that LLaVA-NeXT-Video found best (RECIPE 1.10: 3.32 against 3.00 for batches of
one type): draw j of the n draws of a modality stands at place (j + 1/2) / n of the epoch, so that every
stretch of the row, and with it every batch, holds the modalities in the mixture's proportion.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from vidllava.data.mixture import MODALITY_CODE, Mixture
from vidllava.errors import UsageError

Mix = Literal["in-batch", "separate", "image-only", "video-only", "sequential"]
MIXES: tuple[Mix, ...] = get_args(Mix)
WINDOW_BATCHES = (
    16  # lengths are sorted within this many batches: wide enough to match, narrow enough to stay random
)

_IMAGES = (MODALITY_CODE["picture"], MODALITY_CODE["pictures"])
_VIDEOS = (MODALITY_CODE["video"],)
_SINGLE = (MODALITY_CODE["text"], MODALITY_CODE["picture"])


class BatchOrder:
    """The row of draws of one run. `batch(step)` gives the mixture indices of that step's global batch."""

    def __init__(self, mixture: Mixture, *, mix: Mix, batch_size: int, seed: int) -> None:
        if mix not in MIXES:
            raise UsageError("--mix", f"{mix!r} is unknown", "one of " + ", ".join(MIXES))
        self.mixture, self.mix, self.batch_size, self.seed = mixture, mix, batch_size, seed
        self._cache: dict[int, np.ndarray] = {}
        self.epoch_size = len(self.epoch(0))

    def batch(self, step: int) -> np.ndarray:
        """int64 [batch_size]: the global batch of `step`, counted from 0."""
        start = step * self.batch_size
        parts: list[np.ndarray] = []
        missing = self.batch_size
        while missing:
            epoch, place = divmod(start, self.epoch_size)
            part = self.epoch(epoch)[place : place + missing]
            parts.append(part)
            start, missing = start + len(part), missing - len(part)
        return np.concatenate(parts)

    def epoch(self, number: int) -> np.ndarray:
        """int64 [epoch_size]: the draws of one epoch, in order."""
        if number not in self._cache:
            while len(self._cache) > 1:  # a batch needs at most two neighbours at once
                self._cache.pop(min(self._cache))
            self._cache[number] = self._order(number)
        return self._cache[number]

    def steps(self, num_epochs: float) -> int:
        """How many steps show the data `num_epochs` times (rounded up)."""
        return math.ceil(num_epochs * self.epoch_size / self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        draws = self._draws(epoch)
        if self.mix == "image-only":
            return self._spread(self._only(draws, _IMAGES), epoch)
        if self.mix == "video-only":
            return self._spread(self._only(draws, _VIDEOS), epoch)
        if self.mix == "separate":
            return self._separate(draws)
        if self.mix == "sequential":  # OneVision's order: single pictures (and text) first, then everything
            single = draws[np.isin(self.mixture.modalities[draws], _SINGLE)]
            return np.concatenate([single, self._spread(draws, epoch, before=len(single))])
        return self._spread(draws, epoch)

    def _draws(self, epoch: int) -> np.ndarray:
        """One epoch's draws in random order, every source as often as its weight says."""
        parts = []
        for which, weight in enumerate(self.mixture.weights):
            start, stop = (int(n) for n in self.mixture.offsets[which : which + 2])
            size = stop - start
            whole, rest = int(weight), round((weight - int(weight)) * size)
            parts.extend([np.arange(start, stop)] * whole)
            if rest:  # a fixed shuffle, read on where the last epoch stopped: in time every sample is drawn
                fixed = shuffled(size, self.seed, which)
                parts.append(start + fixed[(epoch * rest + np.arange(rest)) % size])
        rows = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
        if not len(rows):
            raise UsageError("--data-weights", "leave no sample in an epoch", "give larger weights")
        return rows[shuffled(len(rows), self.seed, len(self.mixture.weights), epoch)]

    def _only(self, draws: np.ndarray, codes: tuple[int, ...]) -> np.ndarray:
        kept = draws[np.isin(self.mixture.modalities[draws], codes)]
        if not len(kept):
            raise UsageError(
                f"--mix {self.mix}", f"the data has none: {self.mixture.counts()}", "use --mix in-batch"
            )
        return kept

    def _spread(self, draws: np.ndarray, epoch: int, before: int = 0) -> np.ndarray:
        """Every modality evenly over the epoch, then samples of like length into the same batch."""
        codes = self.mixture.modalities[draws]
        places = np.empty(len(draws))
        for code in np.unique(codes):
            at = np.flatnonzero(codes == code)
            places[at] = (np.arange(len(at)) + 0.5) / len(at)
        row = draws[np.argsort(places, kind="stable")]
        return self._group(row, epoch * (before + len(row)) + before)

    def _group(self, row: np.ndarray, begins_at: int) -> np.ndarray:
        """Sort lengths within windows, modality by modality; the row begins at draw `begins_at`."""
        lengths = self.mixture.lengths
        if lengths is None:
            return row
        row = row.copy()
        size = self.batch_size
        first = -begins_at % size  # batches lie on multiples of their size in the endless row
        window = size * WINDOW_BATCHES
        for start in range(first, len(row), window):
            stop = min(start + window, len(row))
            part = row[start:stop].copy()
            codes = self.mixture.modalities[part]
            for code in np.unique(codes):
                at = np.flatnonzero(codes == code)
                part[at] = part[at][np.argsort(lengths[part[at]], kind="stable")]
            whole = len(part) // size * size  # shuffle the batches again: no short-to-long drift
            batches = part[:whole].reshape(-1, size)
            part[:whole] = batches[shuffled(len(batches), self.seed, begins_at + start)].reshape(-1)
            row[start:stop] = part
        return row

    def _separate(self, draws: np.ndarray) -> np.ndarray:
        """Batches of one modality, alternating in proportion; a last short one is filled from its start."""
        codes, size = self.mixture.modalities[draws], self.batch_size
        batches, places = [], []
        for code in np.unique(codes):
            own = self._group_whole(draws[codes == code])
            count = math.ceil(len(own) / size)
            batches.append(np.resize(own, count * size).reshape(count, size))
            places.append((np.arange(count) + 0.5) / count)
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(batches)[order].reshape(-1)

    def _group_whole(self, own: np.ndarray) -> np.ndarray:
        lengths = self.mixture.lengths
        if lengths is None:
            return own
        window = self.batch_size * WINDOW_BATCHES
        parts = [own[start : start + window] for start in range(0, len(own), window)]
        return np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])


def rank_share(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of a global batch that one process takes. Parts are runs, so each holds every modality."""
    return batch.reshape(world_size, -1)[rank]


def shuffled(count: int, *key: int) -> np.ndarray:
    """A permutation of range(count) that depends on `key` alone, not on numpy's version.

    Sorts the splitmix64 hashes (Steele, Lea, Flood 2014) of the numbers.
    """
    state = np.uint64(0)
    for part in key:
        state = _splitmix64(np.array([state ^ np.uint64(part % 2**64)]))[0]
    return np.argsort(_splitmix64(np.arange(count, dtype=np.uint64) ^ state), kind="stable")


def _splitmix64(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
