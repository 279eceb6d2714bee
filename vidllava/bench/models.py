"""A model to measure: from its checkpoint, or with random weights where only its cost is wanted.

backbone = open_model("nano")
backbone = open_model("onevision-7b", weights="random", device="cuda")
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from vidllava.backbone.load import check_random, choose_device, choose_dtype, load_backbone, random_backbone
from vidllava.backbone.locate import locate
from vidllava.backbone.model import Backbone
from vidllava.backbone.settings import named_settings
from vidllava.backbone.tokens import read_codec
from vidllava.bench.shapes import MODELS, ModelSizes
from vidllava.errors import ModelError, UsageError

Weights = Literal["checkpoint", "random"]
# Named models whose sizes are known here without their checkpoint.
SIZES = {"onevision-0.5b": "0.5b", "onevision-0.5b-si": "0.5b", "onevision-7b": "7b"}
_VOCABULARY = {"0.5b": 152_000, "7b": 152_128}  # embedding rows of the published checkpoints
_IMAGE_ID, _VIDEO_ID = 151_646, 151_647


def open_model(
    name: str,
    *,
    weights: Weights = "checkpoint",
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "sdpa",
    download: bool = False,
    revision: str | None = None,
    pool_first: bool = False,
) -> Backbone:
    """The model called ``name``. ``weights`` random: its architecture, also where no checkpoint is at hand.

    Random models read text with nano's tokenizer: their answers mean nothing. Raises as ``load_backbone``.
    """
    if weights == "checkpoint":
        return load_backbone(
            name,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            download=download,
            revision=revision,
            pool_first=pool_first,
        )
    try:
        _, folder = locate(name, revision=revision)
        backbone = random_backbone(folder, device=device, dtype=dtype)
    except ModelError:
        if name not in SIZES:
            known = ", ".join(SIZES)
            raise UsageError(f"--model {name}", "is not here, and its sizes are not known", known) from None
        backbone = _without_checkpoint(name, device, dtype, attn_implementation)
    backbone.pool_first = pool_first
    return backbone


def _without_checkpoint(name: str, device: str, dtype: str, attn_implementation: str) -> Backbone:
    place, _ = choose_device(device)
    kind, _ = choose_dtype(dtype, place)
    config = published_config(SIZES[name])
    check_random(name, config, kind, place)
    _, nano = locate("nano")
    settings = replace(named_settings(name), folder=None)
    with torch.random.fork_rng(), torch.device(place):
        torch.manual_seed(0)
        hf = LlavaOnevisionForConditionalGeneration._from_config(
            config, dtype=kind, attn_implementation=attn_implementation
        )
    return Backbone(hf, settings, read_codec(nano)).to(place).eval()


def published_config(size: str) -> LlavaOnevisionConfig:
    """The configuration of the published 0.5b or 7b checkpoint."""
    sizes: ModelSizes = MODELS[size]
    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": sizes.tower_width,
            "intermediate_size": sizes.tower_mlp,
            "num_hidden_layers": sizes.tower_layers,
            "num_attention_heads": sizes.tower_heads,
            "image_size": sizes.image_size,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": sizes.width,
            "intermediate_size": sizes.mlp,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.q_heads,
            "num_key_value_heads": sizes.k_heads,
            "vocab_size": _VOCABULARY[size],
            "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
            "tie_word_embeddings": size == "0.5b",
        },
        image_token_index=_IMAGE_ID,
        video_token_index=_VIDEO_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        image_grid_pinpoints=[[384 * y, 384 * x] for y in range(1, 7) for x in range(1, 7)],
        tie_word_embeddings=size == "0.5b",
    )
