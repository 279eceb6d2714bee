"""Which setting to use: the cheapest that is not worse than the best beyond chance; and the Pareto front.

Cells are compared question by question (`paired`). Only settings that `ask` would run are advised: no
question too long, none beyond trained context x factor. None is advised of fewer than 20 answers, nor where
none is right. Without labels no answer is known to be right: then it is the cheapest setting that answers as
the richest one does, and that one is not called the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidllava.bench.frames.summary import CellSummary, SweepSummary

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


AGREES, _AGREES_WORDS = (
    0.9,
    "90 %",
)  # without labels: the share of equal answers that lets a setting stand in for the richest
FEWEST_ANSWERS = 20  # Wilson's interval of 10 of 20 goes from 30 % to 70 % already


def advice(found: SweepSummary) -> tuple[str, ...]:
    """Sentences for people: the advice, and how sure it is."""
    if found.measure is None:
        return ("random weights: this is about cost alone, and no setting is advised.",)
    unsure = () if found.measure == "accuracy" else (without_labels(found),)
    best, cheapest = choose(found)
    if best is None or cheapest is None:
        return (*unsure, _why_none(found))
    assert cheapest.cell is not None
    how = f"To ask that way: vidllava ask CLIP QUESTION {cheapest.cell.flags}"
    if unsure:
        return (*unsure, _agreeing(best, cheapest), how)
    return (_sentence(found.measure, best, cheapest), how, *scaling(found))


def without_labels(found: SweepSummary) -> str:
    """What agreement is with, and what it is not."""
    assert found.richest is not None
    return (
        f"No labels: agreement is the share of answers that are those of {found.richest.name}, the setting "
        "that sees most. Whether those are right is not known, and no setting is called the best."
    )


def _agreeing(richest: CellSummary, cheapest: CellSummary) -> str:
    if cheapest is richest:
        return f"No cheaper setting answers {_AGREES_WORDS} of the questions as it does."
    return (
        f"{cheapest.name} is the cheapest setting that answers {_AGREES_WORDS} of the questions as it does: "
        f"{interval(cheapest)} in {_price(cheapest)}, instead of {_price(richest)}."
    )


def _why_none(found: SweepSummary) -> str:
    """Why ``choose`` has chosen nothing, though answers mean something."""
    if not any(one.quality.number for one in found.cells):
        answered = any(one.summary.overall.unscored for one in found.cells)
        what = "no answer has a score" if answered else "no question was answered"
        return f"{what}: no setting is advised."
    usable = [one for one in found.cells if _is_usable(one)]
    if not usable:
        return "no setting answered every question within the trained context: none is advised."
    number = max(one.quality.number for one in usable)
    if number < FEWEST_ANSWERS:
        return f"too few questions ({number}) to tell the settings apart: none is advised."
    if found.measure == "agreement":
        return f"no setting that answered every question agrees in {_AGREES_WORDS} of them: none is advised."
    return f"no setting has an {found.measure} above 0: none is advised."


def scaling(found: SweepSummary) -> tuple[str, ...]:
    """Does linear scaling pay? The best cell that needs it beside the best that does not."""
    usable = [one for one in found.cells if _is_usable(one) and one.factors]
    fitting = [one for one in usable if one.factors == (1,)]
    scaled = [one for one in usable if one.exceeding]
    if not fitting or not scaled:
        return ()
    within, beyond = max(fitting, key=_worth), max(scaled, key=_worth)
    auto = beyond.cell is not None and beyond.cell.rope_factor == "auto"
    used = f" ({' or '.join(f'{factor:g}' for factor in beyond.factors)})" if auto else ""
    found_pairs = compared(beyond.scores, within.scores)
    pairs = "" if found_pairs is None else found_pairs.words("the former", "the latter")
    said = (
        f"With linear scaling the best is {beyond.name}{used}: {interval(beyond)}; within the trained "
        f"context it is {within.name}: {interval(within)}. {pairs}".rstrip()
    )
    unscaled = [one for one in found.cells if one.beyond and one.factors == (1,) and alike(one, beyond)]
    if unscaled:
        said += f" Without scaling, the frames and pooling of the former have {interval(unscaled[0])}."
    return (said,)


def alike(one: CellSummary, other: CellSummary) -> bool:
    """Whether they differ in the factor alone."""
    return one.cell is not None and other.cell is not None and one.cell.pixels == other.cell.pixels


def choose(found: SweepSummary) -> tuple[CellSummary | None, CellSummary | None]:
    """(the best, the cheapest that it is not better than beyond chance, over questions that both answered).

    Without labels: (the richest, the cheapest that answers as it does). None of both where that would say
    nothing: random weights, too few answers, none of them right.
    """
    usable = [one for one in found.cells if _is_usable(one) and one.quality.number >= FEWEST_ANSWERS]
    if found.measure is None or not any(quality_of(one) for one in usable):
        return None, None
    # A factor changes no cost: what differs between alike cells is noise, and must not choose one.
    price = {one.name: min(cost(other) for other in usable if alike(one, other)) for one in usable}
    if found.measure == "agreement":
        richest = next(one for one in found.cells if one.cell == found.richest)
        agreeing = [one for one in usable if quality_of(one) >= AGREES]
        return (richest, _cheapest(agreeing, price)) if agreeing else (None, None)
    most = max(quality_of(one) for one in usable)
    best = _cheapest([one for one in usable if quality_of(one) == most], price)
    return best, _cheapest([one for one in usable if one is best or not _is_worse(one, best)], price)


def _is_worse(one: CellSummary, best: CellSummary) -> bool:
    """Whether `best` is better beyond chance, or they share too few questions to tell."""
    found = compared(best.scores, one.scores)
    return found is None or found.number < FEWEST_ANSWERS or (found.better > found.worse and found.tells)


def _cheapest(cells: Sequence[CellSummary], price: dict[str, tuple[float, float]]) -> CellSummary:
    """The one that takes least time, of those that no other undercuts in both frames and tokens.

    Frames and tokens are counts and decide what is read: on a busy machine seconds may rank such by chance.
    """
    counts = {one.name: (one.frames or 0.0, tokens_of(one)) for one in cells}

    def undercut(one: CellSummary) -> bool:
        frames, tokens = counts[one.name]
        return any(
            other != (frames, tokens) and other[0] <= frames and other[1] <= tokens
            for other in counts.values()
        )

    left = [one for one in cells if not undercut(one)]
    return min(left, key=lambda one: (price[one.name], -quality_of(one), one.factors[-1]))


def _worth(one: CellSummary) -> tuple[float, float]:
    """The better one; of equals the cheaper one."""
    return quality_of(one), -tokens_of(one)


def cost(one: CellSummary) -> tuple[float, float]:
    """Seconds to the first token where they were measured, then tokens of the prompt."""
    seconds = one.seconds["first_token"] or one.seconds["prefill"]
    return (seconds.median if seconds else 0.0, tokens_of(one))


def pareto(cells: Sequence[CellSummary]) -> list[CellSummary]:
    """Cells that no other one beats with fewer tokens or as many, by tokens."""
    known = [one for one in cells if one.prompt_tokens is not None and one.quality.mean is not None]
    front: list[CellSummary] = []
    for one in sorted(known, key=lambda one: (tokens_of(one), -quality_of(one))):
        if not front or quality_of(one) > quality_of(front[-1]):
            front.append(one)
    return front


def tokens_of(one: CellSummary) -> float:
    """Median tokens of the prompt."""
    return one.prompt_tokens.median if one.prompt_tokens is not None else 0.0


def quality_of(one: CellSummary) -> float:
    """Mean accuracy or agreement."""
    return one.quality.mean if one.quality.mean is not None else 0.0


def _is_usable(one: CellSummary) -> bool:
    overall = one.summary.overall
    lost = overall.statuses["over_budget"] + overall.statuses["oom"]
    return one.quality.mean is not None and bool(one.factors) and not one.beyond and not lost


def _sentence(measure: str, best: CellSummary, cheapest: CellSummary) -> str:
    if cheapest is best:
        return (
            f"{best.name} has the best {measure}, {interval(best)}: every cheaper setting is worse beyond "
            "chance, question by question."
        )
    pairs = against(cheapest, best)
    assert pairs is not None
    return (
        f"{cheapest.name} is the cheapest setting that is not worse than the best beyond chance: "
        f"{interval(cheapest)} {measure} in {_price(cheapest)}; the best, {best.name}, has {interval(best)} "
        f"in {_price(best)}. {pairs.words('the cheapest', 'the best')}"
    )


def against(one: CellSummary, best: CellSummary) -> Paired | None:
    """`one` beside the best, over the questions that both answered."""
    return compared(one.scores, best.scores)


def interval(one: CellSummary) -> str:
    """``61.1 % (54.0 to 67.7)``."""
    share = one.quality
    if share.mean is None or share.low is None or share.high is None:
        return "-"
    return f"{100 * share.mean:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _price(one: CellSummary) -> str:
    seconds, tokens = one.seconds["first_token"], one.prompt_tokens
    shown = [f"{1e3 * seconds.median:.0f} ms to the first token"] if seconds else []
    shown += [f"{tokens.median:.0f} tokens"] if tokens else []
    return " and ".join(shown)
