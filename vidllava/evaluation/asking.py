"""A labelled question on its way: planned as ``ask`` would plan it, its reply, and its line of the results.

planner = Planner(settings, codec, AskOptions(num_frames=16))
planner.plan(item, sampler)                         # Question; subtitles are those at the frames it will see
planner.blind(item, question)                       # the same words, and no media
answered(item, number, reply, {"ahead": 0.2})       # {"doc_id": 0, "target": "A", "resps": [["A."]], ...}

A line has lmms-eval's names where they fit, and besides what was seen, and what it cost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from vidllava.errors import VidllavaError
from vidllava.evaluation.engine import status_of
from vidllava.evaluation.item import EvalItem, Record
from vidllava.evaluation.scoring import score
from vidllava.evaluation.subtitles import preface
from vidllava.evaluation.texts import said as free_answer
from vidllava.evaluation.texts import same
from vidllava.media.frames import FramePlan
from vidllava.media.sampler import Sampler
from vidllava.prompting.conversation import Encoder
from vidllava.visuals.options import AskOptions
from vidllava.visuals.planner import ModelSettings
from vidllava.visuals.question import MediaItem, Question, plan_media, plan_turn, row_options, visual_planner

# What two runs may differ in: measured, not computed.
MEASURED = ("seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class Planner:
    """Plans every question of a set for one model under the same options."""

    settings: ModelSettings
    codec: Encoder
    asked: AskOptions

    def options(self, item: EvalItem) -> AskOptions:
        """The flags' options with the question's own before them."""
        return row_options(self.asked, dict(item.own), item.paths)

    def plan(self, item: EvalItem, sampler: Sampler) -> Question:
        """The question, or the first of a conversation. Raises MediaError, UsageError and OverBudget."""
        options = self.options(item)
        media = plan_media(item.paths, visual_planner(self.settings, options), options, sampler)
        text = preface(item.subtitles, timestamps(media)) + (*item.earlier, item.prompt)[0]
        return plan_turn(media, text, self.settings, self.codec, options)

    def blind(self, item: EvalItem, question: Question) -> Question:
        """The words of ``question`` without its media. Raises OverBudget."""
        return plan_turn((), question.text, self.settings, self.codec, self.options(item))

    def next_turn(self, item: EvalItem, question: Question, said: list[tuple[str, str]]) -> Question:
        """What follows in a conversation in which ``said`` are the questions and answers so far."""
        text = (*item.earlier, item.prompt)[len(said)]
        options = self.options(item)
        return plan_turn(question.items, text, self.settings, self.codec, options, history=said)


def timestamps(media: tuple[MediaItem, ...]) -> tuple[float, ...]:
    """Of the frames of the first clip; none where there are only pictures."""
    for item in media:
        if item.plan is not None:
            return item.plan.timestamps_seconds
    return ()


@dataclass(frozen=True, eq=False)
class Ready:
    """A planned question, and who has its frames."""

    item: EvalItem
    question: Question
    sampler: Sampler


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer, and how it came about."""

    text: str
    question: Question
    """The last one of a conversation."""
    frames: tuple[FramePlan | None, ...]
    """Per media item those really decoded; None for a picture."""
    notes: tuple[str, ...]
    new_tokens: int
    stopped: bool
    """False if the answer was cut by a limit."""
    seconds: dict[str, float]
    """As ``Answer.seconds``; of generating, this question's share of its batch."""
    peak_bytes: int
    """Of the batch."""


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


def failed(item: EvalItem, number: int, status: str, fault: Exception) -> Record:
    """The line of a question that could not be asked: it has no answer and no score."""
    return {
        **_head(item, number, status, _named(item, fault)),
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


def _named(item: EvalItem, fault: Exception) -> str:
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
