"""EgoSchema: five options on three-minute clips; 500 labels are public, the others a server knows.

questions.json (q_uid, question, "option 0" to "option 4") with subset_answers.json beside it, or rows of
video_idx, question, option and answer. Hidden labels: the answers go to FILE.submission.json as {q_uid:
number}, -1 where none could be read. Sources: egoschema/EgoSchema; prompt of lmms_eval/tasks/egoschema; 16
new tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.errors import DatasetError
from vidllava.evaluation.item import OPTION_LETTER, DataEntry, EvalItem, Record, Task, lettered, unlettered

_OPTIONS = tuple(f"option {number}" for number in range(5))
LABELS = "subset_answers.json"


def recognises(record: Record, path: Path) -> bool:
    """By the authors' keys, or by those of the lettered copy."""
    return {"q_uid", *_OPTIONS} <= record.keys() or {"video_idx", "question", "option"} <= record.keys()


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """One question."""
    question = entry.text("question")
    if "q_uid" in entry.record:
        video = entry.name("q_uid")
        options = tuple(entry.text(key) for key in _OPTIONS)
        entry = replace(entry, record={"answer": _labels(entry.path.parent).get(video)})
    else:
        video = entry.name("video_idx")
        options = unlettered(entry.texts("option"))
    hidden = entry.get("answer") in (None, "")
    yield EvalItem(
        id=video,
        **entry.clip(video, "videos"),
        question=question,
        prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}",
        options=options,
        answer=None if hidden else entry.letter("answer", len(options)),
        scoring="choice",
        max_new_tokens=16,
    )


def read_subset(entry: DataEntry) -> Iterator[EvalItem]:
    """One of the 500 questions with public labels; none for another."""
    return (item for item in read(entry) if item.answer is not None)


@lru_cache(maxsize=4)
def _labels(folder: Path) -> dict[str, object]:
    path = folder / LABELS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DatasetError(path, "cannot be read as JSON", "check the file") from None
    if not isinstance(found, dict):
        raise RowFault(f"{LABELS} must be an object of labels")
    return found


TASKS = (
    Task("egoschema", recognises, read, submission=True),
    Task("egoschema-subset", recognises, read_subset),
)
