"""EgoSchema: five options on three-minute clips; 500 labels are public, the others a server knows.

questions.json (q_uid, question, "option 0" to "option 4") with subset_answers.json beside it, or rows of
video_idx, question, option and answer. Hidden labels: the answers go to FILE.submission.json as {q_uid:
number}, -1 where none could be read. Sources: egoschema/EgoSchema; prompt of lmms_eval/tasks/egoschema; 16
new tokens.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.errors import DatasetError
from vidllava.evaluation.item import (
    OPTION_LETTER,
    Context,
    EvalItem,
    Record,
    Task,
    index_of,
    lettered,
    name_of,
    text_of,
    texts_of,
    unlettered,
)

_OPTIONS = tuple(f"option {number}" for number in range(5))
LABELS = "subset_answers.json"


def recognises(record: Record, path: Path) -> bool:
    """By the authors' keys, or by those of the lettered copy."""
    return {"q_uid", *_OPTIONS} <= record.keys() or {"video_idx", "question", "option"} <= record.keys()


def read(record: Record, context: Context) -> list[EvalItem]:
    """One question."""
    question = text_of(record, "question")
    if "q_uid" in record:
        video = name_of(record, "q_uid")
        options = tuple(text_of(record, key) for key in _OPTIONS)
        label = _labels(context.path.parent).get(video)
    else:
        video = name_of(record, "video_idx")
        options, label = unlettered(texts_of(record, "option")), record.get("answer")
    hidden = label is None or label == ""
    return [
        EvalItem(
            id=video,
            row=context.number,
            media=(video,),
            paths=(context.root.find(video, folders=("videos",)),),
            question=question,
            prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}",
            options=options,
            answer=None if hidden else index_of({"answer": label}, "answer", len(options)),
            scoring="choice",
            max_new_tokens=16,
        )
    ]


def read_subset(record: Record, context: Context) -> list[EvalItem]:
    """One of the 500 questions with public labels; none for another."""
    return [item for item in read(record, context) if item.answer is not None]


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
