"""The model of an evaluation, asked in batches: each prompt read on its own, tokens generated together.

answerer = Answerer(backbone, planner, GenerateOptions(), cache=None, reuse_frames=True)
answerer.answer([Ready(item, prepared.question, prepared), ...])     # a Reply, or the fault, for each

A prompt read on its own has the same bits in every batch, and the same as ``vidllava ask`` has. Where memory
runs out, the batch is halved, now and from now on; a question that does not fit alone is given up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from vidllava.backbone.answer import check_familiar, check_room, empty_note, stage_seconds
from vidllava.backbone.feature_cache import FeatureCache
from vidllava.backbone.generate import ReadPrompt, generate_after, generate_together
from vidllava.backbone.memory import SMALLER, OutOfMemory
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory
from vidllava.backbone.see import EncodedVisuals, StageClock, see
from vidllava.errors import MediaError, ResourceError, UnfamiliarMedia, VidllavaError, is_allocation_failure
from vidllava.evaluation.asking import Planner, Ready, Reply
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.memory import PeakMemory
from vidllava.prompting.budget import OverBudget
from vidllava.visuals.options import GenerateOptions
from vidllava.visuals.question import Question


@dataclass(eq=False)
class _Open:
    """A question whose prompt is read."""

    place: int
    question: Question
    encoded: EncodedVisuals
    clock: StageClock
    prompt: ReadPrompt
    limit: int
    """New tokens at most."""
    notes: tuple[str, ...]
    """On the media."""


class Answerer:
    """One loaded model, asked in batches."""

    def __init__(
        self,
        backbone: Backbone,
        planner: Planner,
        options: GenerateOptions,
        *,
        cache: FeatureCache | None,
        reuse_frames: bool,
    ) -> None:
        self._backbone, self._planner, self._options = backbone, planner, options
        self._cache, self._reuse_frames = cache, reuse_frames
        self._watch = PeakMemory(backbone.device)
        self.largest: int | None = None
        """So many at once since memory ran out; None while it has not."""

    def answer(self, ready: Sequence[Ready]) -> list[Reply | VidllavaError]:
        """A reply to each, in order, or the fault that says why there is none. Raises ModelError."""
        step = min(self.largest or len(ready), len(ready))
        found: list[Reply | VidllavaError] = []
        while len(found) < len(ready):
            part = ready[len(found) : len(found) + step]
            try:
                with _out_of_memory_told():
                    found += self._together(part)
                continue
            except OutOfMemory as fault:
                if len(part) == 1:
                    found.append(fault.with_traceback(None))
                    continue
            step = self.largest = len(part) // 2
            if self._backbone.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    @torch.inference_mode()
    def _together(self, ready: Sequence[Ready]) -> list[Reply | VidllavaError]:
        self._watch.start()
        found: dict[int, Reply | VidllavaError] = {}
        opened: list[_Open] = []
        for place, one in enumerate(ready):
            try:
                opened.append(self._open(place, one))
            except (MediaError, ResourceError, OverBudget, UnfamiliarMedia) as fault:
                found[place] = fault.with_traceback(None)
        for batch in self._batches(opened):
            found |= self._generate(batch)
        if self._cache is not None:
            self._cache.flush()
        peak = self._watch.bytes()
        replies = [found[place] for place in range(len(ready))]
        return [replace(one, peak_bytes=peak) if isinstance(one, Reply) else one for one in replies]

    def _open(self, place: int, one: Ready) -> _Open:
        """Look, and read the prompt; of a conversation, hold it up to the last question."""
        backbone, clock = self._backbone, StageClock(self._backbone.device)
        check_room(backbone, one.question, self._options)
        encoded = see(
            backbone,
            one.question.items,
            clock,
            sampler=one.sampler,
            cache=self._cache,
            reuse_frames=self._reuse_frames,
            keep_pixels=False,
        )
        seen_notes = (note for seen in encoded.visuals for note in seen.notes)
        notes = (*seen_notes, *check_familiar(backbone, one.question.items, encoded))
        memory, question = PromptMemory(backbone), one.question
        said: list[tuple[str, str]] = []
        layouts = [seen.layout for seen in encoded.visuals]
        while True:
            factor = question.budget.rope_factor
            with clock.stage("prefill"):
                logits = memory.read(question.prompt, layouts, encoded.features, rope_factor=factor)
            limit = self._limit(one.item, question)
            if len(said) == len(one.item.earlier):
                prompt = ReadPrompt(logits, memory.cache, memory.num_rows)
                return _Open(place, question, encoded, clock, prompt, limit, notes)
            options = replace(self._options, max_new_tokens=limit)
            rows = memory.num_rows
            with clock.stage("generate"):
                steps = generate_after(
                    backbone, logits, memory.cache, rows, rope_factor=factor, options=options
                )
                text = "".join(backbone.codec.stream(steps)).strip()
            said.append((question.text, text))
            question = self._planner.next_turn(one.item, question, said)

    def _limit(self, item: EvalItem, question: Question) -> int:
        """The flag's, the benchmark's, and where the scaled context ends: the smallest of them."""
        left = question.budget.limit - (question.budget.total_tokens - question.budget.reserve_tokens)
        asked = self._options.max_new_tokens
        return min(left, asked if item.max_new_tokens is None else min(asked, item.max_new_tokens))

    def _batches(self, opened: Sequence[_Open]) -> Iterator[list[_Open]]:
        """Together those with one RoPE factor; alone where a cache with a sliding window cannot be padded."""
        by_factor: dict[float, list[_Open]] = {}
        for one in opened:
            by_factor.setdefault(one.question.budget.rope_factor, []).append(one)
        for batch in by_factor.values():
            plain = all(one.prompt.can_be_padded for one in batch)
            yield from [batch] if plain else [[one] for one in batch]

    def _generate(self, batch: Sequence[_Open]) -> dict[int, Reply | VidllavaError]:
        options = replace(self._options, max_new_tokens=max(one.limit for one in batch))
        tokens: list[list[int]] = [[] for _ in batch]
        clock = StageClock(self._backbone.device)
        factor = batch[0].question.budget.rope_factor
        prompts = [one.prompt for one in batch]
        with clock.stage("generate"):
            for step in generate_together(self._backbone, prompts, rope_factor=factor, options=options):
                for own, one, token in zip(tokens, batch, step, strict=True):
                    if token is not None and len(own) < one.limit:
                        own.append(token)
        share = clock.seconds["generate"] / len(batch)
        return {one.place: self._reply(one, own, share) for one, own in zip(batch, tokens, strict=True)}

    def _reply(self, one: _Open, tokens: Sequence[int], seconds_generating: float) -> Reply:
        spent = stage_seconds(one.clock)
        spent["generate"] += seconds_generating
        visuals = one.encoded.visuals
        text = "".join(self._backbone.codec.stream(tokens)).strip()
        return Reply(
            text=text,
            question=one.question,
            frames=tuple(seen.frames for seen in visuals),
            notes=(*one.notes, *empty_note(text, len(tokens))),
            new_tokens=len(tokens),
            stopped=len(tokens) < one.limit,
            seconds=spent,
            peak_bytes=0,
        )


@contextmanager
def _out_of_memory_told() -> Iterator[None]:
    """One fault for the three ways in which memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not is_allocation_failure(fault):
            raise
        raise OutOfMemory("memory", "is not enough for this question", SMALLER) from None
