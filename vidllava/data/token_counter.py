"""How samples become tokens, and the length of one before it is decoded: prompt, and visuals from headers.

    counter = TokenCounter(settings, codec, EncodeOptions())
    counter.count(sample, headers, sampler)            # 1523 tokens, exactly what encoding it will give

The encoder plans with the same object, so a count and the sample that is trained on cannot differ (but for
`--placement mixed`, whose few words of text depend on the draw).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidllava.data.media_index import Headers
from vidllava.data.source import Sample, Visual, modality_of
from vidllava.errors import DatasetError
from vidllava.media.frames import FramePlan
from vidllava.media.sampler import HeaderSampler
from vidllava.media.timeline import Sampling, SamplingRequest
from vidllava.prompting.conversation import (
    Encoder,
    LabelRule,
    MediaKind,
    Placement,
    TokenizedPrompt,
    Turn,
    leading,
    num_placeholders,
    place,
    tokenize,
)
from vidllava.prompting.formatting import formatting_prompt, tokenize_plain, with_format
from vidllava.prompting.layout import VisualLayout
from vidllava.visuals.options import PoolingOptions
from vidllava.visuals.planner import ModelSettings, VisualPlanner


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(PoolingOptions):
    """How samples become tokens; None takes the model preset's own value.

    request       which frames of a clip file that asks for none itself
    sampling      whether a number of frames is even in time or by index, where a clip does not say
    placement     where visuals stand, None = in-place; "mixed" draws per sample from `seed`
    max_length    most rows one sample may have; None = the model's trained context
    anyres_grids  tiles of a picture that is alone, as `parse_pinpoints` reads them, or "whole" for none;
                  with `anyres_max_tiles` it becomes part of the model's settings (`backbone.tuning`)
    plain         the format of stage 1: visual and caption, nothing else
    labels        "upstream" also trains on what LLaVA-NeXT's trainer does
    formatting_prompts  ask for the form of answer that a data set wants (`prompting.formatting`)
    """

    request: SamplingRequest | None = None
    sampling: Sampling | None = None
    placement: Placement | None = None
    anyres_grids: str | None = None
    anyres_max_tiles: int | None = None
    plain: bool | None = None
    labels: LabelRule = "answers"
    formatting_prompts: bool = False
    max_length: int | None = None
    video_backend: str | None = None
    seed: int = 0


class TokenCounter:
    """Prompts, frame plans and lengths of samples, for one model and one set of options."""

    def __init__(self, settings: ModelSettings, codec: Encoder, options: EncodeOptions) -> None:
        self.codec, self.options = codec, options
        self.planner = VisualPlanner.of(settings, options, request=options.request, sampling=options.sampling)
        self.planner.video(1)  # refuses a stride or mode that cannot be meant before the first sample does
        self.max_length = options.max_length or int(settings.trained_context * settings.least_factor)
        self.template = settings.template

    def prompt(self, sample: Sample, *, draw: int = 0) -> TokenizedPrompt:
        """Ids with a slot per visual, labels on the answers; `draw` seeds a mixed placement."""
        kinds: list[MediaKind] = ["video" if v.kind == "video" else "picture" for v in sample.visuals]
        around = self.template.around_media
        turns = sample.turns if num_placeholders(sample.turns) else _in_front(sample.turns, kinds, around)
        seed = f"{self.options.seed}:{draw}:{sample.id}"
        if self.options.formatting_prompts:
            turns = _with_format(sample, turns)
        turns = place(turns, kinds, self.options.placement or "in-place", seed=seed, source=sample.id)
        if self.options.plain:
            return tokenize_plain(turns, self.template, self.codec, source=sample.id)
        labels = self.options.labels
        return tokenize(turns, self.template, self.codec, add_generation_prompt=False, labels=labels)

    def plan(
        self, visual: Visual, frame_times: np.ndarray, source: str, duration_seconds: float | None
    ) -> FramePlan:
        """Which frames of a clip are seen. Raises UsageError for a range that starts after its end."""
        return self.planner.frames(
            frame_times, source=source, duration_seconds=duration_seconds, own=visual.request
        )

    def plan_pictures(self, visual: Visual) -> FramePlan:
        """Which pictures of a clip that is a folder of them are seen."""
        assert visual.pictures is not None
        times = np.arange(len(visual.pictures)) / visual.pictures_per_second
        duration = len(visual.pictures) / visual.pictures_per_second
        return self.plan(visual, times, visual.pictures[0], duration)

    def layout(self, visual: Visual, headers: Headers, sampler: HeaderSampler) -> VisualLayout:
        """The rows of one visual. Raises MediaError, ResourceError or UsageError for one that has none."""
        if visual.kind == "video":
            if visual.pictures is not None:
                return self.planner.video(len(self.plan_pictures(visual)))
            if visual.path is None:
                assert visual.frames is not None
                return self.planner.video(len(visual.frames))
            clip = headers.clip(visual.path, sampler)
            assert clip.frame_times is not None
            plan = self.plan(visual, clip.frame_times, visual.path, clip.duration_seconds)
            return self.planner.video(len(plan))
        alone = visual.kind != "pictures"
        if not alone and self.planner.picture_rule(alone=False) != "tiles":
            return self.planner.picture(1, 1, alone=False)  # whatever its size
        if visual.path is None:
            assert visual.frames is not None
            return self.planner.picture(*visual.frames.shape[1:3], alone=alone)
        header = headers.picture(visual.path, sampler)
        return self.planner.picture(header.height, header.width, alone=alone)

    def count(self, sample: Sample, headers: Headers, sampler: HeaderSampler) -> int:
        """Tokens of the whole sample. Raises what `layout` raises."""
        rows = self.num_visual_tokens(sample, headers, sampler)
        return self.prompt(sample).num_text_tokens + rows

    def num_visual_tokens(self, sample: Sample, headers: Headers, sampler: HeaderSampler) -> int:
        """Tokens of its visuals, newlines among them. Raises what `layout` raises."""
        return sum(self.layout(visual, headers, sampler).num_tokens for visual in sample.visuals)

    def check_length(self, sample: Sample, num_tokens: int) -> None:
        """Raises DatasetError for a sample that is longer than a sample may be: nothing is ever cut."""
        if num_tokens > self.max_length:
            raise DatasetError(
                sample.id,
                f"needs {num_tokens} tokens, the limit is {self.max_length}",
                "fewer frames, a larger --pool-stride, or a larger --model-max-length",
            )

    def check_labels(self, sample: Sample, prompt: TokenizedPrompt) -> None:
        """Raises DatasetError for a sample that nothing can be learnt from: its loss would be NaN."""
        if prompt.num_labels == 0:
            raise DatasetError(sample.id, "has no answer to learn")


def _with_format(sample: Sample, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The conversation with the formatting prompt of its row, or else of its data set, where there is one.

    Raises DatasetError for a prompt that the row names and that does not exist.
    """
    table = modality_of(sample.visuals)
    if sample.prompt_id is not None:
        prompt = formatting_prompt(sample.prompt_id, table)
        if prompt is None:
            what = f"no formatting prompt for {table} has this name"
            raise DatasetError(
                f"{sample.id}: format {sample.prompt_id}", what, "a number of the paper's table"
            )
    else:
        prompt = formatting_prompt(sample.dataset, table) if sample.dataset else None
    return turns if prompt is None else with_format(turns, prompt)


def _in_front(
    turns: tuple[Turn, ...], kinds: list[MediaKind], around: tuple[str, str] | None
) -> tuple[Turn, ...]:
    """The conversation with its visuals before the first question, spelt as `ask` spells them."""
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    asked = Turn.from_parts("user", [*leading(kinds, around), *turns[first].parts])
    return (*turns[:first], asked, *turns[first + 1 :])
