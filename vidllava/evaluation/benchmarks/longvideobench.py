"""LongVideoBench, videos without interleaved subtitles: up to five options; by duration group and category.

lvb_val.json (candidates, correct_choice), or rows of option0 to option4 where N/A fills up. Sources:
longvideobench/LongVideoBench; prompt of lmms_eval/tasks/longvideobench (validation, v); 32 new tokens.
"""

from __future__ import annotations

from pathlib import Path

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

_OPTIONS = tuple(f"option{number}" for number in range(5))


def recognises(record: Record, path: Path) -> bool:
    """By its names for the file and the group of durations."""
    return {"video_path", "question", "duration_group"} <= record.keys()


def read(record: Record, context: Context) -> list[EvalItem]:
    """One question."""
    video, question = name_of(record, "video_path"), text_of(record, "question")
    if "candidates" in record:
        options = texts_of(record, "candidates")
    else:
        options = tuple(text_of(record, key) for key in _OPTIONS if record.get(key) not in (None, "N/A"))
    hidden = record.get("correct_choice") in (None, -1)
    return [
        EvalItem(
            id=name_of(record, "id"),
            row=context.number,
            media=(video,),
            paths=(context.root.find(video, folders=("videos",)),),
            question=question,
            prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}\n",
            options=options,
            answer=None if hidden else index_of(record, "correct_choice", len(options)),
            scoring="choice",
            groups=groups_of(record, "duration_group", "question_category", "level"),
            max_new_tokens=32,
        )
    ]


TASKS = (Task("longvideobench", recognises, read, submission=True),)
