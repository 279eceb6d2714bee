"""How alike are two texts? Normalised equality, and ROUGE-L.

same("A red circle.", "red circle")         # True
rouge_l("the cat sat", "the cat ran")       # 0.667
"""

from __future__ import annotations

import re
from itertools import pairwise

_EDGES = " \t\r\n.,;:!?\"'`*_()[]{}"
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")


def normalised(text: str) -> str:
    """Lower case, single spaces, without marks at either end and without a leading article."""
    return _ARTICLE.sub("", " ".join(text.lower().split()).strip(_EDGES))


def same(one: str, other: str) -> bool:
    """Equal once both are normalised."""
    return normalised(one) == normalised(other)


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1 (Lin 2004, beta 1).

    Words are runs of letters and digits in lower case, as in the ``rouge_score`` package without stemming.
    """
    ours, theirs = _words(prediction), _words(reference)
    common = _common(ours, theirs)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row
        row = [0]
        for (diagonal, up), candidate in zip(pairwise(above), other, strict=True):
            row.append(diagonal + 1 if word == candidate else max(up, row[-1]))
    return row[-1]
