"""One line of the results: lmms-eval's names where they fit, and besides what was seen, and what it cost.

answered(item, number, reply, {"ahead": 0.2})       # {"doc_id": 0, "target": "A", "resps": [["A."]], ...}
failed(item, number, fault)                         # status decode_error, over_budget, ...; no answer
"""

from __future__ import annotations

import os

from vidllava.backbone.memory import OutOfMemory
from vidllava.errors import MediaError, ResourceError, UsageError, VidllavaError
from vidllava.evaluation.answering import Reply
from vidllava.evaluation.item import EvalItem, Record
from vidllava.evaluation.scoring import score
from vidllava.evaluation.texts import said as free_answer
from vidllava.evaluation.texts import same
from vidllava.media.frames import FramePlan
from vidllava.prompting.budget import OverBudget
from vidllava.visuals.question import MediaItem

# What two runs may differ in: measured, not computed.
MEASURED = ("seconds", "peak_memory_bytes")


def answered(item: EvalItem, number: int, reply: Reply, seconds: dict[str, float]) -> Record:
    """The line of a question that was answered."""
    budget = reply.question.budget
    said = _said(item, reply)
    return {
        **_head(item, number, said.pop("status"), None),
        **said,
        "prompt": reply.question.text,
        "plan": {
            "media": [
                _medium(medium, name, used)
                for medium, name, used in zip(reply.question.items, item.media, reply.frames, strict=True)
            ],
            "rope_factor": budget.rope_factor,
            "context_limit": budget.context_limit,
        },
        "tokens": {
            "visual": budget.visual_tokens,
            "text": budget.text_tokens + budget.newline_tokens,
            "new": reply.new_tokens,
        },
        "notes": [*reply.question.notes, *reply.notes],
        "seconds": {stage: round(value, 4) for stage, value in {**seconds, **reply.seconds}.items()},
        "peak_memory_bytes": reply.peak_bytes,
    }


def failed(item: EvalItem, number: int, fault: VidllavaError) -> Record:
    """The line of a question that could not be asked: it has no answer and no score."""
    return {
        **_head(item, number, status_of(fault), _named(item, fault)),
        **{"resps": [], "filtered_resps": [], "score": None, "note": None},
        "prompt": item.prompt,
        "plan": {"media": [{"media": name} for name in item.media]},
    }


def with_blind(record: Record, item: EvalItem, reply: Reply | VidllavaError) -> Record:
    """The same line with what the model said to the words alone, the media left out on purpose."""
    if isinstance(reply, VidllavaError):
        blind: Record = {"status": status_of(reply), "error": str(reply), "resps": [], "score": None}
    else:
        blind = {"error": None, **_said(item, reply)}
    return {**record, "blind": {"media_shown": 0, **blind}}


def status_of(fault: VidllavaError) -> str:
    """Which column a failure goes to. Raises the fault where it is none of this question's."""
    if isinstance(fault, OverBudget):
        return "over_budget"
    if isinstance(fault, OutOfMemory):
        return "oom"
    # Asked for what the media do not have: a range beyond the clip, frames of a picture.
    if isinstance(fault, UsageError):
        return "usage_error"
    # A limit on size or decoding time, too: there are no frames to show.
    if isinstance(fault, MediaError | ResourceError):
        return "decode_error"
    raise fault


def _named(item: EvalItem, fault: VidllavaError) -> str:
    """The fault in the data set's own names: the same wherever the media lie."""
    text = str(fault)
    for path, name in zip(item.paths, item.media, strict=True):
        text = text.replace(path, name)
    return text.replace(item.subtitles, os.path.basename(item.subtitles)) if item.subtitles else text


def _head(item: EvalItem, number: int, status: str, error: str | None) -> Record:
    return {
        "doc_id": number,
        "id": item.id,
        "key": item.content_key,
        "status": status,
        "error": error,
        "question": item.question,
        "target": item.answer,
        "groups": [list(pair) for pair in item.groups],
    }


def _said(item: EvalItem, reply: Reply) -> Record:
    scored = score(item, reply.text)
    said: Record = {
        "status": scored.status,
        "resps": [[reply.text]],
        "filtered_resps": [scored.read],
        "score": None if scored.score is None else round(scored.score, 6),
        "note": scored.note,
        "finish_reason": "stop" if reply.stopped else "length",
    }
    if item.scoring == "judge" and item.answer is not None:
        # A stand-in that needs no judge; it is not the benchmark's figure.
        texts = (item.answer, *item.alternatives)
        said["exact_match"] = float(any(same(free_answer(reply.text), text) for text in texts))
    return said


def _medium(medium: MediaItem, name: str, used: FramePlan | None) -> Record:
    info, plan = medium.info, used or medium.plan
    found: Record = {"media": name, "kind": medium.kind, "backend": medium.backend}
    if info is not None and plan is not None:
        found |= {
            "duration_seconds": round(info.duration_seconds, 6),
            "sampling": plan.sampling,
            "frames": list(plan.indices),
            "timestamps_seconds": [round(seconds, 6) for seconds in plan.timestamps_seconds],
        }
    return found
