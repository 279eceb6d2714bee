"""A planned question -> pixels -> features -> prefill -> text: one answer, with what was really used.

backbone = load_backbone("nano")
question = plan_question(["clip.mp4"], "what happens", backbone.settings, backbone.codec)
answer = answer_question(backbone, question)
answer.text, answer.frames[0].timestamps_seconds, answer.seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from vidllava.backbone.generate import GenerateOptions, generate
from vidllava.backbone.model import Backbone
from vidllava.backbone.question import MediaItem, Question
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.errors import ResourceError
from vidllava.media.frames import FramePlan
from vidllava.media.pixels import padded_square, picture_tiles
from vidllava.media.sampler import IN_PROCESS, Sampler


@dataclass(frozen=True, eq=False)
class Answer:
    """The text, and everything about how it came about."""

    text: str
    question: Question
    frames: tuple[FramePlan | None, ...]
    """Per media item the frames really decoded; None for a picture."""
    visuals: tuple[VisualInput, ...] = field(repr=False)
    """Per media item what the vision tower saw."""
    notes: tuple[str, ...]
    """What a reader of the answer must know: damage, fall-backs."""
    prompt_tokens: int
    completion_tokens: int
    stopped: bool
    """False if the answer was cut by max_new_tokens."""
    seconds: dict[str, float]
    """decode, vision, prefill, generate: wall time of each stage."""


class StageClock:
    """Wall seconds per stage, with the device idle at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage ``name``."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@torch.inference_mode()
def answer_question(
    backbone: Backbone,
    question: Question,
    options: GenerateOptions | None = None,
    *,
    on_text: Callable[[str], None] | None = None,
    sampler: Sampler = IN_PROCESS,
) -> Answer:
    """Answer one question; ``on_text`` receives each piece of text as it is generated.

    Raises MediaError if a file turns out to be unusable while decoding (a question is never answered
    without its media), ResourceError if memory runs out.
    """
    options = _within_limit(options or GenerateOptions(), question)
    clock = StageClock(backbone.device)
    with clock.stage("decode"):
        loaded = [load_visual(item, backbone.settings.image_size, sampler) for item in question.items]
    visuals = tuple(visual for visual, _, _ in loaded)
    batch = collate([SampleInput(question.prompt, visuals)]).to(backbone.device)
    pieces: list[str] = []
    tokens = _Tokens()
    try:
        with clock.stage("vision"):
            features = backbone.encode(batch.pixels)
        steps = generate(
            backbone, batch, rope_factor=question.budget.rope_factor, options=options, features=features
        )
        # The generator runs its prefill before its first token: the stage ends when that token is here.
        with clock.stage("prefill"):
            tokens.take(next(steps, None))
        with clock.stage("generate"):
            for piece in backbone.codec.stream(tokens.follow(steps)):
                pieces.append(piece)
                if on_text is not None:
                    on_text(piece)
    except torch.OutOfMemoryError:
        raise ResourceError(
            str(backbone.device),
            f"out of memory at {batch.length} tokens",
            "fewer --num-frames, a larger --pool-stride, or a smaller model",
        ) from None
    return Answer(
        text="".join(pieces).strip(),
        question=question,
        frames=tuple(plan for _, plan, _ in loaded),
        visuals=visuals,
        notes=tuple(note for _, _, notes in loaded for note in notes),
        prompt_tokens=batch.length,
        completion_tokens=tokens.count,
        stopped=tokens.count < options.max_new_tokens,
        seconds=clock.seconds,
    )


def _within_limit(options: GenerateOptions, question: Question) -> GenerateOptions:
    """Stop where the scaled context ends: beyond it the model was neither trained nor scaled to go."""
    used = question.budget.total_tokens - question.budget.reserve_tokens
    return replace(options, max_new_tokens=min(options.max_new_tokens, question.budget.limit - used))


class _Tokens:
    """Tokens as they come: the first is drawn alone, because its time is the prefill's."""

    def __init__(self) -> None:
        self.count = 0
        self._first: int | None = None

    def take(self, token: int | None) -> None:
        self._first = token

    def follow(self, steps: Iterator[int]) -> Iterator[int]:
        if self._first is None:
            return
        self.count = 1
        yield self._first
        for token in steps:
            self.count += 1
            yield token


def load_visual(
    item: MediaItem, size: int, sampler: Sampler = IN_PROCESS
) -> tuple[VisualInput, FramePlan | None, tuple[str, ...]]:
    """Decode one planned item to what the tower reads: pixels uint8 [n, 3, size, size], the frames, notes."""
    if item.info is not None and item.plan is not None and item.backend is not None:
        frames = sampler.decode(item.info, item.plan, backend=item.backend, size=size)
        pixels = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2).contiguous()
        return VisualInput(pixels, item.layout), frames.plan, frames.notes
    assert item.picture is not None  # a planned item is a clip or a picture
    if item.layout.kind == "pictures":
        return VisualInput(padded_square(item.picture, size), item.layout), None, ()
    return VisualInput(picture_tiles(item.picture, item.pinpoints, size), item.layout), None, ()
