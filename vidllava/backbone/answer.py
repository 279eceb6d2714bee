"""Answers: one from a planned question with a record of what was used, and conversations that go on.

backbone = load_backbone("nano")
question = plan_question(["clip.mp4"], "what happens", backbone.settings, backbone.codec)
answer = answer_question(backbone, question)
answer.text, answer.frames[0].timestamps_seconds, answer.seconds
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vidllava.backbone.familiarity import REAL_MODEL, UNFAMILIAR
from vidllava.backbone.feature_cache import FeatureCache
from vidllava.backbone.generate import generate_after
from vidllava.backbone.memory import SMALLER, OutOfMemory, Workload, estimate, require_fit
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory
from vidllava.backbone.see import EncodedVisual, EncodedVisuals, StageClock, see
from vidllava.errors import UnfamiliarMedia, is_allocation_failure
from vidllava.media.frames import FramePlan
from vidllava.media.sampler import IN_PROCESS, Sampler
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import MediaItem, Question, plan_turn


@dataclass(frozen=True, eq=False)
class Answer:
    """The text, and everything about how it came about."""

    text: str
    question: Question
    frames: tuple[FramePlan | None, ...]
    """Per media item the frames really decoded; None for a picture."""
    visuals: tuple[EncodedVisual, ...] = field(repr=False)
    """Per media item what the vision tower saw."""
    notes: tuple[str, ...]
    """What a reader of the answer must know: damage, fall-backs, media unlike the model's own, no words."""
    prompt_tokens: int
    completion_tokens: int
    stopped: bool
    """False if the answer was cut by max_new_tokens."""
    seconds: dict[str, float]
    """cache, decode, vision, overlap, prefill, generate: wall time of each stage. Decoding and the tower ran
    together for ``overlap`` seconds: decode + vision - overlap is the wall time of both."""
    cache_notes: tuple[str, ...] = ()
    """What went wrong with the feature cache, which never changes an answer."""


def answer_question(
    backbone: Backbone,
    question: Question,
    options: GenerateOptions | None = None,
    *,
    on_text: Callable[[str], None] | None = None,
    sampler: Sampler = IN_PROCESS,
    cache: FeatureCache | None = None,
    reuse_frames: bool = True,
    keep_pixels: bool = True,
) -> Answer:
    """Answer one question; ``on_text`` receives each piece of text as it is generated.

    ``cache`` finds and keeps features; it never changes an answer. ``reuse_frames`` and ``keep_pixels``: see
    ``see``. Raises MediaError if a file turns out to be unusable while decoding (a question is never answered
    without its media), UnfamiliarMedia before a first word (``check_familiar``), OutOfMemory where memory
    runs out or is known not to suffice.
    """
    clock = StageClock(backbone.device)
    check_room(backbone, question, options)
    with report_out_of_memory(backbone, question):
        encoded = see(
            backbone,
            question.items,
            clock,
            sampler=sampler,
            cache=cache,
            reuse_frames=reuse_frames,
            keep_pixels=keep_pixels,
        )
    answer = answer_seen(backbone, question, encoded, PromptMemory(backbone), clock, options, on_text=on_text)
    if cache is None:
        return answer
    with clock.stage("cache"):
        cache.flush()  # after the answer: nobody waits for a disk
    return replace(answer, seconds=stage_seconds(clock), cache_notes=cache.take_notes())


