"""lmms-lab's own layout of a checkpoint, against transformers' layout of the same: names and configurations.

    if is_original(config):                                        # told by architectures, not by model_type
        ours = hf_config(config, read_tensors(folder))             # config.json as transformers has it
        Class.from_pretrained(folder, config=ours, key_mapping=KEY_MAPPING)

Served are the published checkpoints of LLaVA-NeXT, LLaVA-NeXT-Video, LLaVA-NeXT-Interleave, LLaVA-OneVision
and LLaVA-Video: towers CLIP-L/14-336 and SigLIP-so400m/14-384, a projector of two layers, language models
Llama (Vicuna, Yi), Mistral and Qwen2 (Qwen1.5). Anything else is a ModelError, never a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vidllava.errors import ModelError
from vidllava.models.original_names import (
    HEAD,
    KEY_MAPPING,
    LANGUAGE,
    NEWLINE,
    POOL,
    PROJECTOR,
    TOWER,
    hf_name,
    legacy_name,
    original_name,
    unused,
)
from vidllava.models.original_parts import (
    CLIP,
    FEATURES,
    SIGLIP,
    SIZES,
    TOWER_HEADS,
    TOWERS,
    Shapes,
    Tower,
    number,
    pinpoints,
    rope_parameters,
    text_options,
    unread,
)

__all__ = [
    "KEY_MAPPING",
    "hf_config",
    "hf_name",
    "is_original",
    "legacy_name",
    "original_config",
    "original_name",
    "processor",
    "unused",
]

_ARCHITECTURES = {
    "LlavaQwenForCausalLM": "qwen2",
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
}
_CLASSES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
}
_PROCESSORS = {
    "llava": "SiglipImageProcessor",
    "llava_next": "LlavaNextImageProcessor",
    "llava_next_video": "LlavaNextImageProcessor",
    "llava_onevision": "LlavaOnevisionImageProcessor",
}
_POOL_MODES = ("average", "max", "conv")
# What transformers' configurations have no field for, kept under lmms-lab's names: how clips are read.
_KEPT = ("mm_newline_position", "add_time_instruction", "force_sample", "image_aspect_ratio")
_KEPT_POOLING = ("mm_spatial_pool_mode", "mm_spatial_pool_stride")


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is lmms-lab's. Its model_type does not tell: "llava" is said by both layouts."""
    return "mm_vision_tower" in config or _language_model(config) is not None


def hf_config(
    config: Mapping[str, Any],
    tensors: Mapping[str, Any],
    *,
    image_id: int | None = None,
    video_id: int | None = None,
    source: object = "config.json",
) -> dict[str, Any]:
    """The config.json in transformers' layout that lmms-lab's configuration and weights imply.

    ``tensors``: stored name -> anything with ``.shape``, a tuple. ``image_id``, ``video_id``: ids of the
    placeholders in the tokenizer. Where they are neither given nor in ``config``, the first ids after the
    embeddings' rows are taken: lmms-lab's tokenizers have no placeholders, and the defaults of transformers'
    classes are real words of some vocabularies. Raises ModelError, naming ``source`` or the tensor, for what
    is not read here.
    """
    kind, tower = _architecture(config, source), _tower(config, source)
    model_type = _model_type(config, kind, tower, source)
    if config.get("mm_projector_type") != "mlp2x_gelu":
        raise unread(source, config, "mm_projector_type", "mlp2x_gelu")
    shapes = Shapes(tensors, source)
    text, vision = _text_config(config, kind, shapes, source), _vision_config(tower, shapes)
    conv = model_type == "llava_next_video" and config["mm_spatial_pool_mode"] == "conv"
    stride = config["mm_spatial_pool_stride"] if conv else None
    _check_joints(model_type, text["hidden_size"], vision["hidden_size"], stride, shapes)
    grid = vision["image_size"] // vision["patch_size"]
    found: dict[str, Any] = {
        "architectures": [_CLASSES[model_type]],
        "model_type": model_type,
        "text_config": text,
        "vision_config": vision,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": text["tie_word_embeddings"],
        **_read_layer(config, tower, source),
        **{key: config[key] for key in _KEPT if config.get(key) is not None},
    }
    dtype = config.get("torch_dtype") or config.get("dtype")
    if dtype:
        found["dtype"] = dtype
    if model_type != "llava_onevision":
        found["image_seq_length"] = grid * grid
    points = pinpoints(config, vision["image_size"], source)
    if points and model_type != "llava":
        found["image_grid_pinpoints"] = points
    if model_type == "llava_onevision":
        found["vision_aspect_ratio"] = _aspect_ratio(config, points, vision["image_size"], source)
    if model_type == "llava_next_video":
        found["spatial_pool_mode"] = config["mm_spatial_pool_mode"]
        found["spatial_pool_stride"] = config["mm_spatial_pool_stride"]
    else:
        found |= {key: config[key] for key in _KEPT_POOLING if config.get(key) is not None}
    return found | _placeholders(config, model_type, text["vocab_size"], image_id, video_id)


