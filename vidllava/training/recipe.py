"""Figures of the stages, and what a run is set to with the reason for each value: given, stage, or model.

    resolved = resolve(settings, encode, model)          # before torch, from the checkpoint's JSON files
    resolved.settings, resolved.encode                   # nothing is left open
    resolved.rows                                        # (name, value, where it comes from), to be shown

Whatever was given wins over the stage and the recipe, and these over the general defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vidllava.backbone.settings import Tuning, read_config
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import UsageError
from vidllava.media.timeline import SamplingRequest
from vidllava.models import presets
from vidllava.models.family import Preset
from vidllava.prompting.conversation import Placement
from vidllava.prompting.layout import parse_pinpoints
from vidllava.training.settings import Module, RecipeName, StageName, TrainingSettings
from vidllava.visuals.planner import ModelSettings

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


def stage_figures(recipe: RecipeName, stage: StageName, *, llm_parameters: int) -> Figures:
    """What this stage of this recipe sets for a language model of this size."""
    if recipe == "onevision":
        return ONEVISION[stage]
    if recipe == "ablations":
        return _ablations(stage, llm_parameters)
    return _next_video(stage) if recipe == "next-video" else _interleave(stage)


@dataclass(frozen=True, kw_only=True)
class ClipRules:
    """How a recipe reads clips and places visuals."""

    family: str
    """Whose preset says how clips are read."""
    num_frames: int | None = None
    """Where training reads other frames than answering does."""
    placement: Placement = "in-place"
    source: str

    @property
    def preset(self) -> Preset:
        """How clips are read."""
        preset = presets()[self.family]
        return preset if self.num_frames is None else replace(preset, num_frames=self.num_frames)


CLIP_RULES: dict[RecipeName, ClipRules] = {
    # Its scripts: frames_upbound 32, bilinear, stride 2, one newline a clip.
    "onevision": ClipRules(family="onevision", source="LLaVA-OneVision, C.1"),
    # Its blog: trained with 32 frames at stride 2; average pooling, no newline.
    "next-video": ClipRules(family="next-video", num_frames=32, source="LLaVA-NeXT-Video"),
    # Its blog: frames are not pooled; mixing both placements is best for either at inference.
    "interleave": ClipRules(family="interleave", placement="mixed", source="LLaVA-NeXT-Interleave"),
    # Pictures only; clips as OneVision reads them.
    "ablations": ClipRules(family="onevision", source="LLaVA-OneVision, C.1"),
}
DEFAULT_STAGE: dict[RecipeName, StageName] = {
    "onevision": "2-ov",
    "next-video": "2-ov",
    "interleave": "2-ov",
    "ablations": "2-si",
}

# LLaVA-1.5's finetune_lora.sh: 2e-4 for the adapters, 2e-5 for the projector beside them.
LORA_RATE = 2e-4
LORA_PROJECTOR_RATE = 2e-5


Row = tuple[str, str, str]
"""A setting's name, its value, and where it comes from."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A run's settings with nothing left open."""

    settings: TrainingSettings
    encode: EncodeOptions
    tuning: Tuning
    """What changes of the model besides its weights."""
    rows: tuple[Row, ...]


def resolve(
    settings: TrainingSettings,
    encode: EncodeOptions,
    model: ModelSettings,
) -> Resolved:
    """Put stage and recipe under what was given, for one model. Raises UsageError."""
    origins: dict[str, str] = {}
    chosen, read = settings, encode
    if settings.recipe is not None or settings.stage is not None:
        recipe = settings.recipe or "onevision"
        stage = settings.stage or DEFAULT_STAGE[recipe]
        found = stage_figures(recipe, stage, llm_parameters=llm_parameters(model))
        chosen, read = _with_figures(settings, encode, found, origins)
        chosen = replace(chosen, stage=stage)
    if settings.recipe is not None:
        read = _with_clips(read, CLIP_RULES[settings.recipe], origins)
    if settings.lora:
        chosen = _with_lora_rates(chosen, settings, origins)
    chosen = replace(chosen, rope_factor=_rope_factor(settings, model, origins))
    tuning = _tuning(chosen, read, model)
    tuned = tuning.applied(model)
    context = int(tuned.trained_context * tuned.least_factor)
    if encode.max_length is None:
        longest = min(read.max_length or context, context)
        origins["model_max_length"] = (
            origins.get("model_max_length", "") if read.max_length == longest else "the model's context"
        )
        read = replace(read, max_length=longest)
    resolved = chosen.resolved()
    return Resolved(
        settings=resolved,
        encode=read,
        tuning=tuning,
        rows=_rows(settings, resolved, encode, read, model, origins),
    )


def family_to_become(settings: TrainingSettings, model: ModelSettings) -> str | None:
    """The family that a run makes of the model; None where it stays what it is.

    LLaVA-NeXT-Video's stage begins from LLaVA-NeXT.
    """
    return "next-video" if settings.recipe == "next-video" and model.family == "next" else None


def _rope_factor(settings: TrainingSettings, model: ModelSettings, origins: dict[str, str]) -> float:
    """What was given, or the model's own. LLaVA-NeXT-Video's stage, begun from LLaVA-NeXT, scales by 2: its
    34B was trained and run at 8192 tokens."""
    if settings.rope_factor is not None:
        return settings.rope_factor
    if settings.recipe == "next-video" and model.family == "next" and model.least_factor == 1:
        origins["rope_factor"] = "LLaVA-NeXT-Video, 34B at 8192 tokens"
        return 2.0
    origins["rope_factor"] = "the model"
    return float(model.least_factor)


def llm_parameters(model: ModelSettings) -> int:
    """Parameters of the language model, from its configuration; 0 without a folder."""
    if model.folder is None:
        return 0
    text: Mapping[str, Any] = read_config(model.folder).get("text_config") or {}
    hidden, layers = int(text.get("hidden_size", 0)), int(text.get("num_hidden_layers", 0))
    heads = int(text.get("num_attention_heads", 0)) or 1
    shared = int(text.get("num_key_value_heads", heads)) / heads
    a_layer = 2 * hidden**2 * (1 + shared) + 3 * hidden * int(text.get("intermediate_size", 0))
    return int(layers * a_layer + int(text.get("vocab_size", 0)) * hidden)


def _with_figures(
    settings: TrainingSettings, encode: EncodeOptions, found: Figures, origins: dict[str, str]
) -> tuple[TrainingSettings, EncodeOptions]:
    """The stage's values where none was given; rates keep their proportion to the language model's."""
    llm = found.learning_rate if settings.learning_rate is None else settings.learning_rate
    of_settings: dict[str, Any] = {
        "learning_rate": llm,
        "vision_lr": llm * found.vision_share,
        "projector_lr": llm,
        "freeze": found.freeze,
    }
    if settings.lora and not found.freeze:
        del of_settings["freeze"]  # what LoRA leaves out is its own affair
    of_encode: dict[str, Any] = {
        "anyres_grids": found.anyres_grids,
        "anyres_max_tiles": found.anyres_max_tiles,
        "max_length": found.model_max_length,
        "plain": found.plain or None,
    }
    new_settings = _under(settings, of_settings, found.source, origins)
    new_encode = _under(encode, of_encode, found.source, origins)
    return replace(settings, **new_settings), replace(encode, **new_encode)


def _under(given: Any, values: Mapping[str, Any], source: str, origins: dict[str, str]) -> dict[str, Any]:
    """Those of ``values`` that ``given`` leaves open; 0 and () are values too."""
    taken = {
        name: value for name, value in values.items() if value is not None and getattr(given, name) is None
    }
    origins.update({_FLAGS.get(name, name): source for name in taken})
    return taken


def _with_clips(encode: EncodeOptions, rules: ClipRules, origins: dict[str, str]) -> EncodeOptions:
    """The recipe's way to read clips, where none was given."""
    preset = rules.preset
    values: dict[str, Any] = {
        "pool_stride": preset.pool_stride,
        "pool_mode": preset.pool_mode,
        "newline_mode": preset.newline_mode,
        "placement": rules.placement,
        "sampling": preset.sampling,
    }
    if encode.request is None:
        values["request"] = SamplingRequest(num_frames=preset.num_frames, rule=preset.sampling_rule)
        origins["num_frames"] = rules.source
    return replace(encode, **_under(encode, values, rules.source, origins))


