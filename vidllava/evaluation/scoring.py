"""The score of an answer: 0 to 1, or none and why; an answer that names no option is unparsed.

score(item, "B. blue")      # Scored(score=1.0, status="ok", read="B")
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.letters import chosen
from vidllava.evaluation.texts import normalised, rouge_l, said, same

THRESHOLD = 0.0


def best_wups(answer: str, references: Sequence[str]) -> float | None:
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


Parsed = Literal["ok", "unparsed"]
# evaluate_interleave.py of LLaVA-NeXT-Interleave scores no more of a free answer.
_ROUGE_CHARACTERS = 512


class Scored(NamedTuple):
    """What an answer is worth."""

    score: float | None
    """0 to 1; None where the label is hidden, a judge must say, or ``note`` says why not."""
    status: Parsed
    read: str
    """What was taken for the answer: a letter, or the text in its normal form; empty if unparsed."""
    note: str | None = None


def score(item: EvalItem, answer: str) -> Scored:
    """Score ``answer``; one that says nothing that can be read is worth 0, and is counted apart.

    A reasoning block is not a part of an answer, whatever the rule of scoring.
    """
    free = said(answer)
    read = chosen(answer, item.options) if item.scoring == "choice" else normalised(free)
    known = item.answer is not None
    if not read:
        return Scored(0.0 if known and item.scoring != "judge" else None, "unparsed", "")
    if item.answer is None:
        return Scored(None, "ok", read, "the label is hidden")
    references = (item.answer, *item.alternatives)
    if item.scoring == "choice":
        return Scored(float(read in references), "ok", read)
    if item.scoring == "exact":
        return Scored(float(any(same(read, text) for text in references)), "ok", read)
    if item.scoring == "rouge":
        return Scored(max(rouge_l(free[:_ROUGE_CHARACTERS], text) for text in references), "ok", read)
    if item.scoring == "wups":
        value = best_wups(free, references)
        return Scored(value, "ok", read, why_not() if value is None else None)
    return Scored(None, "ok", read, "a judge must say")