def original_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """lmms-lab's config.json for a complete configuration in transformers' layout (``to_dict`` of its class).

    Raises ModelError for what their layout has no place for.
    """
    source = "config.json in transformers' layout"
    text, vision, model_type = (
        hf.get("text_config") or {},
        hf.get("vision_config") or {},
        hf.get("model_type"),
    )
    tower = next((one for one in TOWERS if one.model_type == vision.get("model_type")), None)
    name = next((name for name, kind in _ARCHITECTURES.items() if kind == text.get("model_type")), None)
    if model_type not in _CLASSES:
        raise unread(source, hf, "model_type", ", ".join(_CLASSES))
    if tower is None:
        raise unread(
            f"{source}: vision_config", vision, "model_type", "clip_vision_model, siglip_vision_model"
        )
    if name is None:
        raise unread(f"{source}: text_config", text, "model_type", ", ".join(_ARCHITECTURES.values()))
    _check_representable(hf, tower, source)
    layer, strategy = _read_of(hf)
    feature = next(feature for feature, known in FEATURES.items() if known == strategy)
    sizes = {key: number(text, key, f"{source}: text_config") for key in (*SIZES, "vocab_size")}
    rope = rope_parameters(text, f"{source}: text_config")
    found: dict[str, Any] = {
        "architectures": [name],
        # As published: the model_type that plain transformers can also open.
        "model_type": "llava_mistral" if text["model_type"] == "mistral" else "llava",
        **sizes,
        **text_options(text),
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "linear", "factor": rope["factor"]} if "factor" in rope else None,
        "tie_word_embeddings": bool(hf.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
        "torch_dtype": hf.get("dtype") or hf.get("torch_dtype") or text.get("dtype"),
        "mm_vision_tower": tower.name,
        "mm_hidden_size": vision["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        # Of SigLIP nothing reads it; -2 is what is published.
        "mm_vision_select_layer": layer if tower is CLIP else -2,
        "mm_vision_select_feature": feature if tower is CLIP else "patch",
        "mm_patch_merge_type": "flat" if model_type == "llava" else "spatial_unpad",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "tokenizer_model_max_length": sizes["max_position_embeddings"],
        "tokenizer_padding_side": "right",
        "image_aspect_ratio": "pad" if model_type == "llava" else "anyres",
    }
    if model_type != "llava":
        found["image_grid_pinpoints"] = hf.get("image_grid_pinpoints")
    if model_type == "llava_onevision":
        found |= {"mm_newline_position": "one_token", "mm_spatial_pool_mode": "bilinear"}
    if model_type == "llava_next_video":
        found |= {
            "mm_resampler_type": "spatial_pool",
            "mm_newline_position": "no_token",
            "mm_spatial_pool_mode": hf.get("spatial_pool_mode", "average"),
            "mm_spatial_pool_stride": hf.get("spatial_pool_stride", 2),
            "mm_spatial_pool_out_channels": vision["hidden_size"],
        }
    kept = (*_KEPT, *_KEPT_POOLING, "image_token_index", "video_token_index")
    found |= {key: hf[key] for key in kept if hf.get(key) is not None}
    if model_type == "llava_onevision":
        found["image_aspect_ratio"] = hf.get("vision_aspect_ratio", "anyres_max_9")
    return found


def processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessor_config.json that a configuration implies: lmms-lab's folders hold none.

    ``config``: in transformers' layout, as ``hf_config`` gives it. CLIP's pictures are resized by their short
    edge and cropped to the middle, SigLIP's are resized to a square, both bicubic.
    """
    vision = config["vision_config"]
    tower = next(one for one in TOWERS if one.model_type == vision["model_type"])
    side = vision["image_size"]
    found: dict[str, Any] = {
        "image_processor_type": _PROCESSORS[config["model_type"]],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": list(tower.mean),
        "image_std": list(tower.std),
        "size": {"height": side, "width": side},
    }
    if tower is CLIP:
        found |= {
            "size": {"shortest_edge": side},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
        }
    if config.get("image_grid_pinpoints"):
        found["image_grid_pinpoints"] = config["image_grid_pinpoints"]
    return found


def _language_model(config: Mapping[str, Any]) -> str | None:
    """Its model_type in transformers; None where no architecture of lmms-lab's is named that is read here."""
    names = config.get("architectures")
    known = names if isinstance(names, list | tuple) else ()
    return next((_ARCHITECTURES[name] for name in known if name in _ARCHITECTURES), None)


def _architecture(config: Mapping[str, Any], source: object) -> str:
    kind = _language_model(config)
    if kind is None:
        raise unread(source, config, "architectures", ", ".join(_ARCHITECTURES))
    return kind


def _tower(config: Mapping[str, Any], source: object) -> Tower:
    # A folder of the trainer's machine keeps the name of the published one.
    last = str(config.get("mm_vision_tower")).rstrip("/").rpartition("/")[2]
    for tower in TOWERS:
        if last == tower.name.rpartition("/")[2]:
            return tower
    raise unread(source, config, "mm_vision_tower", ", ".join(tower.name for tower in TOWERS))


def _model_type(config: Mapping[str, Any], kind: str, tower: Tower, source: object) -> str:
    """Which class of transformers does what lmms-lab's code does with this configuration."""
    resampler, merge = config.get("mm_resampler_type"), config.get("mm_patch_merge_type") or "flat"
    if merge not in ("flat", "spatial_unpad"):
        raise unread(source, config, "mm_patch_merge_type", "flat, spatial_unpad")
    if resampler == "spatial_pool":
        if config.get("mm_spatial_pool_mode") not in _POOL_MODES:
            raise unread(source, config, "mm_spatial_pool_mode", ", ".join(_POOL_MODES))
        number(config, "mm_spatial_pool_stride", source)
        return "llava_next_video"
    if resampler is not None:
        raise unread(source, config, "mm_resampler_type", "null, spatial_pool")
    if tower is SIGLIP and kind == "qwen2":
        flat = merge == "flat" or config.get("mm_newline_position") is None
        return "llava" if flat else "llava_onevision"
    if merge == "flat":
        raise unread(
            source, config, "mm_patch_merge_type", "spatial_unpad, with this tower and language model"
        )
    return "llava_next"


def _text_config(config: Mapping[str, Any], kind: str, shapes: Shapes, source: object) -> dict[str, Any]:
    """The language model: sizes from the shapes, which must not be others than the configuration says."""
    rows, hidden = shapes.of(f"{LANGUAGE}embed_tokens.weight", 2)
    first, heads = f"{LANGUAGE}layers.0.", number(config, "num_attention_heads", source)
    layers = shapes.layers(f"{LANGUAGE}layers.")
    head = hidden // heads if config.get("head_dim") is None else number(config, "head_dim", source)
    if not head:
        raise unread(source, config, "num_attention_heads", f"at most {hidden}, the width of the embeddings")
    keys = shapes.of(f"{first}self_attn.k_proj.weight", 2)[0]
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": shapes.of(f"{first}mlp.gate_proj.weight", 2)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": shapes.of(f"{first}self_attn.q_proj.weight", 2)[0] // head,
        "num_key_value_heads": keys // head,
    }
    for key, size in sizes.items():
        if config.get(key, size) != size:
            raise ModelError(
                source, f"says {key} {config[key]!r}, the weights have {size}", "they do not belong"
            )
    tied = HEAD not in shapes.found
    if not tied and shapes.of(HEAD, 2) != (rows, hidden):
        raise ModelError(
            f"tensor {HEAD}",
            f"has shape {shapes.of(HEAD, 2)}, the embeddings {(rows, hidden)}",
            "use the files of one checkpoint",
        )
    return {
        "model_type": kind,
        **sizes,
        "vocab_size": rows,
        "max_position_embeddings": number(config, "max_position_embeddings", source),
        "rope_parameters": rope_parameters(config, source),
        "tie_word_embeddings": tied,
        **text_options(config),
    }