def _with_lora_rates(
    chosen: TrainingSettings, given: TrainingSettings, origins: dict[str, str]
) -> TrainingSettings:
    """Additions that start from zero bear larger rates than released weights do."""
    source = "LLaVA-1.5, finetune_lora.sh"
    rates: dict[str, Any] = {}
    if given.learning_rate is None:
        rates = {"learning_rate": LORA_RATE}
    if given.projector_lr is None and "projector" not in chosen.lora_modules:
        llm = rates.get("learning_rate", chosen.learning_rate)
        assert llm is not None
        rates["projector_lr"] = llm * LORA_PROJECTOR_RATE / LORA_RATE
    if given.vision_lr is None:
        rates["vision_lr"] = rates.get("learning_rate", chosen.learning_rate or 0.0)
    origins.update(dict.fromkeys(rates, source))
    return replace(chosen, **rates)


def _tuning(settings: TrainingSettings, encode: EncodeOptions, model: ModelSettings) -> Tuning:
    pinpoints: tuple[tuple[int, int], ...] | None = None
    if encode.anyres_grids is not None:
        whole = encode.anyres_grids == WHOLE
        pinpoints = () if whole else parse_pinpoints(encode.anyres_grids, model.image_size)
    if encode.anyres_max_tiles is not None and encode.anyres_max_tiles < 1:
        raise UsageError(
            "--anyres-max-tiles", f"must be at least 1, got {encode.anyres_max_tiles}", "for example 9"
        )
    if settings.pool_first and (encode.pool_mode or model.preset.pool_mode) == "max":
        raise UsageError("--pool-first", "does not go with --pool-mode max", "bilinear or average")
    if encode.plain and encode.labels == "upstream":
        raise UsageError("--upstream-labels", "are those of a chat, stage 1 has none", "omit it")
    request = encode.request
    return Tuning(
        num_frames=None if request is None else request.num_frames,
        pool_stride=encode.pool_stride,
        pool_mode=encode.pool_mode,
        newline_mode=encode.newline_mode,
        pinpoints=pinpoints,
        max_tiles=encode.anyres_max_tiles,
        rope_factor=settings.rope_factor,
    )