@torch.inference_mode()
def answer_seen(
    backbone: Backbone,
    question: Question,
    encoded: EncodedVisuals,
    memory: PromptMemory,
    clock: StageClock,
    options: GenerateOptions | None = None,
    *,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """The rest of the way, from features on. What ``memory`` holds of the prompt is not read again."""
    options = _within_limit(options or GenerateOptions(), question)
    factor = question.budget.rope_factor
    unfamiliar = check_familiar(backbone, question.items, encoded)
    layouts = [seen.layout for seen in encoded.visuals]
    pieces: list[str] = []
    tokens = _Counted()
    with report_out_of_memory(backbone, question):
        with clock.stage("prefill"):
            logits = memory.read(question.prompt, layouts, encoded.features, rope_factor=factor)
        prompt_tokens = memory.num_rows
        steps = generate_after(
            backbone, logits, memory.cache, prompt_tokens, rope_factor=factor, options=options
        )
        with clock.stage("generate"):
            for piece in backbone.codec.stream(tokens.count(steps)):
                pieces.append(piece)
                if on_text is not None:
                    on_text(piece)
    text = "".join(pieces).strip()
    seen_notes = (note for seen in encoded.visuals for note in seen.notes)
    return Answer(
        text=text,
        question=question,
        frames=tuple(seen.frames for seen in encoded.visuals),
        visuals=encoded.visuals,
        notes=(*seen_notes, *unfamiliar, *empty_note(text, tokens.number)),
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens.number,
        stopped=tokens.number < options.max_new_tokens,
        seconds=stage_seconds(clock),
    )


@torch.inference_mode()
def check_familiar(
    backbone: Backbone, items: Sequence[MediaItem], encoded: EncodedVisuals
) -> tuple[str, ...]:
    """A note for each medium that is far from what the model was trained on; none where that is not known.

    Raises UnfamiliarMedia instead if the model was not asked for by name (``backbone.asked_by_name``).
    """
    world = backbone.world
    if world is None or not items:
        return ()
    frames = backbone.frame_features(encoded.features, backbone.pools_at(encoded.visuals[0].layout))
    pieces = frames.split([item.layout.num_grids for item in items])
    notes = []
    for number, (item, piece) in enumerate(zip(items, pieces, strict=True), start=1):
        distance = world.distance(piece)
        if not distance > world.threshold:
            continue
        name = backbone.settings.name
        figures = f"distance {distance:.1f}, at most {world.threshold:.1f} for media of its world"
        if not backbone.asked_by_name:
            what = f"{UNFAMILIAR} {name} was trained on: {figures}"
            raise UnfamiliarMedia(item.path, what, f"{REAL_MODEL}; or --model {name}")
        which = item.kind if len(items) == 1 else f"{item.kind} at place {number}"
        notes.append(
            f"the {which} {UNFAMILIAR} {name} was trained on ({figures}): "
            f"do not rely on the answer; {REAL_MODEL}"
        )
    return tuple(notes)


def empty_note(text: str, num_tokens: int) -> tuple[str, ...]:
    """That an answer of ``num_tokens`` tokens has no words, and why."""
    if text:
        return ()
    how = f"its {num_tokens} tokens hold no text" if num_tokens else "the model ended it before a first word"
    return (f"the answer is empty: {how}",)


def stage_seconds(clock: StageClock) -> dict[str, float]:
    """The stages of an answer, in order, whether they took place or not."""
    spent = clock.seconds
    seconds = {stage: spent.get(stage, 0.0) for stage in ("cache", "decode", "vision")}
    seconds["overlap"] = clock.overlap("decode", "vision")
    return seconds | {stage: spent.get(stage, 0.0) for stage in ("prefill", "generate")}


def check_room(backbone: Backbone, question: Question, options: GenerateOptions | None = None) -> None:
    """Raises OutOfMemory where ``question`` (vision, prompt, cache) cannot fit beside the loaded model."""
    work = Workload.of(question, (options or GenerateOptions()).max_new_tokens)
    text: Any = backbone.hf.config.text_config
    attention = text._attn_implementation
    itemsize = backbone.dtype.itemsize
    need = estimate(backbone.hf.config, 0, itemsize=itemsize, workload=work, attn_implementation=attention)
    require_fit("this question", need, str(backbone.device))


@contextmanager
def report_out_of_memory(backbone: Backbone, question: Question) -> Iterator[None]:
    """Where the device's memory runs out, one line that says what would help."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not is_allocation_failure(fault):
            raise
        counted = question.budget.total_tokens - question.budget.reserve_tokens
        raise OutOfMemory(str(backbone.device), f"out of memory at {counted} tokens", SMALLER) from None


def _within_limit(options: GenerateOptions, question: Question) -> GenerateOptions:
    """Stop where the scaled context ends: beyond it the model was neither trained nor scaled to go."""
    used = question.budget.total_tokens - question.budget.reserve_tokens
    return replace(options, max_new_tokens=min(options.max_new_tokens, question.budget.limit - used))


class _Counted:
    """How many tokens have passed."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, steps: Iterator[int]) -> Iterator[int]:
        for token in steps:
            self.number += 1
            yield token


@dataclass(frozen=True, eq=False)
class Exchange:
    """A question and what was answered; ``answer`` is None where the answer was stopped on its way."""

    question: Question
    text: str
    answer: Answer | None


class Conversation:
    """Questions and answers about ``items``. Nothing is decoded before the first question."""

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[MediaItem],
        options: AskOptions,
        chosen: GenerateOptions,
        *,
        sampler: Sampler = IN_PROCESS,
        cache: FeatureCache | None = None,
        reuse_frames: bool = True,
    ) -> None:
        self.items = tuple(items)
        self.exchanges: list[Exchange] = []
        self._backbone = backbone
        self._options = options
        self._chosen = chosen
        self._sampler = sampler
        self._cache = cache
        self._reuse_frames = reuse_frames
        self._encoded: EncodedVisuals | None = None
        self._memory = PromptMemory(backbone)

    def plan(self, text: str) -> Question:
        """The next question, after all that was said. Raises UsageError, OverBudget if it does not fit."""
        settings, codec = self._backbone.settings, self._backbone.codec
        history = [(exchange.question.text, exchange.text) for exchange in self.exchanges]
        return plan_turn(self.items, text, settings, codec, self._options, history=history)

    def ask(self, question: Question, *, on_text: Callable[[str], None] | None = None) -> Answer:
        """Answer a question that ``plan`` made last. Where the answer is interrupted, the part that had come
        stays in the conversation, and the interrupt goes on. Raises as ``answer_question``."""
        backbone, clock = self._backbone, StageClock(self._backbone.device)
        said: list[str] = []

        def hear(piece: str) -> None:
            said.append(piece)
            if on_text is not None:
                on_text(piece)

        with report_out_of_memory(backbone, question):
            encoded = self._see(clock)
        try:
            answer = answer_seen(backbone, question, encoded, self._memory, clock, self._chosen, on_text=hear)
        except KeyboardInterrupt:
            if part := "".join(said).strip():
                self.exchanges.append(Exchange(question, part, None))
            raise
        self.exchanges.append(Exchange(question, answer.text, answer))
        if self._cache is None:
            return answer
        with clock.stage("cache"):
            self._cache.flush()
        return replace(answer, seconds=stage_seconds(clock), cache_notes=self._cache.take_notes())

    def _see(self, clock: StageClock) -> EncodedVisuals:
        if self._encoded is None:
            self._encoded = see(
                self._backbone,
                self.items,
                clock,
                sampler=self._sampler,
                cache=self._cache,
                reuse_frames=self._reuse_frames,
                keep_pixels=False,
            )
        return self._encoded

    def reset(self) -> None:
        """Forget what was said. What was seen is kept, and so is what the language model read of it."""
        self.exchanges.clear()

    def look_at(self, items: Sequence[MediaItem], options: AskOptions) -> None:
        """Go on about other frames or another range; what was said stays said.

        Raises OverBudget, and changes nothing, if not even a word more would fit then.
        """
        settings, codec = self._backbone.settings, self._backbone.codec
        history = [(exchange.question.text, exchange.text) for exchange in self.exchanges]
        plan_turn(items, "?", settings, codec, options, history=history)
        self.items, self._options = tuple(items), options
        self._encoded = None  # with it goes what the language model read: see PromptMemory.read
