"""Free answers scored as facts: each sentence, or each thing of a caption, is one."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass


def facts(text: str) -> Counter[str]:
    """The facts of an answer: its sentences, and the parts of a list ("a red circle and a blue star")."""
    parts = re.split(r"[.!?]|,|\band\b", text.lower())
    words = (re.sub(r"^(?:the|an|a)\s+", "", " ".join(part.split())) for part in parts)
    return Counter(word for word in words if word)


def same_answer(given: str, true: str) -> bool:
    """Exact match, but for case, outer spaces and a final full stop."""
    return given.strip().rstrip(".").lower() == true.strip().rstrip(".").lower()


@dataclass
class FactCounts:
    """Facts given, true, and both, summed over answers."""

    given: int = 0
    true: int = 0
    both: int = 0

    def add(self, given: str, true: str) -> None:
        """Count one answer."""
        ours, theirs = facts(given), facts(true)
        self.given += ours.total()
        self.true += theirs.total()
        self.both += (ours & theirs).total()

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall over all facts; 0 where there is none."""
        return 2 * self.both / (self.given + self.true) if self.given + self.true else 0.0
