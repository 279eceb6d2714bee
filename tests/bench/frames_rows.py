"""Rows of a sweep, made up: what a summary, an advice or a page is tested with."""

from __future__ import annotations

from typing import Any

from vidllava.bench.frames.measure import BLIND
from vidllava.bench.frames.request import FramesRequest

Row = dict[str, Any]
TOLD = {
    "model": "nano",
    "weights": "checkpoint",
    "dtype": "float32",
    "set": "long.jsonl",
    "device": "a processor",
    "threads": 1,
    "vidllava": "0.1.0",
    "commit": "0123456789abcdef",
    "uncommitted_changes": False,
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "python": "3.12.1",
    "memory_method": "as told",
    "date": "2026-11-22T12:00:00+00:00",
    "load_1min": 0.5,
}
REQUEST = FramesRequest(
    num_frames=(2, 8), pool_strides=(1, 2), pool_modes=("bilinear",), rope_factors=("off", "auto")
)
CONTEXT = 384


def made_up(right: dict[str, list[int]], *, answers: bool = True, fresh: int = 1) -> list[Row]:
    """A row for each cell and question. ``right``: per cell 1 for each question that is answered as labelled;
    cells not named answer none. The first ``fresh`` questions have shared nothing."""
    number = max(len(marks) for marks in right.values())
    rows = []
    for cell in (None, *REQUEST.cells):
        name = BLIND if cell is None else cell.name
        marks = right.get(name, [0] * number)
        for question, mark in enumerate(marks):
            rows.append(_row(name, cell, question, mark, answers=answers, is_fresh=question < fresh))
    return rows


def _row(name: str, cell: Any, question: int, mark: int, *, answers: bool, is_fresh: bool) -> Row:
    frames = 0 if cell is None else cell.num_frames
    tokens = 0 if cell is None else frames * (49 if cell.pool_stride == 1 else 16) + 1
    total = tokens + 27 + 64
    factor = 1 if cell is None or cell.rope_factor == "off" else -(-total // CONTEXT)
    seconds = {"prefill": 0.001 * (27 + tokens), "generate": 0.01}
    if is_fresh:
        seconds |= {"decode": 0.02, "vision": 0.001 * frames, "overlap": 0.001}
    settings = dict.fromkeys(("num_frames", "fps", "pool_stride", "pool_mode", "rope_factor"))
    return {
        "key": f"{name} {question}",
        "cell": name,
        **(settings if cell is None else cell.to_json()),
        "id": str(question),
        "media": [f"{question}.mp4"],
        "question": "which colour?",
        "answer": "red" if answers else None,
        "groups": {"kind": "colour" if question % 2 else "shape"},
        "same_as": None,
        "frames_planned": frames,
        "visual_tokens": tokens,
        "text_tokens": 27,
        "reserve_tokens": 64,
        "context_limit": CONTEXT,
        "factor": factor,
        "beyond": total > CONTEXT * factor,
        "status": "ok",
        "given": "red" if mark else "blue",
        "score": float(mark) if answers else None,
        "features": "fresh" if is_fresh else "shared",
        "frames_dropped": 0,
        "prompt_tokens": 27 + tokens,
        "new_tokens": 2,
        "seconds": seconds,
        "peak_memory_bytes": 500_000_000 + 1000 * tokens if is_fresh else None,
        "notes": [],
        **TOLD,
    }
