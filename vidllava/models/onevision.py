"""LLaVA-OneVision: SigLIP, Qwen2; clips pooled after the projector, one newline; AnyRes to 6 x 6 tiles."""

from __future__ import annotations

from typing import Any

from vidllava.models.family import SIGLIP_SO400M, Family, NamedModel, Preset, text_config

QWEN2 = {
    "0.5b": text_config("qwen2", 896, 4864, 24, 14, 2, 152_000, context=32_768, theta=1e6, tied=True),
    "7b": text_config("qwen2", 3584, 18_944, 28, 28, 4, 152_128, context=32_768, theta=1e6),
    "72b": text_config("qwen2", 8192, 29_568, 80, 64, 8, 152_128, context=32_768, theta=1e6),
}


def config(size: str) -> dict[str, Any]:
    """The config.json of llava-hf/llava-onevision-qwen2-{0.5b, 7b, 72b}-ov-hf, as far as sizes go."""
    text = QWEN2[size]
    return {
        "model_type": "llava_onevision",
        "text_config": text,
        "vision_config": SIGLIP_SO400M,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [
            [384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)
        ],
        "tie_word_embeddings": text["tie_word_embeddings"],
    }


def _model(size: str, stage: str, about: str) -> NamedModel:
    short = {"ov": "", "si": "-si", "ov-chat": "-chat"}[stage]
    return NamedModel(
        name=f"onevision-{size}{short}",
        hub_id=f"llava-hf/llava-onevision-qwen2-{size}-{stage}-hf",
        about=f"LLaVA-OneVision, Qwen2 {size.upper()}{about}",
        config=config(size),
    )


FAMILY = Family(
    preset=Preset(name="onevision", num_frames=32),
    model_type="llava_onevision",
    hf_class="LlavaOnevisionForConditionalGeneration",
    models=(
        _model("0.5b", "ov", ""),
        _model("0.5b", "si", ", single-image stage"),
        _model("7b", "ov", ""),
        _model("7b", "si", ", single-image stage"),
        _model("7b", "ov-chat", ", preference-tuned"),
        _model("72b", "ov", ""),
        _model("72b", "si", ", single-image stage"),
        _model("72b", "ov-chat", ", preference-tuned"),
    ),
    sources=(
        "https://arxiv.org/abs/2408.03326",
        "https://huggingface.co/llava-hf/llava-onevision-qwen2-7b-ov-hf",
    ),
)
