"""What is in a data set? Rows of each modality, a histogram of their tokens, and what does not fit.

summary = Summary(limit_tokens=32768)
summary.add("video", 6300)
summary.to_json()
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidllava.data.source import MODALITIES, Modality

_SMALLEST_BIN = 64


@dataclass
class Summary:
    """Counts of rows; four bytes are kept for each."""

    limit_tokens: int
    """Most tokens of one sample."""
    num_rows: int = 0
    num_bad: int = 0
    num_too_long: int = 0
    """Of the bad ones: those that are only too long."""
    num_noted: int = 0
    """Of the good ones: those that training sees otherwise than planned, as a damaged clip."""
    by_modality: Counter[Modality] = field(default_factory=Counter)
    """Rows whose format is in order, bad media or not."""
    unknown_keys: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each file: keys that no format knows, with the number of rows that have them."""
    _lengths: array[int] = field(default_factory=lambda: array("i"))

    def add(
        self,
        modality: Modality | None,
        num_tokens: int | None,
        *,
        bad: bool = False,
        too_long: bool = False,
        noted: bool = False,
    ) -> None:
        """Count one row; None for what could not be told of it."""
        self.num_rows += 1
        self.num_bad += bad
        self.num_too_long += too_long
        self.num_noted += noted
        if modality is not None:
            self.by_modality[modality] += 1
        if num_tokens is not None:
            self._lengths.append(num_tokens)

    @property
    def lengths(self) -> np.ndarray:
        """int32 [n]: tokens of the rows where they are known."""
        return np.array(self._lengths, dtype=np.int32)

    def histogram(self) -> list[tuple[int, int, int]]:
        """(least tokens, next bin's least, rows) from the first to the last bin that holds any.

        Bins double, and none straddles the limit.
        """
        lengths = self.lengths
        if not len(lengths):
            return []
        edges = [0, _SMALLEST_BIN]
        while edges[-1] <= lengths.max():
            edges.append(edges[-1] * 2)
        if edges[0] < self.limit_tokens + 1 < edges[-1]:
            edges = sorted({*edges, self.limit_tokens + 1})
        counts, _ = np.histogram(lengths, bins=edges)
        bins = [(low, high, int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False)]
        held = [at for at, (_, _, count) in enumerate(bins) if count]
        return bins[held[0] : held[-1] + 1]

    def spread(self) -> dict[str, int]:
        """Least, median, 95th percentile, most and sum of the tokens; empty where none is known."""
        lengths = self.lengths
        if not len(lengths):
            return {}
        low, middle, high, top = np.percentile(lengths, (0, 50, 95, 100), method="lower")
        total = int(lengths.sum(dtype=np.int64))
        return {"min": int(low), "median": int(middle), "p95": int(high), "max": int(top), "total": total}

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "rows": self.num_rows,
            "bad_rows": self.num_bad,
            "too_long_rows": self.num_too_long,
            "noted_rows": self.num_noted,
            "unknown_keys": self.unknown_keys,
            "modalities": {name: self.by_modality[name] for name in MODALITIES if self.by_modality[name]},
            "limit_tokens": self.limit_tokens,
            "tokens": self.spread(),
            "histogram": [
                {"from_tokens": low, "below_tokens": high, "rows": count}
                for low, high, count in self.histogram()
            ],
        }
