"""What a model family is: its preset, the class that holds its weights, and its published checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vidllava.prompting.layout import NewlineMode, PoolAt, PoolMode

if TYPE_CHECKING:  # the arithmetic of times brings numpy, which --help does not need
    from vidllava.media.timeline import Rule, Sampling

PictureRule = Literal["tiles", "square", "whole"]
"""tiles: the whole and its AnyRes tiles; square: padded to a square, a newline after it; whole: squashed into
a square, no newline."""


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
    pool_at: PoolAt = "projected"
    """Whether the tower's features are pooled and then projected, or the projected ones pooled."""
    pool_mode: PoolMode = "bilinear"
    """How the token map of a frame shrinks."""
    pool_stride: int = 2
    """By how much it shrinks on each side; 1 = not at all."""
    newline_mode: NewlineMode = "one_token"
    """Where the learned newline vector stands in a video."""
    lone_picture: PictureRule = "tiles"
    """How a picture that is alone in its prompt is seen."""
    several_pictures: PictureRule = "square"
    """How each of several pictures is seen."""
    max_tiles: int | None = 9
    """``anyres_max_N``: a picture's token map is shrunk beyond N tiles' worth of tokens; None = never."""
    template: str = "chatml"
    """The chat template that the language model was tuned with, where the checkpoint holds none."""
    time_instruction: bool = False
    """Whether a sentence tells the model the length of a clip and the times of its frames."""
    trained_context: int | None = None
    """Longest sequence trained on, in tokens; None = what the checkpoint's own configuration says."""
    reserve_tokens: int = 1000
    """Tokens kept free for the answer when a RoPE factor is chosen (LLaVA-NeXT's own figure is 1000)."""


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A published checkpoint that ``--model`` knows by a short name."""

    name: str
    hub_id: str | None
    """Repository on the Hugging Face hub; None = the weights ship inside this package."""
    about: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its config.json in transformers' layout: the sizes, as published. Empty where it ships with us."""

    @property
    def num_parameters(self) -> int:
        """Numbers in its weights, as its configuration implies."""
        return sum(math.prod(shape) for _, shape in tensor_shapes(self.config))


@dataclass(frozen=True, kw_only=True)
class Family:
    """One line of checkpoints."""

    preset: Preset
    """How its checkpoints read media and words; its name is the family's."""
    model_type: str
    """Of config.json in transformers' layout."""
    hf_class: str
    """The class of transformers that holds the weights."""
    recognises: Callable[[Mapping[str, Any]], bool] | None = None
    """Whether a config.json (transformers' layout) is one of this family's; None = all of its model_type that
    are no other's."""
    of_config: Callable[[Preset, Mapping[str, Any]], Preset] = field(default=lambda preset, _config: preset)
    """The preset of one checkpoint: what its config.json says itself wins."""
    adopts: Callable[[Mapping[str, Any], int], dict[str, Any] | None] = field(
        default=lambda _config, _id: None
    )
    """The config.json with which training makes a checkpoint of another family one of this; None for others.

    The second argument is the id of its ``<video>``."""
    centre_crop: bool = False
    """Where the processor's files do not say it: whether frames are cut to the middle square, or squashed."""
    models: tuple[NamedModel, ...] = ()
    sources: tuple[str, ...] = ()
    """Where its figures are published."""

    @property
    def name(self) -> str:
        """As ``--preset`` and ``models list`` have it."""
        return self.preset.name


# --------------------------------------------------------------------------------------------------------
# Sizes of the published parts, as their config.json files on the Hugging Face hub give them.

