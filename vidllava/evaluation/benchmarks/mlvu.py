"""MLVU, multiple choice: long videos, seven tasks; the published figure is the plain mean over them.

json/1_plotQA.json and its like (video, question, candidates, answer as text, question_type; the two tasks of
captions, without candidates, are left out), or rows of video_name, a question with lettered lines, a letter.
Sources: JUNJIE99/MLVU; prompt of lmms_eval/tasks/mlvu; 16 new tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import LETTERS, DataEntry, EvalItem, Record, Task, lettered

END = "Only give the best option.\nBest option: ("
_LINE = re.compile(r"^\(([A-Z])\)\s*(.*)$", re.MULTILINE)


def recognises(record: Record, path: Path) -> bool:
    """By the kind of question, beside candidates or in a row of the lettered copy."""
    keys = record.keys()
    return {"video", "candidates", "question_type"} <= keys or {"video_name", "task_type", "question"} <= keys


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """One question."""
    is_lettered = "video_name" in entry.record
    video = entry.name("video_name" if is_lettered else "video")
    task = entry.name("task_type" if is_lettered else "question_type")
    question = entry.text("question")
    if is_lettered and _LINE.search(question):
        options = tuple(option.strip() for _, option in _LINE.findall(question))
        shown = question
    else:
        options = entry.texts("candidates")
        shown = f"{question}\n{lettered(options, '({letter}) {option}')}"
    number = entry.record.get("question_id", entry.number)
    yield EvalItem(
        id=f"{entry.path.stem}_{number}",
        **entry.clip(video, "video", "videos"),
        question=question,
        prompt=f"{shown}\n{END}",
        options=options,
        answer=_letter(entry.get("answer"), options),
        scoring="choice",
        groups=(("task", task),),
        max_new_tokens=16,
    )


def _letter(answer: object, options: tuple[str, ...]) -> str | None:
    if answer is None or answer == "":
        return None
    if isinstance(answer, str):
        if options.count(answer.strip()) == 1:
            return LETTERS[options.index(answer.strip())]
        if (bare := answer.strip().strip("()")) in LETTERS[: len(options)]:
            return bare
    raise RowFault("`answer` is neither a candidate nor the letter of one")


TASKS = (Task("mlvu", recognises, read, average_over="task"),)
