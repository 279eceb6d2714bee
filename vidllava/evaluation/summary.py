"""How many are right, and how sure is that? Means with a 95 % interval, by group; failures are columns.

table = summarise([Outcome("ok", 1.0, (("category", "motion"),)), Outcome("decode_error", None, ())])
table.overall.answered.mean, table.overall.answered.low     # of the answered
table.overall.of_all.mean                                   # of all: what failed counts as wrong
table.groups["category"]["motion"].statuses["ok"]
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

STATUSES = ("ok", "unparsed", "decode_error", "usage_error", "over_budget", "oom")
ANSWERED = ("ok", "unparsed")
NONE = "(none)"
MAX_VALUES = 60  # of a group: more are no groups but measurements
_Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many deviations


@dataclass(frozen=True)
class Outcome:
    """What became of one question."""

    status: str
    score: float | None
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Share:
    """A mean of scores with its 95 % interval; None where there is nothing to average."""

    number: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Rounded to what a few thousand questions can tell."""
        return {
            "n": self.number,
            **{name: _rounded(getattr(self, name)) for name in ("mean", "low", "high")},
        }


@dataclass(frozen=True)
class Cell:
    """Questions of one kind. Unparsed answers are answers, worth 0; failures are none, and are told apart."""

    total: int
    statuses: dict[str, int]
    unscored: int
    """Answered, but without a score: hidden labels, no judge's word yet, no WordNet."""
    answered: Share
    of_all: Share
    """With every failure as a wrong answer; only where every answer has a score."""

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            **self.statuses,
            "unscored": self.unscored,
            "of_answered": self.answered.to_json(),
            "of_all": self.of_all.to_json(),
        }


@dataclass(frozen=True)
class Summary:
    """All questions, and each group of them."""

    overall: Cell
    groups: dict[str, dict[str, Cell]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        groups = {
            name: {value: cell.to_json() for value, cell in cells.items()}
            for name, cells in self.groups.items()
        }
        return {**self.overall.to_json(), "groups": groups, "notes": list(self.notes)}


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Count and average; groups in the order in which they come up, their values sorted."""
    members: dict[str, dict[str, list[Outcome]]] = {}
    names = dict.fromkeys(name for outcome in outcomes for name, _ in outcome.groups)
    for outcome in outcomes:
        own = dict(outcome.groups)
        for name in names:  # who says nothing has a line too, or the columns would not add up
            members.setdefault(name, {}).setdefault(own.get(name, NONE), []).append(outcome)
    notes = [
        f"{name}: {len(values)} values, no table" for name, values in members.items() if _too_many(values)
    ]
    groups = {
        name: {value: _cell(values[value]) for value in sorted(values, key=_by_number)}
        for name, values in members.items()
        if not _too_many(values)
    }
    return Summary(_cell(outcomes), groups, tuple(notes))


def _too_many(values: dict[str, list[Outcome]]) -> bool:
    return len(values) > MAX_VALUES


def _by_number(value: str) -> tuple[float, str]:
    """0.5 before 16, 8 to 16 before 60 to 180, numbers before words."""
    number = re.match(r"\d+(\.\d+)?", value)
    return (float(number[0]) if number else math.inf), value


def _cell(outcomes: Sequence[Outcome]) -> Cell:
    counts = Counter(outcome.status for outcome in outcomes)
    answered = [outcome for outcome in outcomes if outcome.status in ANSWERED]
    scores = [outcome.score for outcome in answered if outcome.score is not None]
    unscored = len(answered) - len(scores)
    failed = [0.0] * (len(outcomes) - len(answered))
    return Cell(
        total=len(outcomes),
        statuses={status: counts[status] for status in STATUSES},
        unscored=unscored,
        answered=share(scores),
        of_all=share([*scores, *failed]) if unscored == 0 else Share(0),
    )


def share(scores: Iterable[float]) -> Share:
    """The mean with its 95 % interval: Wilson's where all are 0 or 1, else the normal one of the mean."""
    values = list(scores)
    number = len(values)
    if not values:
        return Share(0)
    mean = math.fsum(values) / number
    if all(value in (0.0, 1.0) for value in values):
        return Share(number, mean, *wilson(sum(value == 1.0 for value in values), number))
    if number == 1:
        return Share(1, mean, 0.0, 1.0)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (number - 1))
    margin = _Z * deviation / math.sqrt(number)
    return Share(number, mean, max(0.0, mean - margin), min(1.0, mean + margin))


def wilson(right: int, number: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); within 0 and 1, and right for small numbers."""
    part = right / number
    spread = _Z**2 / number
    centre = (part + spread / 2) / (1 + spread)
    margin = _Z / (1 + spread) * math.sqrt(part * (1 - part) / number + spread / (4 * number))
    low = 0.0 if right == 0 else centre - margin
    return low, 1.0 if right == number else centre + margin


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
