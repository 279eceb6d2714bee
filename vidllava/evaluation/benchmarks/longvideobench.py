"""LongVideoBench, videos without interleaved subtitles: up to five options; by duration group and category.

lvb_val.json (candidates, correct_choice), or rows of option0 to option4 where N/A fills up. Sources:
longvideobench/LongVideoBench; prompt of lmms_eval/tasks/longvideobench (validation, v); 32 new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidllava.evaluation.item import OPTION_LETTER, DataEntry, EvalItem, Record, Task, lettered

_OPTIONS = tuple(f"option{number}" for number in range(5))


def recognises(record: Record, path: Path) -> bool:
    """By its names for the file and the group of durations."""
    return {"video_path", "question", "duration_group"} <= record.keys()


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """One question."""
    video, question = entry.name("video_path"), entry.text("question")
    if "candidates" in entry.record:
        options = entry.texts("candidates")
    else:
        options = tuple(entry.text(key) for key in _OPTIONS if entry.get(key) not in (None, "N/A"))
    hidden = entry.get("correct_choice") in (None, -1)
    yield EvalItem(
        id=entry.name("id"),
        **entry.clip(video, "videos"),
        question=question,
        prompt=f"{question}\n{lettered(options)}\n{OPTION_LETTER}\n",
        options=options,
        answer=None if hidden else entry.letter("correct_choice", len(options)),
        scoring="choice",
        groups=entry.groups("duration_group", "question_category", "level"),
        max_new_tokens=32,
    )


TASKS = (Task("longvideobench", recognises, read, submission=True),)
