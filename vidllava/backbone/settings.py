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

from vidllava.backbone.folders import ADAPTER_MODEL_CONFIG, part_of, read_json
from vidllava.backbone.headers import read_tensors, vocabulary
from vidllava.backbone.tokenizer_model import tokenizer_json
from vidllava.errors import ModelError
from vidllava.media.frames import CentreCrop, FrameSize
from vidllava.media.timeline import Rule, Sampling
from vidllava.models import families, family_named, family_of, named_models
from vidllava.models.family import PIXELS, Family, PictureRule, Preset
from vidllava.models.original import hf_config, is_original, processor
from vidllava.prompting.budget import MOST_FACTOR
from vidllava.prompting.chat_template import NoPlace, NotFollowed, followed
from vidllava.prompting.layout import NewlineMode, PoolAt, PoolMode
from vidllava.prompting.template import TEMPLATES, Control, Template
from vidllava.visuals.options import PoolingOptions
from vidllava.visuals.planner import ModelSettings

OWN_FILE = "vidllava.json"
"""Beside ``config.json``: what transformers has no field for (the preset, and what differs from it)."""

ROPE_TYPES = ("default", "linear")
# Where a text configuration leaves it out: the defaults of transformers' classes.
_CONTEXTS = {"llama": 2048, "mistral": 131_072, "qwen2": 32_768}


def read_config(folder: Path, family: str | None = None) -> dict[str, Any]:
    """The configuration of the model or adapter in ``folder``, in transformers' layout.

    Of lmms-lab's own layout it is made from theirs and from the shapes of the weights. ``family``: as that of
    a checkpoint of this family, which is to be made from it. Raises ModelError.
    """
    if family is not None:
        adopted = family_named(family).adopts(
            read_config(folder), _placeholders(folder, pools=False)["video"]
        )
        if adopted is None:
            raise ModelError(folder, f"cannot be made a checkpoint of {family}", "begin from one of its own")
        return adopted
    path = part_of(folder, ADAPTER_MODEL_CONFIG, "config.json")
    config = read_json(path)
    if not is_original(config):
        return config
    places = _placeholders(path.parent, pools=config.get("mm_resampler_type") is not None)
    return hf_config(
        config,
        read_tensors(path.parent),
        image_id=places["image"],
        video_id=places["video"],
        source=path,
    )


def _placeholders(folder: Path, *, pools: bool) -> dict[str, int]:
    """Ids of the placeholders: the tokenizer's own, or its first free ones, so that it can be completed.

    Published tokenizers of LLaVA-NeXT-Video (``pools``) have a clip's before a picture's, others after it.
    """
    tokenizer = tokenizer_json(folder)
    if not tokenizer.is_file():
        raise ModelError(folder, "no tokenizer.json, no tokenizer.model", "download the checkpoint again")
    highest, _, added = vocabulary(tokenizer)
    free = iter((highest + 1, highest + 2))
    kinds = ("video", "image") if pools else ("image", "video")
    return {kind: added[f"<{kind}>"] if f"<{kind}>" in added else next(free) for kind in kinds}


def stored_config(folder: Path) -> dict[str, Any] | None:
    """lmms-lab's own configuration of the whole model in ``folder``; None for transformers' layout."""
    path = part_of(folder, "config.json")
    config = read_json(path) if path.is_file() else {}
    return config if is_original(config) else None


def read_settings(folder: Path, name: str, family: str | None = None) -> ModelSettings:
    """Read the settings of the checkpoint in ``folder``, or of one of ``family`` that is made from it.

    Raises ModelError for a missing or unreadable file, another architecture, or a RoPE type that linear
    scaling does not combine with.
    """
    config = read_config(folder, family)
    if any("auto_map" in part for part in (config, *_dicts(config))):
        raise ModelError(folder, "config.json names remote code (auto_map)", "this checkpoint is refused")
    kind, preset = family_and_preset(folder, config)
    picture, frames = _processors(folder)
    if not picture and stored_config(folder) is not None:
        picture = processor(config)  # their folders hold none: it is the tower's
    if len(picture.get("image_mean") or ()) != 3 or len(picture.get("image_std") or ()) != 3:
        raise ModelError(
            folder,
            "neither preprocessor_config.json nor processor_config.json gives image_mean and image_std",
            "copy the checkpoint's preprocessor_config.json beside config.json",
        )
    template, notes = own_template(folder, preset)
    return _settings(
        name,
        folder,
        config,
        kind,
        preset,
        picture,
        frames or picture,
        template=template,
        notes=notes,
    )


