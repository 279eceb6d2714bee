"""The score of an answer: 0 to 1, or none and why; an answer that names no option is unparsed.

score(item, "B. blue")      # Scored(score=1.0, status="ok", read="B")
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vidllava.evaluation import wups
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.letters import chosen
from vidllava.evaluation.texts import normalised, rouge_l, said, same

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

    A reasoning block is no part of an answer, whatever the rule of scoring.
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
        value = wups.best(free, references)
        return Scored(value, "ok", read, wups.why_not() if value is None else None)
    return Scored(None, "ok", read, "a judge must say")
