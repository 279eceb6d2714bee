"""LLaVA-NeXT-Interleave: SigLIP, Qwen1.5; 729 tokens for each picture and frame, no newline, no pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.models.family import SIGLIP_SO400M, Family, NamedModel, Preset, text_config

QWEN15 = {
    "0.5b": text_config("qwen2", 1024, 2816, 24, 16, 16, 152_000, context=32_768, theta=1e6, tied=True),
    "7b": text_config("qwen2", 4096, 11_008, 32, 32, 32, 152_000, context=32_768, theta=1e6),
}


def _recognises(found: Mapping[str, Any]) -> bool:
    # LLaVA-1.5 and others have this model_type too, with another tower.
    vision = found.get("vision_config") or {}
    return found.get("model_type") == "llava" and vision.get("model_type") == "siglip_vision_model"


def _model(name: str, size: str, hub_id: str, about: str = "") -> NamedModel:
    text = QWEN15[size]
    return NamedModel(
        name=name,
        hub_id=f"llava-hf/{hub_id}",
        about=f"LLaVA-NeXT-Interleave, Qwen1.5 {size.upper()}{about}",
        config={
            "model_type": "llava",
            "text_config": text,
            "vision_config": SIGLIP_SO400M,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "tie_word_embeddings": text["tie_word_embeddings"],
        },
    )


FAMILY = Family(
    # The released checkpoints hold no newline that is used: their merge type is flat
    # (transformers' convert_llava_weights_to_hf.py deletes it).
    preset=Preset(
        name="interleave",
        num_frames=16,
        pool_stride=1,
        newline_mode="no_token",
        lone_picture="whole",
        several_pictures="whole",
    ),
    model_type="llava",
    hf_class="LlavaForConditionalGeneration",
    recognises=_recognises,
    models=(
        _model("interleave-0.5b", "0.5b", "llava-interleave-qwen-0.5b-hf"),
        _model("interleave-7b", "7b", "llava-interleave-qwen-7b-hf"),
        _model("interleave-7b-dpo", "7b", "llava-interleave-qwen-7b-dpo-hf", ", preference-tuned"),
    ),
    sources=(
        "https://arxiv.org/abs/2407.07895",
        "https://huggingface.co/llava-hf/llava-interleave-qwen-7b-hf",
    ),
)