def named_settings(name: str) -> ModelSettings:
    """The published settings of a named model whose checkpoint is not at hand."""
    model = named_models()[name]
    family = family_of(model.config, name)
    preset = family.of_config(family.preset, model.config)
    pixels = PIXELS[model.config["vision_config"]["model_type"]]
    template = TEMPLATES[preset.template]
    return _settings(name, None, model.config, family, preset, pixels, {}, template=template, notes=())


def _settings(
    name: str,
    folder: Path | None,
    config: Mapping[str, Any],
    family: Family,
    preset: Preset,
    picture: Mapping[str, Any],
    frames: Mapping[str, Any],
    *,
    template: Template,
    notes: tuple[str, ...],
) -> ModelSettings:
    source = folder or Path(name)
    vision, text = _dict(config, "vision_config"), _dict(config, "text_config")
    image_size = int(vision.get("image_size", 384))
    context, factor = _positions(source, text)
    learned = config.get("spatial_pool_mode") == "conv"
    return ModelSettings(
        name=name,
        folder=folder,
        preset=preset,
        family=family.name,
        template=template,
        image_size=image_size,
        frame_size=_frame_size(source, frames, image_size, family),
        patch_size=int(vision.get("patch_size", 14)),
        image_mean=tuple(float(value) for value in picture["image_mean"]),
        image_std=tuple(float(value) for value in picture["image_std"]),
        pinpoints=_pinpoints(source, config, preset),
        max_tiles=_max_tiles(source, config, preset),
        trained_context=preset.trained_context or context,
        least_factor=factor,
        has_newline=config.get("model_type") != "llava",
        conv_stride=int(config.get("spatial_pool_stride", 2)) if learned else None,
        notes=notes,
    )


