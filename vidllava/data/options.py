"""How samples become tokens, as asked for; importing this loads neither torch nor a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from vidllava.media.timeline import Sampling, SamplingRequest
from vidllava.prompting.conversation import LabelRule, Placement
from vidllava.visuals.planner import PoolingOptions


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
