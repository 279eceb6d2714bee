"""LLaVA-NeXT (v1.6): the picture model that LLaVA-NeXT-Video begins from; CLIP, Vicuna or Mistral."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vidllava.models.family import CLIP_L_336, Family, NamedModel, Preset, text_config

VICUNA_7B = (4096, 11_008, 32, 32, 32)
"""Hidden, intermediate, layers, heads, key-value heads."""
VICUNA_13B = (5120, 13_824, 40, 40, 40)
MISTRAL_7B = (4096, 14_336, 32, 32, 8)
_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def config(model_type: str, text: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A config.json with CLIP-L/14-336 read at its last layer but one, the class token dropped."""
    return {
        "model_type": model_type,
        "text_config": text,
        "vision_config": CLIP_L_336,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "image_grid_pinpoints": [[336 * rows, 336 * columns] for rows, columns in _GRIDS],
        "tie_word_embeddings": False,
        **more,
    }


def by_language_model(preset: Preset, found: Mapping[str, Any]) -> Preset:
    """The template that the checkpoints' language models were tuned with, and their own context."""
    text = found.get("text_config") or {}
    hermes = (
        text.get("model_type") == "llama" and (text.get("hidden_size") or 0) >= 7168
    )  # Nous-Hermes-2-Yi-34B
    template = "mistral" if text.get("model_type") == "mistral" else "chatml" if hermes else "vicuna"
    return replace(preset, template=template, trained_context=None)


# Trained on pictures. Clips are read as LLaVA-NeXT-Video reads them: its zero-shot rows are this model.
PRESET = Preset(
    name="next",
    num_frames=16,
    pool_at="tower",
    pool_mode="average",
    newline_mode="no_token",
    several_pictures="tiles",
    max_tiles=None,
    template="vicuna",
    trained_context=4096,
)
FAMILY = Family(
    preset=PRESET,
    model_type="llava_next",
    hf_class="LlavaNextForConditionalGeneration",
    of_config=by_language_model,
    centre_crop=True,
    models=(
        NamedModel(
            name="next-vicuna-7b",
            hub_id="llava-hf/llava-v1.6-vicuna-7b-hf",
            about="LLaVA-NeXT, Vicuna 7B",
            config=config("llava_next", text_config("llama", *VICUNA_7B, 32_064, context=4096)),
        ),
        NamedModel(
            name="next-vicuna-13b",
            hub_id="llava-hf/llava-v1.6-vicuna-13b-hf",
            about="LLaVA-NeXT, Vicuna 13B",
            config=config("llava_next", text_config("llama", *VICUNA_13B, 32_064, context=4096)),
        ),
        NamedModel(
            name="next-mistral-7b",
            hub_id="llava-hf/llava-v1.6-mistral-7b-hf",
            about="LLaVA-NeXT, Mistral 7B",
            config=config(
                "llava_next", text_config("mistral", *MISTRAL_7B, 32_064, context=32_768, theta=1e6)
            ),
        ),
    ),
    sources=(
        "https://llava-vl.github.io/blog/2024-01-30-llava-next/",
        "https://huggingface.co/llava-hf/llava-v1.6-vicuna-7b-hf",
    ),
)
