"""How samples become tokens, as asked for; importing this loads neither torch nor a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from vidllava.media.timeline import SamplingRequest
from vidllava.prompting.conversation import Placement
from vidllava.prompting.layout import NewlineMode, PoolMode


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How samples become tokens; None takes the model preset's own value.

    request       which frames of a clip file that asks for none itself
    pool_stride   how far a frame's grid shrinks
    placement     where visuals stand; "mixed" draws per sample from `seed`
    max_length    most rows one sample may have; None = the model's trained context
    """

    request: SamplingRequest | None = None
    pool_stride: int | None = None
    pool_mode: PoolMode | None = None
    newline_mode: NewlineMode | None = None
    placement: Placement = "in-place"
    max_length: int | None = None
    video_backend: str | None = None
    seed: int = 0
