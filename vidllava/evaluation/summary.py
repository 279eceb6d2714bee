"""The result of an evaluation: means with a 95 % interval, by group; failures are columns.

final = in_order(records, items, keys, verdicts)            # a record for each question
summary_json(final, task)["of_answered"]["mean"]
table = summarise([Outcome("ok", 1.0, (("category", "motion"),)), Outcome("decode_error", None, ())])
table.overall.answered.mean, table.overall.answered.low     # of the answered
table.overall.of_all.mean                                   # of all: what failed counts as wrong
table.groups["category"]["motion"].statuses["ok"]
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidllava.evaluation.engine import ANSWERED, STATUSES
from vidllava.evaluation.item import LETTERS, EvalItem, Record, Task
from vidllava.evaluation.judge import Verdict, scored

COLUMNS = tuple(status for status in STATUSES if status != "unfamiliar")
"""Of the tables: an evaluation asks its model by name, and such a model refuses no media."""
NONE = "(none)"
MAX_VALUES = 60  # of a group: more are no groups but measurements
_BOUNDS = (8, 16, 60, 180, 600, 1800, 3600)  # seconds
_DURATION = "clip seconds"
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
        return {"n": self.number, **{name: _rounded(getattr(self, name)) for name in ("mean", "low", "high")}}


@dataclass(frozen=True)
class Tally:
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

    overall: Tally
    groups: dict[str, dict[str, Tally]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        groups = {
            name: {value: tally.to_json() for value, tally in tallies.items()}
            for name, tallies in self.groups.items()
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
        name: {value: _tally(values[value]) for value in sorted(values, key=_by_number)}
        for name, values in members.items()
        if not _too_many(values)
    }
    return Summary(_tally(outcomes), groups, tuple(notes))


def _too_many(values: dict[str, list[Outcome]]) -> bool:
    return len(values) > MAX_VALUES


def _by_number(value: str) -> tuple[float, str]:
    """0.5 before 16, 8 to 16 before 60 to 180, numbers before words."""
    number = re.match(r"\d+(\.\d+)?", value)
    return (float(number[0]) if number else math.inf), value


def _tally(outcomes: Sequence[Outcome]) -> Tally:
    counts = Counter(outcome.status for outcome in outcomes)
    answered = [outcome for outcome in outcomes if outcome.status in ANSWERED]
    scores = [outcome.score for outcome in answered if outcome.score is not None]
    unscored = len(answered) - len(scores)
    failed = [0.0] * (len(outcomes) - len(answered))
    return Tally(
        total=len(outcomes),
        statuses={status: counts[status] for status in COLUMNS},
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


def in_order(
    records: Sequence[Record], items: Sequence[EvalItem], keys: Sequence[str], verdicts: Mapping[str, Verdict]
) -> list[Record]:
    """One record for each item, in their order, with its place and groups as they are now."""
    by_key: dict[str, Record] = {}
    for record in records:
        by_key.setdefault(str(record["key"]), record)
    return [
        scored({**by_key[key], "doc_id": number}, item, verdicts)
        for number, (key, item) in enumerate(zip(keys, items, strict=True))
    ]


def summarised(records: Sequence[Record]) -> Summary:
    """What the media gave."""
    return summarise([Outcome(one["status"], one["score"], _groups(one)) for one in records])


def blind_summarised(records: Sequence[Record]) -> Summary | None:
    """What the words alone gave, of the same questions; None where they were not asked so."""
    found = [(one, one["blind"]) for one in records if "blind" in one]
    if not found:
        return None
    return summarise([Outcome(blind["status"], blind["score"], _groups(one)) for one, blind in found])


def summary_json(records: Sequence[Record], task: Task) -> dict[str, Any]:
    """The results, for FILE.summary.json."""
    seen, blind = summarised(records), blind_summarised(records)
    found: dict[str, Any] = {"task": task.name, **seen.to_json()}
    if task.average_over is not None and task.average_over in seen.groups:
        means = [tally.answered.mean for tally in seen.groups[task.average_over].values()]
        known = [mean for mean in means if mean is not None]
        found["mean_over"] = {
            "group": task.average_over,
            "values": len(known),
            "mean": round(sum(known) / len(known), 6) if known else None,
        }
    found["blind"] = None if blind is None else blind.to_json()
    for name in ("exact_match", "judge_score"):
        values = [one[name] for one in records if one.get(name) is not None]
        if values:
            found[name] = {"n": len(values), "mean": round(sum(values) / len(values), 6)}
    found["why_unscored"] = _counted(one["note"] for one in records if one["status"] in ANSWERED)
    found["tokens"] = _means(records, "tokens")
    found["seconds"] = _means(records, "seconds")
    peaks = [one["peak_memory_bytes"] for one in records if one.get("peak_memory_bytes")]
    found["peak_memory_bytes"] = max(peaks, default=None)
    return found


def _groups(record: Record) -> tuple[tuple[str, str], ...]:
    """The data set's own groups, and how long the clip really is."""
    groups = [(name, value) for name, value in record["groups"]]
    seconds = [
        medium["duration_seconds"] for medium in record["plan"]["media"] if "duration_seconds" in medium
    ]
    if seconds and not any("duration" in name for name, _ in groups):
        groups.append((_DURATION, _range(max(seconds))))
    return tuple(groups)


def _range(seconds: float) -> str:
    below = 0
    for bound in _BOUNDS:
        if seconds <= bound:
            return f"{below} to {bound}"
        below = bound
    return f"over {below}"


def _counted(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        if value is not None:
            found[value] = found.get(value, 0) + 1
    return found


def _means(records: Sequence[Record], name: str) -> dict[str, float]:
    """Of each part, over the answered."""
    answered = [one[name] for one in records if name in one]
    parts = answered[0] if answered else {}
    return {part: round(sum(one[part] for one in answered) / len(answered), 4) for part in parts}


def submission(records: Sequence[Record]) -> dict[str, int]:
    """{id: number of the option, from 0}, -1 where none was named: what EgoSchema's server takes."""
    return {one["id"]: LETTERS.index(read) if (read := _read(one)) else -1 for one in records}


def _read(record: Record) -> str:
    return record["filtered_resps"][0] if record["filtered_resps"] else ""
