"""Video-MME: four options; by duration, domain, sub-category and task; without subtitles, and with them.

A parquet or JSON of one row a question (videoID, question, options, answer, duration, ...), or the nested
JSON of the evaluation template (one entry a video with its `questions`). Prompt and 16 new tokens as in
lmms_eval/tasks/videomme, which says "and the subtitles" in both settings. Subtitles: the lines of
subtitle/<videoID>.srt (or .vtt) at the frames that the model sees.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import (
    LETTERS,
    OPTION_LETTER,
    DataEntry,
    EvalItem,
    Record,
    Task,
    lettered,
    unlettered,
)

INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
ENDS = {False: OPTION_LETTER, True: "The best answer is:"}
_SUBTITLES = (".srt", ".vtt")
_GROUPS = ("duration", "domain", "sub_category", "task_type")


def recognises(record: Record, path: Path) -> bool:
    """By the name of the YouTube id, or by the questions of a video."""
    keys = record.keys()
    return {"videoID", "question", "options"} <= keys or {"video_id", "questions", "domain"} <= keys


def read(entry: DataEntry, *, subtitles: bool) -> list[EvalItem]:
    """One question, or all those of a video."""
    entries = entry.each("questions") if "questions" in entry.record else [entry]
    return [_question(each, subtitles) for each in entries]


def _question(entry: DataEntry, subtitles: bool) -> EvalItem:
    # In the nested form the files go by the number of the video where no YouTube id is given.
    video = entry.name("videoID" if "videoID" in entry.record else "video_id")
    question, options = entry.text("question"), unlettered(entry.texts("options"))
    answer = entry.get("answer")
    if answer is not None and (not isinstance(answer, str) or answer not in LETTERS[: len(options)]):
        raise RowFault("`answer` must be the letter of an option")
    return EvalItem(
        id=entry.name("question_id"),
        **entry.clip(video, "data", "videos", "video"),
        question=question,
        prompt="\n".join((INSTRUCTION, question, lettered(options), ENDS[subtitles])),
        options=options,
        answer=answer,
        scoring="choice",
        groups=entry.groups(*_GROUPS),
        max_new_tokens=16,
        subtitles=_subtitles(entry, video) if subtitles else None,
    )


def _subtitles(entry: DataEntry, video: str) -> str:
    """The file of subtitles; empty where the video has none."""
    path = entry.root.find(video, endings=_SUBTITLES, folders=("subtitle", "subtitles"))
    return path if path.endswith(_SUBTITLES) and os.path.exists(path) else ""


TASKS = (
    Task("videomme", recognises, partial(read, subtitles=False)),
    Task("videomme-subtitles", recognises, partial(read, subtitles=True)),
)
