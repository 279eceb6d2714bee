"""The finished run: records in the order of the data, their summary, and a file for a server.

final = in_order(records, items, keys, verdicts)
summary_of(final, task)["of_answered"]["mean"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidllava.evaluation.item import LETTERS, EvalItem
from vidllava.evaluation.judge import Verdict, scored
from vidllava.evaluation.record import Record
from vidllava.evaluation.summary import ANSWERED, Outcome, Summary, summarise
from vidllava.evaluation.task import Task

_BOUNDS = (8, 16, 60, 180, 600, 1800, 3600)  # seconds
_DURATION = "clip seconds"


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
        means = [cell.answered.mean for cell in seen.groups[task.average_over].values()]
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
