"""What `--json` says about media and answers, the same keys in every command; what is told beside an answer.

A picture is a clip of one frame at 0 s, so that a program needs no second case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidllava.cli.console import Console

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer
    from vidllava.media.frames import FramePlan
    from vidllava.visuals.question import MediaItem

PICTURE_BACKEND = "pillow"


def media_json(item: MediaItem, used: FramePlan | None = None) -> dict[str, Any]:
    """One media item; ``used`` are the frames really decoded, where that is known, else the planned ones."""
    plan = used or item.plan
    info = item.info
    return {
        "media": item.path,
        "kind": item.kind,
        "backend": item.backend or PICTURE_BACKEND,
        "width": item.width,
        "height": item.height,
        "rotation": info.rotation if info is not None else 0,
        "duration_seconds": round(info.duration_seconds, 6) if info is not None else 0.0,
        "num_frames_in_file": info.num_frames if info is not None else 1,
        "sampling": plan.sampling if plan is not None else "all",
        "frames": frames_json(plan),
    }


def frames_json(plan: FramePlan | None) -> list[dict[str, Any]]:
    """Index and presentation time of each frame, in order."""
    if plan is None:
        return [{"index": 0, "timestamp_seconds": 0.0}]
    pairs = zip(plan.indices, plan.timestamps_seconds, strict=True)
    return [{"index": index, "timestamp_seconds": round(seconds, 6)} for index, seconds in pairs]


def answer_json(answer: Answer, model: str, seconds: dict[str, float]) -> dict[str, Any]:
    """What ``ask`` says of an answer, as README documents it: keys are added, never renamed."""
    question = answer.question
    pairs = zip(question.items, answer.frames, strict=True)
    return {
        "answer": answer.text,
        "model": model,
        "question": question.text,
        "media": [media_json(item, used) for item, used in pairs],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "visual_tokens": question.budget.visual_tokens,
        },
        "finish_reason": "stop" if answer.stopped else "length",
        "budget": question.budget.to_json(),
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        "notes": [*question.notes, *answer.notes],
    }


_SOURCES = {"tower": "read by the tower", "memory": "features remembered", "disk": "features from the cache"}


def tell_cut(answer: Answer, max_new_tokens: int, console: Console) -> None:
    """Whether the answer ended by itself."""
    if answer.stopped:
        return
    asked_for = answer.completion_tokens == max_new_tokens
    place = f"--max-new-tokens {max_new_tokens}" if asked_for else "the end of the context"
    console.warn(f"the answer was cut at {place}")


def tell_work(answer: Answer, seconds: dict[str, float], console: Console) -> None:
    """Where the features of each item are from, what each stage took, and what went wrong with the cache."""
    for item, seen in zip(answer.question.items, answer.visuals, strict=True):
        repeated = f"; {seen.num_repeated} of {item.layout.num_grids} pictures repeat an earlier one's pixels"
        console.detail(f"{item.path}: {_SOURCES[seen.source]}" + (repeated if seen.num_repeated else ""))
    console.detail(", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
    for note in answer.cache_notes:
        console.note(note)
