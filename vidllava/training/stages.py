"""What a stage and a recipe set: the published figures of the four source systems, each with its source.

A stage says what learns, how fast, from pictures of which size, up to which length. A recipe says which
system's figures those are, and how that system reads clips. `recipe.resolve` puts them under what was asked
for. Papers, blogs and scripts are named where their figures stand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from vidllava.prompting.conversation import Placement
from vidllava.training.settings import Module, RecipeName, StageName
from vidllava.visuals.presets import PRESETS, Preset

AnyRes = str
"""Grids of tiles as `prompting.layout.parse_pinpoints` reads them, or WHOLE."""
WHOLE = "whole"
"""No tiles: a picture is seen once, squashed into a square (image_aspect_ratio square)."""

# LLaVA-NeXT's five grids, 384 x {2x2, 1x{2,3}, {2,3}x1} (order of its image_grid_pinpoints).
NEXT_GRIDS: AnyRes = "(1x2),(2x1),(2x2),(3x1),(1x3)"
# OneVision's and the ablations' best: 384 x {(1x1)..(6x6)}.
HIGHER_GRIDS: AnyRes = "(1x1),...,(6x6)"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one stage of one recipe sets. None leaves it to the model or to the general default."""

    freeze: tuple[Module, ...] = ()
    learning_rate: float
    """Of the language model."""
    vision_share: float = 0.2
    """The tower's rate as a share of the language model's; the projector learns as fast as the latter."""
    anyres_grids: AnyRes | None = None
    anyres_max_tiles: int | None = None
    """Most tokens of a picture are those of the base view and of so many tiles."""
    model_max_length: int | None = None
    plain: bool = False
    source: str


# LLaVA-OneVision, Table 1, and its scripts pretrain_siglip.sh, finetune_si.sh, finetune_ov.sh.
# The table prints a vision rate for stage 1, where the tower is frozen; the scripts are followed.
_OV = "LLaVA-OneVision, Table 1"
ONEVISION: dict[StageName, Figures] = {
    "1": Figures(
        freeze=("vision", "llm"),  # mm_tunable_parts mm_mlp_adapter; the newline vector is the LLM's
        learning_rate=1e-3,
        anyres_grids=WHOLE,  # 729 tokens
        model_max_length=8192,
        plain=True,
        source=_OV,
    ),
    "1.5": Figures(
        learning_rate=1e-5,
        vision_share=0.2,  # 2e-6
        anyres_grids=NEXT_GRIDS,
        anyres_max_tiles=4,  # 729 * 5
        model_max_length=32768,
        source=_OV,
    ),
    "2-si": Figures(
        learning_rate=1e-5,
        vision_share=0.2,  # 2e-6
        anyres_grids=HIGHER_GRIDS,
        anyres_max_tiles=9,  # 729 * 10
        model_max_length=32768,
        source=_OV,
    ),
}
ONEVISION["2-ov"] = ONEVISION["2-si"]

# LLaVA-NeXT-Ablations: rates that were best for Qwen1.5 by size, batch 128; vision 2e-6 throughout.
_ABLATION_RATES = ((20e9, 2e-5), (float("inf"), 1e-5))
_ABLATION_VISION_RATE = 2e-6


def ablation_rate(llm_parameters: int) -> float:
    """The language model's rate by its size: 2e-5 up to 14B, 1e-5 from 32B on."""
    return next(rate for most, rate in _ABLATION_RATES if llm_parameters < most)


def _ablations(stage: StageName, llm_parameters: int) -> Figures:
    if stage == "1":
        # 558K captions, the connector alone, as everywhere in this family.
        return ONEVISION["1"]
    rate = ablation_rate(llm_parameters)
    # LLaVA-NeXT-Ablations: stage 1.5 trains the full model in the same configuration as stage 2.
    return Figures(
        learning_rate=rate,
        vision_share=_ABLATION_VISION_RATE / rate,
        anyres_grids=HIGHER_GRIDS,
        anyres_max_tiles=9,  # 6x6 with (9+1) * 729 tokens: the best for its time
        source="LLaVA-NeXT-Ablations",
    )


def _next_video(stage: StageName) -> Figures:
    if stage == "1":
        return ONEVISION["1"]
    # Its own rates were never published; those of LLaVA-Video's script stand in.
    return Figures(
        learning_rate=1e-5,
        vision_share=0.2,
        anyres_grids=NEXT_GRIDS,  # LLaVA-NeXT's, which it starts from
        anyres_max_tiles=4,
        source="LLaVA-NeXT-Video, rates of LLaVA-Video",
    )


def _interleave(stage: StageName) -> Figures:
    if stage == "1":
        return ONEVISION["1"]
    # The final run's rates were never published; OneVision's script is the nearest public one.
    # Single pictures are tiled, the grid is not told: the model's own stays.
    return Figures(
        learning_rate=1e-5,
        vision_share=0.2,
        source="LLaVA-NeXT-Interleave, rates of LLaVA-OneVision",
    )


def figures(recipe: RecipeName, stage: StageName, *, llm_parameters: int) -> Figures:
    """What this stage of this recipe sets for a language model of this size."""
    if recipe == "onevision":
        return ONEVISION[stage]
    if recipe == "ablations":
        return _ablations(stage, llm_parameters)
    return _next_video(stage) if recipe == "next-video" else _interleave(stage)


@dataclass(frozen=True, kw_only=True)
class ClipRules:
    """How a recipe reads clips and places visuals."""

    preset: Preset
    placement: Placement = "in-place"
    source: str


CLIP_RULES: dict[RecipeName, ClipRules] = {
    # Its scripts: frames_upbound 32, bilinear, stride 2, one newline a clip.
    "onevision": ClipRules(preset=PRESETS["onevision"], source="LLaVA-OneVision, C.1"),
    # Its blog: trained with 32 frames at stride 2; average pooling, no newline.
    "next-video": ClipRules(preset=replace(PRESETS["next-video"], num_frames=32), source="LLaVA-NeXT-Video"),
    # Its blog: frames are not pooled; mixing both placements is best for either at inference.
    "interleave": ClipRules(preset=PRESETS["interleave"], placement="mixed", source="LLaVA-NeXT-Interleave"),
    # Pictures only; clips as OneVision reads them.
    "ablations": ClipRules(preset=PRESETS["onevision"], source="LLaVA-OneVision, C.1"),
}
DEFAULT_STAGE: dict[RecipeName, StageName] = {
    "onevision": "2-ov",
    "next-video": "2-ov",
    "interleave": "2-ov",
    "ablations": "2-si",
}
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
RECIPE_NAMES: tuple[RecipeName, ...] = get_args(RecipeName)

# LLaVA-1.5's finetune_lora.sh: 2e-4 for the adapters, 2e-5 for the projector beside them.
LORA_RATE = 2e-4
LORA_PROJECTOR_RATE = 2e-5
