"""The settings that a checkpoint folder states in its JSON files, and their changes by a run: no torch.

    settings = read_settings(Path("checkpoint"), name="mine")
    settings.side, settings.trained_context      # 27, 32768

Pixels are normalised with the checkpoint's own figures, never with class defaults: those are CLIP's, and
SigLIP's differ (mean and std 0.5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from vidllava.backbone.folders import config_path, part_of, read_json
from vidllava.errors import ModelError
from vidllava.media.timeline import Rule, Sampling
from vidllava.prompting.layout import NewlineMode, PoolMode, parse_pinpoints
from vidllava.visuals.options import PoolingOptions
from vidllava.visuals.planner import ModelSettings
from vidllava.visuals.presets import MODELS, PRESETS, Preset

OWN_FILE = "vidllava.json"
"""Beside ``config.json``: what transformers has no field for (the preset, and what differs from it)."""

ROPE_TYPES = ("default", "linear")


def read_settings(folder: Path, name: str) -> ModelSettings:
    """Read the settings of the checkpoint in ``folder``.

    Raises ModelError for a missing or unreadable file, another architecture, or a RoPE type that linear
    scaling does not combine with.
    """
    config = read_json(config_path(folder))
    if config.get("model_type") != "llava_onevision":
        raise ModelError(
            folder,
            f"model_type is {config.get('model_type')!r}, not 'llava_onevision'",
            "use one in transformers' format, such as llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        )
    if any("auto_map" in part for part in (config, *_dicts(config))):
        raise ModelError(folder, "config.json names remote code (auto_map)", "this checkpoint is refused")
    vision, text = _dict(config, "vision_config"), _dict(config, "text_config")
    picture = _picture_processor(folder)
    preset = preset_of(folder)
    image_size = int(vision.get("image_size", 384))
    return ModelSettings(
        name=name,
        folder=folder,
        preset=preset,
        image_size=image_size,
        patch_size=int(vision.get("patch_size", 14)),
        image_mean=tuple(float(value) for value in picture["image_mean"]),
        image_std=tuple(float(value) for value in picture["image_std"]),
        pinpoints=_pinpoints(folder, config),
        max_tiles=_max_tiles(folder, config),
        trained_context=preset.trained_context or _trained_context(folder, text),
    )


def named_settings(name: str) -> ModelSettings:
    """The published settings of a named OneVision model whose checkpoint is not at hand."""
    model = MODELS[name]
    return ModelSettings(
        name=name,
        folder=None,
        preset=PRESETS[model.preset],
        image_size=384,
        patch_size=14,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        pinpoints=parse_pinpoints("(1x1),...,(6x6)", tile_size=384),
        max_tiles=9,
        trained_context=32768,
    )


def _dict(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _dicts(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [value for value in config.values() if isinstance(value, dict)]


def _picture_processor(folder: Path) -> dict[str, Any]:
    """``preprocessor_config.json``, or its section in transformers 5's ``processor_config.json``."""
    path = part_of(folder, "preprocessor_config.json", "processor_config.json")
    picture = read_json(path) if path.is_file() else {}
    if path.name == "processor_config.json":
        picture = _dict(picture, "image_processor")
    if len(picture.get("image_mean") or ()) != 3 or len(picture.get("image_std") or ()) != 3:
        raise ModelError(
            folder,
            "neither preprocessor_config.json nor processor_config.json gives image_mean and image_std",
            "copy the checkpoint's preprocessor_config.json beside config.json",
        )
    return picture


