"""Questions planned: media, frames, token ids and budget, all known before any weight is touched.

    question = plan_question(["clip.mp4"], "what happens", settings, codec, AskOptions(num_frames=16))
    question.budget.rope_factor, question.items[0].plan

Imports neither torch nor transformers, so that a wrong path or a range outside the clip is told at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vidllava.errors import UsageError
from vidllava.media.decode import choose_backend
from vidllava.media.frames import FramePlan
from vidllava.media.picture_folder import CONTAINER, folder_info
from vidllava.media.probe import VideoInfo, media_kind
from vidllava.media.sampler import IN_PROCESS, Sampler
from vidllava.media.timeline import SamplingRequest
from vidllava.models.family import Preset
from vidllava.prompting.budget import TokenBudget, budget
from vidllava.prompting.conversation import (
    Encoder,
    MediaKind,
    Template,
    TokenizedPrompt,
    Turn,
    build_prompt,
    time_instruction,
    tokenize,
    without_marks,
)
from vidllava.prompting.layout import VisualLayout
from vidllava.visuals.options import AskOptions
from vidllava.visuals.planner import ModelSettings, VisualPlanner, named_preset

# Options that choose frames of a clip, and say nothing of pictures.
_OF_CLIPS = ("num_frames", "fps", "max_frames", "sampling", "keyframes", "start_seconds", "end_seconds")


@dataclass(frozen=True, eq=False)
class MediaItem:
    """One planned clip or picture. ``height`` and ``width`` are its display size in pixels."""

    path: str
    kind: MediaKind
    height: int
    width: int
    layout: VisualLayout
    info: VideoInfo | None = None
    plan: FramePlan | None = None
    backend: str | None = None
    picture: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    picture_notes: tuple[str, ...] = ()
    """What the picture's file holds besides; a clip's notes are those of ``info``."""
    pinpoints: tuple[tuple[int, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Question:
    """A question that fits: its media in order, the prompt with a slot for each, the budget."""

    text: str
    items: tuple[MediaItem, ...]
    prompt: TokenizedPrompt
    budget: TokenBudget
    notes: tuple[str, ...]
    """What changed the plan and why, for people."""


def plan_question(
    media: Sequence[str],
    text: str,
    settings: ModelSettings,
    encoder: Encoder,
    options: AskOptions | None = None,
    *,
    require_fit: bool = True,
    sampler: Sampler = IN_PROCESS,
) -> Question:
    """Plan ``text`` about ``media`` (paths, in the order in which the question speaks of them).

    Raises MediaError for a file that cannot be used, UsageError for options that cannot be meant or a prompt
    that does not fit (unless ``require_fit`` is False: then ``budget.fits`` says so).
    """
    options = options or AskOptions()
    items = plan_media(media, visual_planner(settings, options), options, sampler)
    return plan_turn(items, text, settings, encoder, options, require_fit=require_fit)


def plan_turn(
    items: Sequence[MediaItem],
    text: str,
    settings: ModelSettings,
    encoder: Encoder,
    options: AskOptions,
    *,
    history: Sequence[tuple[str, str]] = (),
    require_fit: bool = True,
) -> Question:
    """Plan ``text`` about planned media, after the (question, answer) pairs of ``history``.

    The media stand in the conversation's first question. Raises as ``plan_question``.
    """
    preset = named_preset(options.preset) or settings.preset
    template, unspoken = _template(settings, preset, encoder)
    turns, taken = _conversation(items, text, options, history, encoder, preset, template)
    prompt = tokenize(turns, template, encoder, add_generation_prompt=True)
    trained = preset.trained_context or settings.trained_context
    counted = budget(
        [item.layout for item in items],
        prompt.num_text_tokens,
        reserve_tokens=preset.reserve_tokens,
        context_limit=trained if options.context_limit is None else options.context_limit,
        rope_factor=options.rope_factor,
        least_factor=settings.least_factor,
    )
    if require_fit:
        counted.require_fit()
    notes = [*settings.notes, *unspoken]
    notes += [note for item in items for note in (item.info.notes if item.info else item.picture_notes)]
    if taken:
        many = "control tokens or placeholders that match no media"
        notes.append(f"taken out of the question: {' '.join(taken)} ({many})")
    if counted.notice is not None:
        notes.append(counted.notice)
    return Question(text=text, items=tuple(items), prompt=prompt, budget=counted, notes=tuple(notes))


def _template(settings: ModelSettings, preset: Preset, encoder: Encoder) -> tuple[Template, tuple[str, ...]]:
    """The template of ``preset``; the model's own, and a note, where its tokenizer cannot write that one."""
    template = settings.template_of(preset)
    lacking = sorted(template.control_names - encoder.controls())
    if not lacking or template is settings.template:
        return template, ()
    what = f"{settings.name} has no {lacking[0]}: its own template is spoken, not {template.name}"
    return settings.template, (what,)