def _vision_config(tower: Tower, shapes: Shapes) -> dict[str, Any]:
    """The tower: its layers counted, its sizes from the shapes."""
    hidden, _, _, patch = shapes.of(f"{TOWER}embeddings.patch_embedding.weight", 4)
    cells = shapes.of(f"{TOWER}embeddings.position_embedding.weight", 2)[0] - (tower is CLIP)
    grid = math.isqrt(cells)
    if grid * grid != cells:
        name = original_name(f"{TOWER}embeddings.position_embedding.weight")
        raise ModelError(
            f"tensor {name}",
            f"has places for {cells} patches, which are no square",
            "use the files of one checkpoint",
        )
    return {
        "model_type": tower.model_type,
        "hidden_size": hidden,
        "intermediate_size": shapes.of(f"{TOWER}encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": shapes.layers(f"{TOWER}encoder.layers."),
        "num_attention_heads": TOWER_HEADS,
        "image_size": tower.side_of(grid, patch),
        "patch_size": patch,
        **tower.more,
    }


def _check_joints(model_type: str, hidden: int, seen: int, stride: int | None, shapes: Shapes) -> None:
    """The parts fit each other: projector, newline, and pooling by a convolution of this stride, or None."""
    wanted_shapes: dict[str, tuple[int, ...]] = {
        f"{PROJECTOR}linear_1.weight": (hidden, seen),
        f"{PROJECTOR}linear_2.weight": (hidden, hidden),
    }
    if model_type != "llava":
        wanted_shapes[NEWLINE] = (hidden,)
    if stride is not None:
        wanted_shapes[f"{POOL}weight"] = (seen, seen, stride, stride)
    for name, wanted in wanted_shapes.items():
        shape = shapes.of(name, len(wanted))
        if shape != wanted:
            what = f"has shape {shape}, between tower and language model belongs {wanted}"
            raise ModelError(f"tensor {original_name(name)}", what, "use the files of one checkpoint")


def _read_layer(config: Mapping[str, Any], tower: Tower, source: object) -> dict[str, Any]:
    """Which layer of the tower is read, and whether its class token is dropped.

    SigLIP stores 26 layers, the last is already gone, and its last is read whatever mm_vision_select_layer
    says (LLaVA-NeXT, llava/model/multimodal_encoder/siglip_encoder.py).
    """
    if tower is SIGLIP:
        return {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    layer, feature = config.get("mm_vision_select_layer", -2), config.get("mm_vision_select_feature", "patch")
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise unread(source, config, "mm_vision_select_layer", "a whole number, as -2")
    if feature not in list(FEATURES):
        raise unread(source, config, "mm_vision_select_feature", ", ".join(FEATURES))
    return {"vision_feature_layer": layer, "vision_feature_select_strategy": FEATURES[feature]}


def _read_of(hf: Mapping[str, Any]) -> tuple[Any, Any]:
    """Layer and strategy in transformers' layout, with the defaults of its classes."""
    own = (-1, "full") if hf.get("model_type") == "llava_onevision" else (-2, "default")
    keys = ("vision_feature_layer", "vision_feature_select_strategy")
    return hf.get(keys[0], own[0]), hf.get(keys[1], own[1])


def _check_representable(hf: Mapping[str, Any], tower: Tower, source: str) -> None:
    """lmms-lab's configuration only names the tower: what differs from the published one would be lost."""
    vision, text = hf["vision_config"], hf["text_config"]
    for key in ("hidden_size", "image_size", "patch_size", "num_attention_heads"):
        number(vision, key, f"{source}: vision_config")
    wanted = {
        "num_attention_heads": TOWER_HEADS,
        "image_size": tower.side_of(vision["image_size"] // vision["patch_size"], vision["patch_size"]),
        **{key: value for key, value in tower.more.items() if key in ("hidden_act", "vision_use_head")},
    }
    for key, value in wanted.items():
        if vision.get(key, value) != value:
            raise unread(f"{source}: vision_config", vision, key, f"{value}, as {tower.name} has it")
    layer, strategy = _read_of(hf)
    if tower is SIGLIP and (layer, strategy) != (-1, "full"):
        found = {"vision_feature_layer": (layer, strategy)}
        raise unread(source, found, "vision_feature_layer", "-1, full, with SigLIP")
    if not isinstance(layer, int) or strategy not in FEATURES.values():
        found = {"vision_feature_layer": (layer, strategy)}
        raise unread(source, found, "vision_feature_layer", "one number, with default or full")
    if hf.get("projector_hidden_act", "gelu") != "gelu" or not hf.get("multimodal_projector_bias", True):
        raise unread(source, hf, "projector_hidden_act", "gelu, with biases")
    siglip_qwen = tower is SIGLIP and text["model_type"] == "qwen2"
    if hf["model_type"] in ("llava", "llava_onevision") and not siglip_qwen:
        raise unread(source, hf, "model_type", "llava_next, llava_next_video, unless it is SigLIP with Qwen2")
    if hf["model_type"] == "llava_next" and siglip_qwen:
        raise unread(source, hf, "model_type", "llava, llava_onevision, where it is SigLIP with Qwen2")


def _aspect_ratio(config: Mapping[str, Any], points: list[list[int]], side: int, source: object) -> str:
    """``vision_aspect_ratio`` of OneVision's class, which knows grids up to a number of tiles only."""
    given = str(config.get("image_aspect_ratio"))
    if re.fullmatch(r"anyres_max_\d+", given):
        return given
    if given == "anyres" and points:
        # Without a limit: as many tiles as the largest grid has, beyond which nothing can be shrunk.
        return f"anyres_max_{max(height * width // side**2 for height, width in points)}"
    raise unread(source, config, "image_aspect_ratio", "anyres, anyres_max_N, with image_grid_pinpoints")


def _placeholders(
    config: Mapping[str, Any], model_type: str, rows: int, image_id: int | None, video_id: int | None
) -> dict[str, int]:
    kinds = [("image_token_index", image_id)]
    if model_type in ("llava_next_video", "llava_onevision"):
        kinds.append(("video_token_index", video_id))
    free = rows
    found = {}
    for key, given in kinds:
        stored = config.get(key)
        token = given if given is not None else stored if isinstance(stored, int) and stored >= 0 else None
        if token is None:
            token, free = free, free + 1
        found[key] = token
    return found
