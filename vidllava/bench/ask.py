"""Cost of an answer, beside that of transformers' own model on the same weights and frames.

    for row in measure(backbone, "clip.mp4", questions, repeats=3): ...

A round asks two questions about one clip in five ways, one after the other: ours with nothing known, ours
again with the tower's features remembered, the second question of our conversation, and both questions with
transformers' own classes, which read everything anew. Both are given the frames that our sampler decoded, the
same prompt and the same bound on the answer; whether the answers are the same stands in the row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

import torch
import transformers

from vidllava.backbone.answer import Answer, Conversation, answer_question
from vidllava.backbone.feature_cache import FeatureCache
from vidllava.backbone.generate import stop_ids
from vidllava.backbone.model import Backbone
from vidllava.bench.rows import Row
from vidllava.errors import UsageError
from vidllava.media.pixels import normalise
from vidllava.media.sampler import IN_PROCESS
from vidllava.models import family_of
from vidllava.prompting.conversation import SLOT
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import Question, plan_media, plan_question, plan_turn, visual_planner

STAGES = ("decode", "vision", "prefill", "generate")
_READ_CLIPS = ("onevision", "next-video")  # whose classes in transformers do


@dataclass
class Stages:
    """Wall seconds of transformers' parts, taken by hooks: the tower; the first pass of the language model;
    all later ones. What is left of the whole (masks, sampling) is counted as generating."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    _start: float = 0.0

    def attach(self, model: Any) -> None:
        """Time the tower and the language model of ``model`` from now on."""
        tower, language = model.model.vision_tower, model.model.language_model
        tower.register_forward_pre_hook(lambda *_: self._begin())
        tower.register_forward_hook(lambda *_: self._end("vision"))
        language.register_forward_pre_hook(lambda *_: self._begin())
        language.register_forward_hook(lambda *_: self._end("prefill" if self.passes == 0 else "generate"))

    def reset(self) -> None:
        """Before the next answer."""
        self.seconds, self.passes = {}, 0

    def _begin(self) -> None:
        self._wait()
        self._start = time.perf_counter()

    def _end(self, stage: str) -> None:
        self._wait()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - self._start
        self.passes += stage != "vision"

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class TransformersAsk:
    """transformers' own model with our weights, asked with our prompts."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        # Ours changed the classes of its attention: theirs is built anew, and shares nothing but the values.
        self.model = getattr(transformers, type(backbone.hf).__name__)._from_config(
            backbone.hf.config, dtype=backbone.dtype, attn_implementation="sdpa"
        )
        self.model.load_state_dict(backbone.hf.state_dict())
        self.model.generation_config = backbone.hf.generation_config
        self.model.to(backbone.device).eval()
        self.stages = Stages(backbone.device)
        self.stages.attach(self.model)

    @torch.inference_mode()
    def answer(
        self, question: Question, pixels: torch.Tensor, max_new_tokens: int
    ) -> tuple[str, int, dict[str, float]]:
        """(text, new tokens, seconds) for ``question``, whose clip's frames are uint8 [T, 3, S, S]."""
        config, settings = self.backbone.hf.config, self.backbone.settings
        layout = question.items[0].layout
        ids = [
            other
            for token in question.prompt.ids
            for other in ([config.video_token_id] * layout.num_tokens if token == SLOT else [token])
        ]
        input_ids = torch.tensor([ids], device=self.backbone.device)
        self.stages.reset()
        start = time.perf_counter()
        values = normalise(
            pixels.to(self.backbone.device), settings.image_mean, settings.image_std, self.backbone.dtype
        )
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values_videos=values[None],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(stop_ids(self.backbone)),
            pad_token_id=0,
        )
        tokens = output[0, len(ids) :].tolist()
        total = time.perf_counter() - start
        seconds = dict(self.stages.seconds)
        seconds["generate"] = total - seconds["vision"] - seconds["prefill"]
        kept = [token for token in tokens if token not in stop_ids(self.backbone)]
        return self.backbone.codec.decode(kept).strip(), len(kept), {**seconds, "total": total}


def measure(
    backbone: Backbone,
    path: str,
    questions: tuple[str, str],
    *,
    options: AskOptions,
    max_new_tokens: int,
    repeats: int,
    against: bool = True,
) -> Iterator[Row]:
    """A row for each answer. ``against``: also with transformers. Raises UsageError for a picture, and for
    settings that transformers cannot have (another pool stride, mode, newline, or a factor)."""
    chosen = GenerateOptions(max_new_tokens=max_new_tokens)
    first = plan_question([path], questions[0], backbone.settings, backbone.codec, options)
    if first.items[0].plan is None:
        raise UsageError(path, "is a picture", "bench ask takes a clip")
    theirs = TransformersAsk(backbone) if against else None
    if theirs is not None:
        refuse_other_settings(backbone, options, first)
    answer_question(backbone, first, chosen)  # a first one, so that nothing is paid for once in the first row
    for number in range(repeats):
        yield from _round(backbone, path, questions, options, chosen, theirs, number)