# Fields of EncodeOptions whose flag has another name.
_FLAGS = {"max_length": "model_max_length", "plain": "format"}
_SHOWN = ("stage", "recipe", "freeze", "learning_rate", "vision_lr", "projector_lr", "warmup_ratio")
_SHOWN_TOO = ("lr_scheduler_type", "weight_decay", "mix", "rope_factor")


def _rows(
    given: TrainingSettings,
    resolved: TrainingSettings,
    asked: EncodeOptions,
    read: EncodeOptions,
    model: ModelSettings,
    origins: Mapping[str, str],
) -> tuple[Row, ...]:
    """What a stage can decide, and what its neighbours are."""
    plain = TrainingSettings()
    rows: list[Row] = []
    for name in (*_SHOWN, *_SHOWN_TOO):
        value = getattr(resolved, name)
        was_given = getattr(given, name) not in (None, getattr(plain, name))
        origin = "given" if was_given else origins.get(name, "default")
        rows.append((name, _text(value), origin))
    preset = model.preset
    frames = preset.num_frames if read.request is None else read.request.num_frames
    shown = {
        "num_frames": (frames, asked.request),
        "pool_stride": (read.pool_stride or preset.pool_stride, asked.pool_stride),
        "pool_mode": (read.pool_mode or preset.pool_mode, asked.pool_mode),
        "newline_mode": (read.newline_mode or preset.newline_mode, asked.newline_mode),
        "placement": (read.placement or "in-place", asked.placement),
        "anyres_grids": (read.anyres_grids or f"{len(model.pinpoints)} grids", asked.anyres_grids),
        "anyres_max_tiles": (read.anyres_max_tiles or model.max_tiles, asked.anyres_max_tiles),
        "model_max_length": (read.max_length, asked.max_length),
        "format": ("plain" if read.plain else preset.template, asked.plain),
    }
    for name, (value, own) in shown.items():
        rows.append((name, _text(value), "given" if own is not None else origins.get(name, "the model")))
    return tuple(rows)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(value) or "nothing"
    return "-" if value is None else str(value)
