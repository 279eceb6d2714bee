"""Rows of the benchmarks in their published formats, and files that stand for their clips."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def clips(root: Path, *names: str) -> None:
    """Files that are found; nothing looks into them here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"clip")


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


NEXTQA = {"video": 4010069381, "frame_count": 369, "width": 640, "height": 480, "qid": 6, "type": "CW"}

VIDEOMME = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
    "answer": "C",
}

EGO = {"q_uid": "0074f737", "google_drive_id": "x", "question": "What is C doing?"}
EGO_OPTIONS = {
    f"option {number}": text for number, text in enumerate(("cooks", "sews", "reads", "runs", "digs"))
}

LVB = {
    **{
        "video_id": "86C",
        "question": "Which subtitle?",
        "id": "86C_0",
        "video_path": "86C.mp4",
        "level": "L1",
    },
    **{"question_category": "TOS", "duration_group": 600, "duration": 190.2, "subtitle_path": "86C.json"},
}