def _conversation(
    items: Sequence[MediaItem],
    text: str,
    options: AskOptions,
    history: Sequence[tuple[str, str]],
    encoder: Encoder,
    preset: Preset,
    template: Template,
) -> tuple[list[Turn], tuple[str, ...]]:
    """The turns, and what was taken out of ``text``: it would have read as a control token or placeholder."""
    timed = preset.time_instruction if options.time_instruction is None else options.time_instruction
    instructions = [_instruction(item) for item in items] if timed else []
    turns: list[Turn] = []
    taken: tuple[str, ...] = ()
    kinds: list[MediaKind] = [item.kind for item in items]
    for question, answer in (*history, (text, None)):
        words, taken = without_marks(question, kinds, encoder.controls())
        if question.strip() and not words.strip():
            raise UsageError("question", f"is nothing but {' '.join(taken)}", "for example: what happens")
        if not turns:
            turns += build_prompt(
                words, kinds, options.system, time_instructions=instructions, around=template.around_media
            )
        else:
            turns += build_prompt(words, [])
        kinds = []
        if answer is not None:
            turns.append(Turn("assistant", answer))
    return turns, taken


def visual_planner(settings: ModelSettings, options: AskOptions) -> VisualPlanner:
    """How visuals are planned under ``options``. Raises UsageError for options that cannot be meant."""
    preset = named_preset(options.preset) or settings.preset
    count_by_default = options.num_frames is None and options.fps is None
    request = SamplingRequest(
        num_frames=preset.num_frames if count_by_default else options.num_frames,
        fps=options.fps,
        max_frames=options.max_frames,
        keyframes=options.keyframes,
        start_seconds=options.start_seconds,
        end_seconds=options.end_seconds,
        rule=preset.sampling_rule,
        sampling=options.sampling,
    )
    return VisualPlanner.of(settings, options, preset=preset, request=request)


def check_options(settings: ModelSettings, options: AskOptions) -> None:
    """Raises UsageError for options that no clip can be planned with: before a first one is looked into."""
    visual_planner(settings, options).video(1)


def plan_media(
    media: Sequence[str], planner: VisualPlanner, options: AskOptions, sampler: Sampler = IN_PROCESS
) -> tuple[MediaItem, ...]:
    """Look at every file and plan its frames. A picture alone in its prompt is tiled, others are squares."""
    backend, _ = choose_backend(options.video_backend)
    kinds = [media_kind(path) for path in media]
    alone = len(media) == 1
    items = tuple(
        _plan_clip(path, planner, backend, sampler, options.frame_rate)
        if kind == "video"
        else _plan_picture(path, planner, alone, sampler)
        for path, kind in zip(media, kinds, strict=True)
    )
    if "video" not in kinds and media:  # last: that a picture is damaged matters more
        _refuse_frame_options(options)
    if options.frame_rate is not None and media and not any(map(os.path.isdir, media)):
        what = "is for folders of pictures, and there is none among the media"
        raise UsageError("--frame-rate", what, "leave out --frame-rate")
    return items


def row_options(asked: AskOptions, own: Mapping[str, Any], media: Sequence[str]) -> AskOptions:
    """The options of one row of many: its ``own``, and those asked for all that its media can follow.

    How frames are chosen says nothing of a row without a clip, and a frame rate nothing of one without a
    folder of pictures; where the row itself says so, ``plan_media`` refuses it. Raises MediaError.
    """
    own = dict(own)
    if "num_frames" in own or "fps" in own:
        own = {"num_frames": None, "fps": None, **own}
    if media and not any(media_kind(path) == "video" for path in media):
        own = {**dict.fromkeys(_OF_CLIPS), **own}
    if not any(map(os.path.isdir, media)):
        own = {"frame_rate": None, **own}
    return replace(asked, **own)


def _refuse_frame_options(options: AskOptions) -> None:
    for name in _OF_CLIPS:
        if getattr(options, name) is not None:
            flag = "--" + name.removesuffix("_seconds").replace("_", "-")
            raise UsageError(flag, "is for videos, and there is none among the media", f"leave out {flag}")


def _plan_clip(
    path: str,
    planner: VisualPlanner,
    backend: str,
    sampler: Sampler,
    frame_rate: float | None,
) -> MediaItem:
    info = folder_info(path, frame_rate, sampler) if os.path.isdir(path) else sampler.probe(path)
    plan = planner.frames(
        info.frame_times,
        source=path,
        key_frames=info.key_frames,
        duration_seconds=info.duration_seconds,
    )
    return MediaItem(
        path=path,
        kind="video",
        height=info.height,
        width=info.width,
        layout=planner.video(len(plan)),
        info=info,
        plan=plan,
        backend="pillow" if info.container == CONTAINER else backend,
    )


def _plan_picture(path: str, planner: VisualPlanner, alone: bool, sampler: Sampler) -> MediaItem:
    picture = sampler.picture(path)
    height, width = picture.shape[:2]
    return MediaItem(
        path=path,
        kind="picture",
        height=height,
        width=width,
        layout=planner.picture(height, width, alone=alone),
        picture=picture,
        picture_notes=sampler.picture_notes(path),
        pinpoints=tuple(planner.canvases(alone=alone)),
    )


def _instruction(item: MediaItem) -> str | None:
    if item.info is None or item.plan is None:
        return None
    return time_instruction(item.info.duration_seconds, item.plan.timestamps_seconds)
