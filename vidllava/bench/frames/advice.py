"""Which setting is worth its price? The cheapest one within the error bar of the best, and the Pareto front.

Only settings that `ask` would run are advised: no question too long, none beyond trained context x factor.
None is advised of fewer than 20 answers, whose error bars hold nearly everything, nor where none is right.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidllava.bench.frames.summary import CellSummary, SweepSummary

FEWEST_ANSWERS = 20  # Wilson's interval of 10 of 20 goes from 30 % to 70 % already


def advice(found: SweepSummary) -> tuple[str, ...]:
    """Sentences for people: the advice, and how sure it is."""
    if found.measure is None:
        return ("random weights: this is about cost alone, and no setting is advised.",)
    best, cheapest = choose(found)
    if best is None or cheapest is None:
        return (_why_none(found),)
    lines = [_sentence(found.measure, best, cheapest)]
    if cheapest is not best:
        lines[0] += f" {_paired(best, cheapest, 'the best', 'the cheapest')}"
    assert cheapest.cell is not None
    return (*lines, f"To ask that way: vidllava ask CLIP QUESTION {cheapest.cell.flags}", *scaling(found))


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
    pairs = _paired(beyond, within, "the former", "the latter")
    said = (
        f"With linear scaling the best is {beyond.name}{used}: {interval(beyond)}; within the trained "
        f"context it is {within.name}: {interval(within)}. {pairs}"
    )
    unscaled = [one for one in found.cells if one.beyond and one.factors == (1,) and alike(one, beyond)]
    if unscaled:
        said += f" Without scaling, the frames and pooling of the former have {interval(unscaled[0])}."
    return (said,)


def alike(one: CellSummary, other: CellSummary) -> bool:
    """Whether they differ in the factor alone."""
    return one.cell is not None and other.cell is not None and one.cell.pixels == other.cell.pixels


def choose(found: SweepSummary) -> tuple[CellSummary | None, CellSummary | None]:
    """(the best, the cheapest whose mean is no worse than the lower end of the best one's interval).

    None of both where that would say nothing: random weights, too few answers, none of them right.
    """
    usable = [one for one in found.cells if _is_usable(one) and one.quality.number >= FEWEST_ANSWERS]
    if found.measure is None or not any(quality_of(one) for one in usable):
        return None, None
    # A factor changes no cost: what differs between alike cells is noise, and must not choose one.
    price = {one.name: min(cost(other) for other in usable if alike(one, other)) for one in usable}
    most = max(quality_of(one) for one in usable)
    best = _cheapest([one for one in usable if quality_of(one) == most], price)
    bound = best.quality.low or 0.0
    return best, _cheapest([one for one in usable if quality_of(one) >= bound], price)


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
            f"{best.name} has the best {measure}, {interval(best)}, and none within its error bar is cheaper."
        )
    return (
        f"{cheapest.name} is the cheapest setting within the error bar of the best: {interval(cheapest)} "
        f"{measure} in {_price(cheapest)}; the best, {best.name}, has {interval(best)} in {_price(best)}."
    )


def _paired(one: CellSummary, other: CellSummary, this: str, that: str) -> str:
    """The same questions in both cells: more telling than two intervals."""
    scores = {row["id"]: row.get("score") for row in one.rows}
    pairs = [(scores.get(row["id"]), row.get("score")) for row in other.rows]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return ""
    first, second = sum(a > b for a, b in both), sum(b > a for a, b in both)
    return f"Of {len(both)} questions, {first} are answered better by {this} and {second} by {that}."


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
