"""PerceptionTest, multiple choice: three options; by area, kind of reasoning and tag.

mc_question_valid.json ({video: {"mc_question": [...]}}), or rows of video_name, question, options, answer_id.
Sources: google-deepmind/perception_test; prompt of lmms_eval/tasks/perceptiontest.
"""

from __future__ import annotations

from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import (
    OPTION_LETTER,
    Context,
    EvalItem,
    Record,
    Task,
    groups_of,
    index_of,
    lettered,
    name_of,
    text_of,
    texts_of,
)
from vidllava.evaluation.tables import KEY


def recognises(record: Record, path: Path) -> bool:
    """By the questions of a video, or by a row's keys."""
    return "mc_question" in record or {"video_name", "options", "answer_id"} <= record.keys()


def read(record: Record, context: Context) -> list[EvalItem]:
    """One question, or all those of a video."""
    if "mc_question" not in record:
        return [_question(record, name_of(record, "video_name"), context)]
    questions = record["mc_question"]
    if not isinstance(questions, list) or not all(isinstance(each, dict) for each in questions):
        raise RowFault("needs `mc_question`, a list of objects")
    return [_question(each, name_of(record, KEY), context) for each in questions]


def _question(record: Record, video: str, context: Context) -> EvalItem:
    question, options = text_of(record, "question"), texts_of(record, "options")
    number = record.get("id", record.get("question_id", context.number))
    hidden = record.get("answer_id") is None or record["answer_id"] == -1
    return EvalItem(
        id=f"{video}_{number}",
        row=context.number,
        media=(video,),
        paths=(context.root.find(video, folders=("videos",)),),
        question=question,
        prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}",
        options=options,
        answer=None if hidden else index_of(record, "answer_id", len(options)),
        scoring="choice",
        groups=groups_of(record, "area", "reasoning", "tag"),
    )


TASKS = (Task("perceptiontest", recognises, read),)