def _pinpoints(folder: Path, config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """``image_grid_pinpoints``: a list of (height, width) pairs in pixels."""
    try:
        pairs = tuple((int(height), int(width)) for height, width in config["image_grid_pinpoints"])
    except (KeyError, TypeError, ValueError):
        pairs = ()
    if not pairs:
        raise ModelError(
            folder, "config.json has no image_grid_pinpoints", "a list of [height, width] in pixels"
        )
    return pairs


def preset_of(folder: Path) -> Preset:
    """The preset that the model in ``folder`` names, with what it changes of it. Raises ModelError."""
    own = part_of(folder, OWN_FILE)
    content = read_json(own) if own.exists() else {}
    name = content.pop("preset", "onevision")
    if name not in PRESETS:
        raise ModelError(own, f"preset {name!r} is unknown", f"one of {', '.join(PRESETS)}")
    for key, value in content.items():
        if not _is_meant(key, value):
            raise ModelError(own, f"{key}: {value!r} is not a setting of a preset", "update vidllava")
    return replace(PRESETS[name], **content)


def _is_meant(key: str, value: object) -> bool:
    """Whether ``value`` may stand for the preset's field ``key``."""
    if key in _WORDS:
        return value in _WORDS[key]
    return key in _COUNTS and isinstance(value, int) and not isinstance(value, bool) and value > 0


_WORDS: dict[str, tuple[str, ...]] = {
    "pool_mode": get_args(PoolMode),
    "newline_mode": get_args(NewlineMode),
    "sampling_rule": get_args(Rule),
    "sampling": get_args(Sampling),
}
_COUNTS = {field.name for field in fields(Preset) if "int" in str(field.type)}


def _max_tiles(folder: Path, config: Mapping[str, Any]) -> int:
    """N of ``anyres_max_N`` (LLaVA-OneVision paper: a nominal cap of N tiles' tokens)."""
    ratio = str(config.get("vision_aspect_ratio", "anyres_max_9"))
    digits = ratio.removeprefix("anyres_max_")
    if not digits.isdigit() or int(digits) < 1:
        raise ModelError(folder, f"vision_aspect_ratio {ratio!r} is not anyres_max_N", "anyres_max_9")
    return int(digits)


def _trained_context(folder: Path, text: Mapping[str, Any]) -> int:
    """``max_position_embeddings`` times the linear factor that the checkpoint itself was trained with."""
    rope = _dict(text, "rope_parameters") or _dict(text, "rope_scaling")
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ModelError(
            folder, f"rope_type {rope_type!r} cannot be scaled linearly", f"one of {', '.join(ROPE_TYPES)}"
        )
    factor = float(rope.get("factor", 1.0)) if rope_type == "linear" else 1.0
    return int(int(text.get("max_position_embeddings", 32768)) * factor)


@dataclass(frozen=True, kw_only=True)
class Tuning(PoolingOptions):
    """How a model is read from now on; None keeps its own way."""

    num_frames: int | None = None
    pinpoints: tuple[tuple[int, int], ...] | None = None
    """AnyRes canvases, (height, width) in pixels; empty = the whole picture once, for this run alone."""
    max_tiles: int | None = None
    rope_factor: float = 1.0
    """Multiplies the context, and the linear factor that the model has."""

    def applied(self, settings: ModelSettings) -> ModelSettings:
        """The settings of the model once it is tuned so."""
        chosen = {
            name: getattr(self, name)
            for name in ("num_frames", "pool_stride", "pool_mode", "newline_mode")
            if getattr(self, name) is not None
        }
        context = settings.preset.trained_context
        if context is not None:
            chosen["trained_context"] = int(context * self.rope_factor)
        return replace(
            settings,
            preset=replace(settings.preset, **chosen),
            pinpoints=settings.pinpoints if self.pinpoints is None else self.pinpoints,
            max_tiles=settings.max_tiles if self.max_tiles is None else self.max_tiles,
            trained_context=int(settings.trained_context * self.rope_factor),
        )


def own_json(preset: Preset) -> dict[str, Any]:
    """The preset by name, and what differs from it: what ``read_settings`` reads."""
    named = PRESETS[preset.name]
    changed = {
        field.name: getattr(preset, field.name)
        for field in fields(Preset)
        if getattr(preset, field.name) != getattr(named, field.name)
    }
    return {"preset": preset.name, **changed}


def write_own_file(folder: Path, preset: Preset) -> None:
    """Write vidllava.json."""
    text = json.dumps(own_json(preset), indent=2)
    (folder / OWN_FILE).write_text(text + "\n", encoding="utf-8")


def write_grids(folder: Path, pinpoints: tuple[tuple[int, int], ...]) -> None:
    """Put AnyRes canvases into the preprocessor's files, where transformers' own processor reads them."""
    for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = folder / name
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        processor = content if section is None else content.get(section)
        grids = [list(pair) for pair in pinpoints]
        if isinstance(processor, dict) and processor.get("image_grid_pinpoints", grids) != grids:
            processor["image_grid_pinpoints"] = grids
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
