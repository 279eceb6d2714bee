"""PerceptionTest, multiple choice: three options; by area, kind of reasoning and tag.

mc_question_valid.json ({video: {"mc_question": [...]}}), or rows of video_name, question, options, answer_id.
Sources: google-deepmind/perception_test; prompt of lmms_eval/tasks/perceptiontest.
"""

from __future__ import annotations

from pathlib import Path

from vidllava.evaluation.item import OPTION_LETTER, DataEntry, EvalItem, Record, Task, lettered
from vidllava.evaluation.read import KEY


def recognises(record: Record, path: Path) -> bool:
    """By the questions of a video, or by a row's keys."""
    return "mc_question" in record or {"video_name", "options", "answer_id"} <= record.keys()


def read(entry: DataEntry) -> list[EvalItem]:
    """One question, or all those of a video."""
    if "mc_question" not in entry.record:
        return [_question(entry, entry.name("video_name"))]
    return [_question(each, entry.name(KEY)) for each in entry.each("mc_question")]


def _question(entry: DataEntry, video: str) -> EvalItem:
    question, options = entry.text("question"), entry.texts("options")
    number = entry.get("id", "question_id")
    hidden = entry.get("answer_id") in (None, -1)
    return EvalItem(
        id=f"{video}_{entry.number if number is None else number}",
        **entry.clip(video, "videos"),
        question=question,
        prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}",
        options=options,
        answer=None if hidden else entry.letter("answer_id", len(options)),
        scoring="choice",
        groups=entry.groups("area", "reasoning", "tag"),
    )


TASKS = (Task("perceptiontest", recognises, read),)
