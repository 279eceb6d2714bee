"""ActivityNet-QA: short free answers that a judge scores; equality of the texts stands beside as a stand-in.

test_q.json (video_name, question_id, question) with test_a.json (question_id, answer, type) beside it, or
rows of both. Sources: MILVLG/activitynet-qa; prompt of lmms_eval/tasks/activitynetqa; 64 new tokens. Clips:
v_<name>.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import DataEntry, EvalItem, Record, Task, name_of, scalar
from vidllava.evaluation.read import records

INSTRUCTION = "Answer the question using a single word or phrase."
TYPES = (
    *("motion", "spatial relationship", "temporal relationship", "yes/no", "color", "object", "location"),
    *("number", "other"),
)


def recognises(record: Record, path: Path) -> bool:
    """By its three names, and no options."""
    keys = record.keys()
    others = {"options", "candidates", "task_type"}
    return {"video_name", "question_id", "question"} <= keys and not others & keys


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """One question."""
    video, number = entry.name("video_name"), entry.name("question_id")
    question = entry.text("question").rstrip("?")
    labelled = entry.record if "answer" in entry.record else _answers(entry.path).get(number, {})
    answer = scalar(labelled.get("answer"))
    # `capitalize` is the benchmark's: it lower-cases the rest.
    asked = f"{question.capitalize()}? {INSTRUCTION}"
    name = video if video.startswith("v_") else f"v_{video}"
    yield EvalItem(
        id=number,
        **entry.clip(name, "all_test", "videos"),
        question=f"{question}?",
        prompt=asked,
        answer=answer,
        scoring="judge",
        groups=_type(labelled),
        max_new_tokens=64,
    )


def _type(record: Record) -> tuple[tuple[str, str], ...]:
    try:
        return (("type", TYPES[int(str(record["type"]))]),)
    except (KeyError, ValueError, IndexError):
        return ()


@lru_cache(maxsize=4)
def _answers(path: Path) -> dict[str, Record]:
    """The labels beside a file of questions: test_a.json beside test_q.json."""
    beside = path.with_name(path.name.replace("_q", "_a"))
    if beside == path or not beside.is_file():
        return {}
    found: dict[str, Record] = {}
    for number, record in records(beside):
        if isinstance(record, RowFault):
            raise RowFault(f"{beside.name} row {number}: {record}")
        found[name_of(record, "question_id")] = record
    return found


TASKS = (Task("activitynetqa", recognises, read),)
