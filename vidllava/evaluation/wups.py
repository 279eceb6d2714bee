"""WUPS: how near are two free answers in WordNet? The score of NExT-QA's open questions, where nltk is there.

best("a dog runs", ["the dog is running"])      # 0.9..., or None without nltk and its data

Definition: min of both directions of the product, over words, of the best Wu-Palmer similarity in WordNet,
those below the threshold times 0.1 (Malinowski and Fritz 2014; NExT-OE/metrics.py). Threshold 0: WUPS@0, as
reported by lmms-eval. Stop words are removed and words lemmatised before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from vidllava.evaluation.texts import normalised

THRESHOLD = 0.0


def best(answer: str, references: Sequence[str]) -> float | None:
    """The best WUPS@0 against any reference, 0 to 1; None where WordNet is not there (see ``why_not``)."""
    tools, _ = _tools()
    if tools is None:
        return None
    ours = _words(answer, tools)
    return max(_either_way(ours, _words(text, tools), tools) for text in references)


def why_not() -> str | None:
    """Why nothing can be scored, or None."""
    return _tools()[1]


@lru_cache(maxsize=1)
def _tools() -> tuple[Any | None, str | None]:
    try:
        from nltk.corpus import stopwords, wordnet
        from nltk.stem import WordNetLemmatizer
    except ImportError:
        return (
            None,
            "WUPS needs nltk and WordNet (pip install nltk, then nltk.download of wordnet and stopwords)",
        )
    try:
        words = frozenset(stopwords.words("english"))
        lemmatizer = WordNetLemmatizer()
        lemmatizer.lemmatize("dogs")
    except LookupError:
        return None, "WUPS needs WordNet's data (nltk.download of wordnet and stopwords)"
    return (wordnet, lemmatizer, words), None


def _words(text: str, tools: Any) -> list[str]:
    _, lemmatizer, stops = tools
    words = [lemmatizer.lemmatize(lemmatizer.lemmatize(word, "v")) for word in normalised(text).split()]
    return [word for word in words if word not in stops]


def _either_way(one: Sequence[str], other: Sequence[str], tools: Any) -> float:
    return min(_one_way(one, other, tools[0]), _one_way(other, one, tools[0]))


def _one_way(one: Sequence[str], other: Sequence[str], wordnet: Any) -> float:
    product, matched = 1.0, False
    for word in one:
        nearest = max((_similarity(word, each, wordnet) for each in other), default=0.0)
        if nearest > 0:
            product, matched = product * nearest, True
    return product if matched else 0.0


def _similarity(one: str, other: str, wordnet: Any) -> float:
    if one == other:
        return 1.0
    first, second = wordnet.synsets(one), wordnet.synsets(other)
    if not first or not second:
        return 0.0
    near = float(first[0].wup_similarity(second[0]) or 0.0)
    return near if near >= THRESHOLD else 0.1 * near