def refuse_other_settings(backbone: Backbone, options: AskOptions, question: Question) -> None:
    """Raises UsageError where transformers' own model would be asked something else."""
    settings = backbone.settings
    family = family_of(backbone.hf.config.to_dict(), settings.name)
    if family.name not in _READ_CLIPS:
        what = f"transformers' class of {settings.family} reads no clips as this family does"
        raise UsageError("bench ask", what, "--no-transformers")
    pooling = visual_planner(settings, options).pooling
    found = (pooling.stride, pooling.mode, pooling.newline, pooling.at, question.budget.rope_factor)
    own = family.of_config(family.preset, backbone.hf.config.to_dict())
    theirs = (own.pool_stride, own.pool_mode, own.newline_mode, own.pool_at, settings.least_factor)
    if found != theirs:
        what = "stride, mode, newline, place of pooling and RoPE factor are " + ", ".join(map(str, found))
        raise UsageError(
            "bench ask", f"{what}: transformers has {', '.join(map(str, theirs))}", "--no-transformers"
        )


def _round(
    backbone: Backbone,
    path: str,
    questions: tuple[str, str],
    options: AskOptions,
    chosen: GenerateOptions,
    theirs: TransformersAsk | None,
    number: int,
) -> Iterator[Row]:
    plan = plan_question([path], questions[0], backbone.settings, backbone.codec, options)
    cold = answer_question(backbone, plan, chosen)
    yield _ours(cold, "first", number)
    cache = FeatureCache(backbone, None)
    answer_question(backbone, plan, chosen, cache=cache)
    again = answer_question(backbone, plan, chosen, cache=cache, keep_pixels=False)
    yield _ours(again, "first again", number)
    items = plan_media([path], visual_planner(backbone.settings, options), options, IN_PROCESS)
    talk = Conversation(backbone, items, options, chosen)
    talk.ask(talk.plan(questions[0]))
    second = talk.ask(talk.plan(questions[1]))
    yield _ours(second, "second", number)
    if theirs is None:
        return
    pixels = cold.visuals[0].pixels
    assert pixels is not None  # kept by default
    history = [(questions[0], cold.text)]
    later = plan_turn(plan.items, questions[1], backbone.settings, backbone.codec, options, history=history)
    for question, ours, name in ((plan, cold, "first"), (later, second, "second")):
        text, tokens, seconds = theirs.answer(question, pixels, chosen.max_new_tokens)
        # The frames are given; decoding is counted as ours took: transformers would decode them each time.
        seconds["decode"] = cold.seconds["decode"]
        seconds["total"] += seconds["decode"]
        yield _row("transformers", name, number, text, tokens, seconds) | {"same_answer": text == ours.text}


def _ours(answer: Answer, question: str, number: int) -> Row:
    seconds = dict(answer.seconds)
    total = sum(seconds[stage] for stage in ("cache", *STAGES)) - seconds["overlap"]
    seconds["total"] = total
    return _row("vidllava", question, number, answer.text, answer.completion_tokens, seconds)


def _row(path: str, question: str, number: int, text: str, tokens: int, seconds: dict[str, float]) -> Row:
    return {
        "path": path,
        "question": question,
        "round": number,
        "answer": text,
        "new_tokens": tokens,
        "seconds": {stage: round(value, 5) for stage, value in seconds.items()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


LEGEND = (
    "cells: wall milliseconds, medians of the rounds; total: of the whole answer, in which stages overlap",
    "same answer: whether each round's answer is word for word that of the other path",
)


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Medians in milliseconds for people, the heading first."""
    lines: list[tuple[str, ...]] = [("path", "question", *STAGES, "total", "new tokens", "same answer")]
    for path, question in dict.fromkeys((row["path"], row["question"]) for row in rows):
        cell = [row for row in rows if (row["path"], row["question"]) == (path, question)]
        times = [1e3 * median(row["seconds"].get(stage, 0.0) for row in cell) for stage in (*STAGES, "total")]
        same = [row["same_answer"] for row in cell if "same_answer" in row]
        told = "" if not same else "yes" if all(same) else f"{same.count(False)} of {len(same)} differ"
        lines.append((path, question, *(f"{value:.1f}" for value in times), str(cell[0]["new_tokens"]), told))
    return lines
