"""Two cells that answered the same questions, compared question by question.

    found = compared(best, other)
    found.better, found.worse, found.p       # 1, 0, 1.0

Two intervals that overlap say little of cells that share their questions: most of what moves one moves both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHA = 0.05
_DRAWS = 10_000


@dataclass(frozen=True)
class Paired:
    """Of `number` questions that both answered, so many were answered better by the first and by the second.

    `p` is two-sided: the exact McNemar test where scores are 0 and 1, else a paired bootstrap of the mean
    difference.
    """

    number: int
    better: int
    worse: int
    p: float
    test: str

    @property
    def tells(self) -> bool:
        """Whether chance alone would rarely make them differ so much."""
        return self.p < ALPHA

    def words(self, this: str, that: str) -> str:
        """A sentence."""
        first = f"{self.better} {'is' if self.better == 1 else 'are'} answered better by {this}"
        shown = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.2g}"
        return f"Of {self.number} questions, {first} and {self.worse} by {that} ({self.test}, {shown})."

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.number,
            "better": self.better,
            "worse": self.worse,
            "p": round(self.p, 6),
            "test": self.test,
        }


def compared(one: Mapping[str, float], other: Mapping[str, float]) -> Paired | None:
    """From scores by question; None where no question is in both."""
    pairs = [(score, other[key]) for key, score in one.items() if key in other]
    if not pairs:
        return None
    better, worse = sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)
    if all(score in (0.0, 1.0) for pair in pairs for score in pair):
        return Paired(len(pairs), better, worse, mcnemar(better, worse), "exact McNemar test")
    differences = np.array([a - b for a, b in pairs])
    return Paired(len(pairs), better, worse, bootstrap(differences), "paired bootstrap")


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p of so uneven a split of the questions that two cells answered differently (McNemar 1947):
    twice the tail of Binomial(better + worse, 1/2), at most 1."""
    number = better + worse
    tail = sum(math.comb(number, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**number)


def bootstrap(differences: np.ndarray) -> float:
    """Two-sided p of a mean difference of 0 (Efron and Tibshirani 1993, chapter 16): questions are drawn
    again and again, with a fixed seed, from the differences about their mean."""
    mean = abs(float(differences.mean()))
    if mean == 0:
        return 1.0
    rng, centred = np.random.default_rng(0), differences - differences.mean()
    beyond = 0
    for _ in range(0, _DRAWS, 100):
        drawn = centred[rng.integers(0, len(centred), (100, len(centred)))]
        beyond += int((np.abs(drawn.mean(1)) >= mean - 1e-12).sum())
    return (beyond + 1) / (_DRAWS + 1)