def _dict(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _dicts(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [value for value in config.values() if isinstance(value, dict)]


def _processors(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(of pictures, of frames): ``preprocessor_config.json`` and ``video_preprocessor_config.json``, or the
    sections of transformers 5's ``processor_config.json``; the second is empty where there is none."""
    path = part_of(folder, "preprocessor_config.json", "processor_config.json")
    picture = read_json(path) if path.is_file() else {}
    if path.name == "processor_config.json":
        picture = _dict(picture, "image_processor")
    path = part_of(folder, "video_preprocessor_config.json", "processor_config.json")
    frames = read_json(path) if path.is_file() else {}
    if path.name == "processor_config.json":
        frames = _dict(frames, "video_processor")
    return picture, frames


def _frame_size(source: Path, frames: Mapping[str, Any], image_size: int, family: Family) -> FrameSize:
    """How frames become squares of the tower's size: by the processor's file, or else the family's way."""
    size, crop = frames.get("size"), frames.get("crop_size")
    if isinstance(crop, Mapping):
        crop = crop.get("height")
    short = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if short is None:  # height and width were held against the tower's already
        is_cropped = family.centre_crop and not isinstance(size, Mapping)
        return CentreCrop(image_size, image_size) if is_cropped else image_size
    if crop is None and not family.centre_crop:
        return image_size
    side = crop if isinstance(crop, int) and frames.get("do_center_crop", True) else None
    if side != image_size or not isinstance(short, int) or short < image_size:
        what = (
            f"its frames have a short edge of {short} cut to {side}, the tower's image_size is {image_size}"
        )
        raise ModelError(source, what, "use the files of one checkpoint")
    return CentreCrop(short, side)


def _pinpoints(source: Path, config: Mapping[str, Any], preset: Preset) -> tuple[tuple[int, int], ...]:
    """``image_grid_pinpoints``: a list of (height, width) pairs in pixels."""
    try:
        pairs = tuple((int(height), int(width)) for height, width in config["image_grid_pinpoints"])
    except (KeyError, TypeError, ValueError):
        pairs = ()
    if not pairs and preset.lone_picture == "tiles":
        raise ModelError(
            source, "config.json has no image_grid_pinpoints", "a list of [height, width] in pixels"
        )
    return pairs


def family_and_preset(folder: Path, config: Mapping[str, Any]) -> tuple[Family, Preset]:
    """The family of the model in ``folder``, and the preset that it names, with what it changes of it.

    Raises ModelError.
    """
    own = part_of(folder, OWN_FILE)
    content = read_json(own) if own.exists() else {}
    name = content.pop("preset", None)
    if name is not None and name not in families():
        raise ModelError(own, f"preset {name!r} is unknown", f"one of {', '.join(families())}")
    for key, value in content.items():
        if not _is_meant(key, value):
            raise ModelError(own, f"{key}: {value!r} is not a setting of a preset", "update vidllava")
    family, preset = _under(name, config, folder)
    return family, replace(preset, **content)


def _under(name: str | None, config: Mapping[str, Any], source: object) -> tuple[Family, Preset]:
    """The family of a config.json, and the preset ``name`` (its own for None) as this checkpoint has it."""
    known, family = families(), family_of(config, source)
    if name is not None and known[name].model_type == family.model_type:
        family = known[name]  # several families may share a class
    try:
        preset = family.of_config(family.preset if name is None else known[name].preset, config)
    except (TypeError, ValueError) as fault:
        raise ModelError(source, f"its configuration cannot be read: {fault}", "download it again") from None
    if preset.pool_mode not in get_args(PoolMode) or preset.pool_stride < 1:
        what = f"spatial_pool_mode is {preset.pool_mode!r}, spatial_pool_stride {preset.pool_stride}"
        hint = f"one of {', '.join(get_args(PoolMode))}, and a stride from 1 on"
        raise ModelError(source, what, hint)
    return family, preset


def _is_meant(key: str, value: object) -> bool:
    """Whether ``value`` may stand for the preset's field ``key``."""
    if key in _WORDS:
        return value in _WORDS[key]
    if key in _SWITCHES:
        return isinstance(value, bool)
    if value is None:
        return key in _OPEN
    return key in _COUNTS and isinstance(value, int) and not isinstance(value, bool) and value > 0


_WORDS: dict[str, tuple[str, ...]] = {
    "pool_at": get_args(PoolAt),
    "pool_mode": get_args(PoolMode),
    "newline_mode": get_args(NewlineMode),
    "lone_picture": get_args(PictureRule),
    "several_pictures": get_args(PictureRule),
    "sampling_rule": get_args(Rule),
    "sampling": get_args(Sampling),
    "template": tuple(TEMPLATES),
}
_COUNTS = {field.name for field in fields(Preset) if "int" in str(field.type)}
_OPEN = {field.name for field in fields(Preset) if "None" in str(field.type)}
_SWITCHES = {field.name for field in fields(Preset) if str(field.type) == "bool"}


def _max_tiles(source: Path, config: Mapping[str, Any], preset: Preset) -> int | None:
    """N of ``anyres_max_N`` (LLaVA-OneVision paper: a nominal cap of N tiles' tokens); None = no cap."""
    ratio = config.get("vision_aspect_ratio")
    if ratio is None:
        return preset.max_tiles
    digits = str(ratio).removeprefix("anyres_max_")
    if not digits.isdigit() or int(digits) < 1:
        raise ModelError(source, f"vision_aspect_ratio {ratio!r} is not anyres_max_N", "anyres_max_9")
    return int(digits)


def _positions(source: Path, text: Mapping[str, Any]) -> tuple[int, float]:
    """(``max_position_embeddings``, the linear factor that divides positions already)."""
    rope = _dict(text, "rope_parameters") or _dict(text, "rope_scaling")
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ModelError(
            source, f"rope_type {rope_type!r} cannot be scaled linearly", f"one of {', '.join(ROPE_TYPES)}"
        )
    factor = rope.get("factor", 1.0) if rope_type == "linear" else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= MOST_FACTOR:
        what = f"its linear RoPE factor is {factor!r}, not a number from 1 on"
        raise ModelError(source, what, "the checkpoint's own config.json")
    default = _CONTEXTS.get(str(text.get("model_type")), 32_768)
    return int(text.get("max_position_embeddings") or default), float(factor)


def own_template(folder: Path, preset: Preset) -> tuple[Template, tuple[str, ...]]:
    """The checkpoint's own chat template, or that of ``preset`` and why.

    Raises ModelError for one without a place for media, and for one that can neither be followed nor be the
    preset's: prompts would be in another model's words.
    """
    base = TEMPLATES[preset.template]
    path, text = _chat_template(folder)
    if path.is_file() and not text.strip():
        return base, (f"the checkpoint's chat template is empty: {base.name} is spoken",)
    tokenizer = tokenizer_json(folder)
    if not text or not tokenizer.is_file():
        return base, ()
    config = tokenizer_config(folder)
    bos, eos = (_spelling(config.get(f"{kind}_token")) for kind in ("bos", "eos"))
    found = followed(text, base, controls=vocabulary(tokenizer)[2], bos=bos, eos=eos)
    if isinstance(found, NoPlace):
        raise ModelError(path, f"its chat template {found}", "use the checkpoint's own chat template")
    if not isinstance(found, NotFollowed):
        return found, ()
    opening = base.before["user"]
    marks = [piece.name for piece in opening if isinstance(piece, Control)] or [str(opening[0]).strip()]
    if not all(mark in text for mark in marks):
        what = f"cannot be followed ({found}), and is not {base.name}, in which this model's preset speaks"
        hint = "name the preset that the model was trained with in vidllava.json"
        raise ModelError(path, f"{what}: it has no {marks[0]!r}", hint)
    return base, (f"the checkpoint's chat template is not followed ({found}): {base.name} is spoken",)


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``; empty where there is none."""
    path = part_of(folder, "tokenizer_config.json")
    return read_json(path) if path.is_file() else {}


def _spelling(token: Any) -> str:
    """How a control token is spelt: a text, or an object that holds it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _chat_template(folder: Path) -> tuple[Path, str]:
    path = part_of(folder, "chat_template.jinja")
    if path.is_file():
        return path, path.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        path = part_of(folder, name)
        text = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(text, list):  # several, by name
            text = next((one.get("template") for one in text if one.get("name") == "default"), None)
        if isinstance(text, str):
            return path, text
    return folder, ""


@dataclass(frozen=True, kw_only=True)
class Tuning(PoolingOptions):
    """How a model is read from now on; None keeps its own way."""

    num_frames: int | None = None
    pinpoints: tuple[tuple[int, int], ...] | None = None
    """AnyRes canvases, (height, width) in pixels; empty = the whole picture once, for this run alone."""
    max_tiles: int | None = None
    rope_factor: float | None = None
    """The linear RoPE factor, in place of the one that the model has."""

    def applied(self, settings: ModelSettings) -> ModelSettings:
        """The settings of the model once it is tuned so."""
        chosen = {
            name: getattr(self, name)
            for name in ("num_frames", "pool_stride", "pool_mode", "newline_mode")
            if getattr(self, name) is not None
        }
        return replace(
            settings,
            preset=replace(settings.preset, **chosen),
            pinpoints=settings.pinpoints if self.pinpoints is None else self.pinpoints,
            max_tiles=settings.max_tiles if self.max_tiles is None else self.max_tiles,
            least_factor=settings.least_factor if self.rope_factor is None else self.rope_factor,
        )


def own_json(preset: Preset, config: Mapping[str, Any]) -> dict[str, Any]:
    """The preset by name, and what differs from what ``config`` says: what ``read_settings`` reads."""
    _, named = _under(preset.name, config, preset.name)
    changed = {
        field.name: getattr(preset, field.name)
        for field in fields(Preset)
        if getattr(preset, field.name) != getattr(named, field.name)
    }
    return {"preset": preset.name, **changed}


def write_own_file(folder: Path, preset: Preset, config: Mapping[str, Any]) -> None:
    """Write vidllava.json beside ``config``."""
    text = json.dumps(own_json(preset, config), indent=2)
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
