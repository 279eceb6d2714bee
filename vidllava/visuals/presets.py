"""Presets (the settings of each source system) and the models that have names here.

A preset says how frames become tokens; a model says where weights come from and which preset they were
trained with. Figures and sources: LLaVA-NeXT-Video blog (pooling, 4096 tokens), LLaVA-NeXT-Interleave blog
(729 tokens a picture, no pooling), LLaVA-OneVision paper C.1 (bilinear, stride 2, one newline per video).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vidllava.prompting.layout import NewlineMode, PoolMode

if TYPE_CHECKING:  # the arithmetic of times brings numpy, which --help does not need
    from vidllava.media.timeline import Rule, Sampling


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How one source system turns media and a question into tokens."""

    name: str
    """What ``--preset`` and a checkpoint's ``vidllava.json`` call it."""
    num_frames: int
    """Frames of a video when neither ``--num-frames`` nor ``--fps`` is given."""
    sampling_rule: Rule = "linspace"
    """Which instants those frames fall on."""
    sampling: Sampling = "time"
    """Whether they are even in time or by index."""
    pool_mode: PoolMode = "bilinear"
    """How the token map of a frame shrinks."""
    pool_stride: int = 2
    """By how much it shrinks on each side; 1 = not at all."""
    newline_mode: NewlineMode = "one_token"
    """Where the learned newline vector stands in a video."""
    template: Literal["chatml", "vicuna"] = "chatml"
    """The chat template that the language model was tuned with."""
    trained_context: int | None = None
    """Longest sequence trained on, in tokens; None = what the checkpoint's own configuration says."""
    reserve_tokens: int = 1000
    """Tokens kept free for the answer when a RoPE factor is chosen (LLaVA-NeXT's own figure is 1000)."""
    max_tiles: int = 9
    """``anyres_max_N``: a picture's token map is shrunk beyond N tiles' worth of tokens."""


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(name="onevision", num_frames=32),
        Preset(
            name="next-video",
            num_frames=16,
            pool_mode="average",
            newline_mode="no_token",
            template="vicuna",
            trained_context=4096,
        ),
        Preset(name="interleave", num_frames=16, pool_stride=1, newline_mode="frame"),
        # Short answers on a short context: 64 tokens are three times nano's longest answer.
        Preset(name="nano", num_frames=8, reserve_tokens=64),
    )
}


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model that ``--model`` knows by a short name."""

    name: str
    preset: str
    hub_id: str | None
    """Repository on the Hugging Face hub; None = the weights ship inside this package."""
    about: str


MODELS = {
    model.name: model
    for model in (
        NamedModel(
            name="nano",
            preset="nano",
            hub_id=None,
            about="embedded; trained by this project, knows its generated world of moving shapes only",
        ),
        NamedModel(
            name="onevision-0.5b",
            preset="onevision",
            hub_id="llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            about="LLaVA-OneVision, Qwen2 0.5B; about 1.8 GB",
        ),
        NamedModel(
            name="onevision-0.5b-si",
            preset="onevision",
            hub_id="llava-hf/llava-onevision-qwen2-0.5b-si-hf",
            about="LLaVA-OneVision 0.5B after the single-image stage",
        ),
        NamedModel(
            name="onevision-7b",
            preset="onevision",
            hub_id="llava-hf/llava-onevision-qwen2-7b-ov-hf",
            about="LLaVA-OneVision, Qwen2 7B; about 16 GB",
        ),
        NamedModel(
            name="onevision-72b",
            preset="onevision",
            hub_id="llava-hf/llava-onevision-qwen2-72b-ov-hf",
            about="LLaVA-OneVision, Qwen2 72B; about 146 GB",
        ),
    )
}