CLIP_L_336: Mapping[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
"""openai/clip-vit-large-patch14-336: all 24 layers are stored, the last but one is read."""
SIGLIP_SO400M: Mapping[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
"""google/siglip-so400m-patch14-384 without its last layer and its head, as the checkpoints store it."""
PIXELS = {
    "clip_vision_model": {
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    "siglip_vision_model": {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
}
"""How the towers' own processors normalise. A checkpoint's processor files win."""


def text_config(
    model_type: str,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    vocabulary: int,
    *,
    context: int,
    theta: float = 10_000.0,
    factor: float | None = None,
    tied: bool = False,
) -> dict[str, Any]:
    """The text_config of a published language model; ``factor`` is a linear RoPE scale that it stores."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if factor is not None:
        rope = {"rope_type": "linear", "factor": factor, "rope_theta": theta}
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "rope_parameters": rope,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-5 if model_type != "qwen2" else 1e-6,
    }


def tensor_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor that a config.json implies: names of transformers 5 in memory.

    Towers CLIP and SigLIP without a head, language models Llama, Mistral and Qwen2, a projector of two
    layers. A head that is tied to the embeddings has no tensor of its own.
    """
    text, vision = config["text_config"], config["vision_config"]
    yield from _tower_shapes(vision)
    if config.get("spatial_pool_mode") == "conv":
        out, stride = (
            config.get("spatial_pool_out_channels", vision["hidden_size"]),
            config["spatial_pool_stride"],
        )
        yield "model.vision_resampler.pool.weight", (out, vision["hidden_size"], stride, stride)
        yield "model.vision_resampler.pool.bias", (out,)
    width, seen = text["hidden_size"], vision["hidden_size"]
    for name, inner in (("linear_1", seen), ("linear_2", width)):
        yield f"model.multi_modal_projector.{name}.weight", (width, inner)
        yield f"model.multi_modal_projector.{name}.bias", (width,)
    if config["model_type"] != "llava":
        yield "model.image_newline", (width,)
    yield from _language_shapes(text)
    if not (config.get("tie_word_embeddings") or text.get("tie_word_embeddings")):
        yield "lm_head.weight", (text["vocab_size"], width)


def _tower_shapes(vision: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    clip = vision["model_type"] == "clip_vision_model"
    width, deep, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    cells = (vision["image_size"] // patch) ** 2
    tower = "model.vision_tower."
    if clip:
        yield f"{tower}embeddings.class_embedding", (width,)
    yield f"{tower}embeddings.patch_embedding.weight", (width, 3, patch, patch)
    if not clip:
        yield f"{tower}embeddings.patch_embedding.bias", (width,)
    yield f"{tower}embeddings.position_embedding.weight", (cells + clip, width)
    norms = ["pre_layrnorm"] if clip else []  # transformers' own spelling
    for norm in (*norms, "post_layernorm"):
        yield f"{tower}{norm}.weight", (width,)
        yield f"{tower}{norm}.bias", (width,)
    for number in range(vision["num_hidden_layers"]):
        layer = f"{tower}encoder.layers.{number}."
        for part, shape in (
            *((f"self_attn.{one}_proj", (width, width)) for one in ("q", "k", "v", "out")),
            ("mlp.fc1", (deep, width)),
            ("mlp.fc2", (width, deep)),
            ("layer_norm1", (width,)),
            ("layer_norm2", (width,)),
        ):
            yield f"{layer}{part}.weight", shape
            yield f"{layer}{part}.bias", shape[:1]


def _language_shapes(text: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, deep = text["hidden_size"], text["intermediate_size"]
    head = text.get("head_dim") or width // text["num_attention_heads"]
    queries, keys = head * text["num_attention_heads"], head * text["num_key_value_heads"]
    model = "model.language_model."
    yield f"{model}embed_tokens.weight", (text["vocab_size"], width)
    yield f"{model}norm.weight", (width,)
    for number in range(text["num_hidden_layers"]):
        layer = f"{model}layers.{number}."
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{layer}self_attn.{part}_proj.weight", (rows, width)
            if text["model_type"] == "qwen2":
                yield f"{layer}self_attn.{part}_proj.bias", (rows,)
        yield f"{layer}self_attn.o_proj.weight", (width, queries)
        for part, shape in (("gate", (deep, width)), ("up", (deep, width)), ("down", (width, deep))):
            yield f"{layer}mlp.{part}_proj.weight", shape
        yield f"{layer}input_layernorm.weight", (width,)
        yield f"{layer}post_attention_layernorm.weight", (width,)
