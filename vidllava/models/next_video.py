"""LLaVA-NeXT-Video: CLIP; frames centre-cropped, pooled before the projector; linear RoPE over 4096 rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vidllava.models.family import Family, NamedModel, Preset, text_config
from vidllava.models.next import MISTRAL_7B, PRESET, VICUNA_7B, by_language_model
from vidllava.models.next import config as next_config

YI_34B = (7168, 20_480, 60, 56, 8)


def _of_config(preset: Preset, found: Mapping[str, Any]) -> Preset:
    return replace(
        by_language_model(preset, found),
        pool_mode=found.get("spatial_pool_mode", "average"),
        pool_stride=int(found.get("spatial_pool_stride", 2)),
    )


def _adopts(found: Mapping[str, Any], video_id: int) -> dict[str, Any] | None:
    """LLaVA-NeXT: the same weights, and pooling that has none."""
    if found.get("model_type") != "llava_next":
        return None
    pooled = {"spatial_pool_mode": "average", "spatial_pool_stride": 2, "video_token_index": video_id}
    kind = {"model_type": FAMILY.model_type, "architectures": [FAMILY.hf_class]}
    return {**found, **kind, **pooled}


def _model(name: str, hub_name: str, about: str, text: Mapping[str, Any]) -> NamedModel:
    return NamedModel(
        name=name,
        hub_id=f"llava-hf/LLaVA-NeXT-Video-{hub_name}-hf",
        about=f"LLaVA-NeXT-Video, {about}",
        config=next_config("llava_next_video", text, spatial_pool_mode="average", spatial_pool_stride=2),
    )


# The published 7B stores a linear factor of 2.5 over 4096 trained positions: its least.
_VICUNA = text_config("llama", *VICUNA_7B, 32_064, context=4096, factor=2.5)
_YI = text_config("llama", *YI_34B, 64_064, context=4096, theta=5e6)
_MISTRAL = text_config("mistral", *MISTRAL_7B, 32_064, context=32_768, theta=1e6)

FAMILY = Family(
    preset=replace(PRESET, name="next-video"),
    model_type="llava_next_video",
    hf_class="LlavaNextVideoForConditionalGeneration",
    of_config=_of_config,
    adopts=_adopts,
    centre_crop=True,
    models=(
        _model("next-video-7b", "7B", "Vicuna 7B", _VICUNA),
        _model("next-video-7b-dpo", "7B-DPO", "Vicuna 7B, preference-tuned", _VICUNA),
        _model("next-video-34b", "34B", "Yi 34B", _YI),
        _model("next-video-34b-dpo", "34B-DPO", "Yi 34B, preference-tuned", _YI),
        _model("next-video-7b-32k", "7B-32K", "Mistral 7B, 32K context", _MISTRAL),
    ),
    sources=(
        "https://llava-vl.github.io/blog/2024-04-30-llava-next-video/",
        "https://huggingface.co/llava-hf/LLaVA-NeXT-Video-7B-hf",
    ),
)
