"""Which samples stand in which batch: a pure function of (seed, step).

The order never depends on how many processes or workers read it, and asking for step 100,000 decodes
nothing, so a resumed run goes on exactly where it stopped. Draws form one endless row, epoch after epoch;
batch `s` is draws `s * B .. (s + 1) * B`, which may straddle two epochs, so no sample is ever left out.

`in-batch` is the order that LLaVA-NeXT-Video found best (its blog: 3.32 against 3.00 for batches of
one type): draw j of the n draws of a modality stands at place (j + 1/2) / n of the epoch, so that every
stretch of the row, and with it every batch, holds the modalities in the mixture's proportion.
"""

from __future__ import annotations

import math
from typing import get_args

import numpy as np

from vidllava.data import Mix
from vidllava.data.mixture import MODALITY_CODE, Mixture
from vidllava.data.source import MODALITIES
from vidllava.errors import UsageError

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

    def repeated(self) -> list[str]:
        """A line about each kind of batch that cannot be filled without showing a sample twice in it."""
        size, lines = self.batch_size, []
        if self.epoch_size < size:
            what = f"a batch of {size} samples cannot be filled: an epoch has {self.epoch_size}"
            lines.append(f"{what}, so that samples are repeated within it")
        if self.mix == "separate":
            codes = self.mixture.modalities[self._draws(0)]
            for code in np.unique(codes):
                count = int((codes == code).sum())
                if count % size:
                    lines.append(
                        f"{MODALITIES[code]}: {count} samples do not fill batches of {size}: "
                        f"{-count % size} of them are shown once more in each epoch"
                    )
        return lines

    def _order(self, epoch: int) -> np.ndarray:
        draws = self._draws(epoch)
        if self.mix == "image-only":
            draws = self._only(draws, _IMAGES)
        elif self.mix == "video-only":
            draws = self._only(draws, _VIDEOS)
        elif self.mix == "separate":
            return self._separate(draws, epoch)
        elif self.mix == "sequential":  # OneVision's order: single pictures (and text) first, then everything
            single = draws[np.isin(self.mixture.modalities[draws], _SINGLE)]
            begins_at = epoch * (len(single) + len(draws))
            first = self._spread(single, begins_at)
            return np.concatenate([first, self._spread(draws, begins_at + len(single))])
        return self._spread(draws, epoch * len(draws))

    def _draws(self, epoch: int) -> np.ndarray:
        """One epoch's draws in random order, every source as often as its weight says.

        A part of a source is a part of each of its modalities, at least one sample: every epoch holds as many
        of each, or epochs would differ in length where a mix leaves some out.
        """
        parts = []
        for which, weight in enumerate(self.mixture.weights):
            start, stop = (int(n) for n in self.mixture.offsets[which : which + 2])
            parts.extend([np.arange(start, stop)] * int(weight))
            if weight == int(weight):
                continue
            codes = self.mixture.modalities[start:stop]
            for code in np.unique(codes):
                own = start + np.flatnonzero(codes == code)
                rest = max(1, round((weight - int(weight)) * len(own)))
                # A fixed shuffle, read on where the last epoch stopped: in time every sample is drawn.
                fixed = shuffled(len(own), self.seed, which)
                parts.append(own[fixed[(epoch * rest + np.arange(rest)) % len(own)]])
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

    def _spread(self, draws: np.ndarray, begins_at: int) -> np.ndarray:
        """Every modality evenly over the draws, then samples of like length into the same batch."""
        codes = self.mixture.modalities[draws]
        places = np.empty(len(draws))
        for code in np.unique(codes):
            at = np.flatnonzero(codes == code)
            places[at] = (np.arange(len(at)) + 0.5) / len(at)
        row = draws[np.argsort(places, kind="stable")]
        return self._group(row, begins_at)

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

    def _separate(self, draws: np.ndarray, epoch: int) -> np.ndarray:
        """Batches of one modality, alternating in proportion; a last short one is filled from its start."""
        codes, size = self.mixture.modalities[draws], self.batch_size
        batches, places = [], []
        for code in np.unique(codes):
            own = draws[codes == code]
            count = math.ceil(len(own) / size)
            filled = self._group(np.resize(own, count * size), epoch * count * size)
            batches.append(filled.reshape(count, size))
            places.append((np.arange(count) + 0.5) / count)
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(batches)[order].reshape(-1)


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
