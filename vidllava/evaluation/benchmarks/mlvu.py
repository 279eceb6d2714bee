"""MLVU, multiple choice: long videos, seven tasks; the published figure is the plain mean over them.

json/1_plotQA.json and its like (video, question, candidates, answer as text, question_type; the two tasks of
captions, without candidates, are left out), or rows of video_name, a question with lettered lines, a letter.
Sources: JUNJIE99/MLVU; prompt of lmms_eval/tasks/mlvu; 16 new tokens.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import (
    LETTERS,
    Context,
    EvalItem,
    Record,
    Task,
    lettered,
    name_of,
    text_of,
    texts_of,
)

END = "Only give the best option.\nBest option: ("
_LINE = re.compile(r"^\(([A-Z])\)\s*(.*)$", re.MULTILINE)


def recognises(record: Record, path: Path) -> bool:
    """By the kind of question, beside candidates or in a row of the lettered copy."""
    keys = record.keys()
    return {"video", "candidates", "question_type"} <= keys or {"video_name", "task_type", "question"} <= keys


def read(record: Record, context: Context) -> list[EvalItem]:
    """One question."""
    is_lettered = "video_name" in record
    video = name_of(record, "video_name" if is_lettered else "video")
    task = name_of(record, "task_type" if is_lettered else "question_type")
    question = text_of(record, "question")
    if is_lettered and _LINE.search(question):
        options = tuple(option.strip() for _, option in _LINE.findall(question))
        shown = question
    else:
        options = texts_of(record, "candidates")
        shown = f"{question}\n{lettered(options, '({letter}) {option}')}"
    number = record.get("question_id", context.number)
    return [
        EvalItem(
            id=f"{context.path.stem}_{number}",
            row=context.number,
            media=(video,),
            paths=(context.root.find(video, folders=("video", "videos")),),
            question=question,
            prompt=f"{shown}\n{END}",
            options=options,
            answer=_letter(record.get("answer"), options),
            scoring="choice",
            groups=(("task", task),),
            max_new_tokens=16,
        )
    ]


def _letter(answer: object, options: tuple[str, ...]) -> str | None:
    if answer is None or answer == "":
        return None
    if isinstance(answer, str):
        if options.count(answer.strip()) == 1:
            return LETTERS[options.index(answer.strip())]
        if (bare := answer.strip().strip("()")) in LETTERS[: len(options)]:
            return bare
    raise RowFault("`answer` is no candidate and no letter of one")


TASKS = (Task("mlvu", recognises, read, average_over="task"),)
