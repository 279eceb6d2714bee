"""Published checkpoints in lmms-lab's layout at their true sizes: configurations, names, shapes, no weights.

The language models are Vicuna 7B v1.5, Nous-Hermes-2-Yi-34B, Mistral-7B-Instruct-v0.2, Qwen1.5 and Qwen2;
the keys beside theirs are those of lmms-lab's config.json files.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import transformers

from tests.models import checkpoints

GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
CLIP = {
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_hidden_size": 1024,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[336 * rows, 336 * columns] for rows, columns in GRIDS],
    "torch_dtype": "bfloat16",
}
POOLED = CLIP | {
    "mm_resampler_type": "spatial_pool",
    "mm_spatial_pool_mode": "average",
    "mm_spatial_pool_stride": 2,
    "mm_spatial_pool_out_channels": 1024,
    "mm_newline_position": "no_token",
}
SIGLIP = CLIP | {
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_hidden_size": 1152,
    "mm_newline_position": "one_token",
    "mm_spatial_pool_mode": "bilinear",
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": "(1x1),...,(6x6)",
    "image_token_index": 151646,
}
FLAT = {key: value for key, value in SIGLIP.items() if "newline" not in key and "token" not in key} | {
    "mm_patch_merge_type": "flat"
}
GRID = SIGLIP | {"mm_newline_position": "grid", "add_time_instruction": True, "force_sample": True}


def text(
    kind: str, hidden: int, inner: int, layers: int, heads: int, keys: int, rows: int, **more: Any
) -> Any:
    """A language model as lmms-lab's config.json has it."""
    return {
        "architectures": [f"Llava{kind}ForCausalLM"],
        "model_type": "llava_mistral" if kind == "Mistral" else "llava",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": rows,
        "rms_norm_eps": 1e-6 if kind == "Qwen" else 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
        **more,
    }


VICUNA = text("Llama", 4096, 11008, 32, 32, 32, 32000)
YI = text("Llama", 7168, 20480, 60, 56, 8, 64000, rope_theta=5e6)
MISTRAL = text(
    "Mistral",
    4096,
    14336,
    32,
    32,
    8,
    32000,
    rope_theta=1e6,
    sliding_window=None,
    max_position_embeddings=32768,
)
LONG: dict[str, Any] = {"rope_theta": 1e6, "max_position_embeddings": 32768, "use_sliding_window": False}
QWEN15 = {
    "0.5b": text("Qwen", 1024, 2816, 24, 16, 16, 151936, **LONG, sliding_window=32768),
    "7b": text("Qwen", 4096, 11008, 32, 32, 32, 151936, **LONG, sliding_window=32768),
}
QWEN2 = {
    "0.5b": text("Qwen", 896, 4864, 24, 14, 2, 151936, **LONG, sliding_window=131072),
    "7b": text("Qwen", 3584, 18944, 28, 28, 4, 152064, **LONG, sliding_window=131072),
    "72b": text("Qwen", 8192, 29568, 80, 64, 8, 152064, **LONG, sliding_window=131072),
}
SCALED = {"rope_scaling": {"type": "linear", "factor": 2.5}}
# name: configuration, model_type in transformers, billions of parameters as the hub shows them
SIZES: dict[str, tuple[dict[str, Any], str, float]] = {
    "next-video-7b": (VICUNA | POOLED | SCALED, "llava_next_video", 7.06),
    "next-video-34b": (YI | POOLED, "llava_next_video", 34.75),
    "next-video-7b-32k": (MISTRAL | POOLED, "llava_next_video", 7.57),
    "interleave-0.5b": (QWEN15["0.5b"] | FLAT, "llava", 0.87),
    "interleave-7b": (QWEN15["7b"] | FLAT, "llava", 8.14),
    "onevision-0.5b": (QWEN2["0.5b"] | SIGLIP, "llava_onevision", 0.89),
    "onevision-7b": (QWEN2["7b"] | SIGLIP, "llava_onevision", 8.03),
    "onevision-72b": (QWEN2["72b"] | SIGLIP, "llava_onevision", 73.2),
    "llava-video-7b": (QWEN2["7b"] | GRID, "llava_onevision", 8.03),
    "llava-video-72b": (QWEN2["72b"] | GRID, "llava_onevision", 73.2),
    "next-vicuna-7b": (VICUNA | CLIP, "llava_next", 7.06),
    "next-mistral-7b": (MISTRAL | CLIP, "llava_next", 7.57),
}
TEXT_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
CLASSES = {
    "llava": transformers.LlavaForConditionalGeneration,
    "llava_next": transformers.LlavaNextForConditionalGeneration,
    "llava_next_video": transformers.LlavaNextVideoForConditionalGeneration,
    "llava_onevision": transformers.LlavaOnevisionForConditionalGeneration,
}
Shapes = dict[str, tuple[int, ...]]


def shapes_of(config: Any, kind: str) -> Shapes:
    """Names and shapes of transformers' class, made without memory; a tied head has no tensor of its own."""
    with torch.device("meta"):
        model = CLASSES[kind](config)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del found["lm_head.weight"]
    return found


def by_hand(own: dict[str, Any], kind: str) -> Any:
    """transformers' configuration of a published checkpoint, without the code under test."""
    language = own["architectures"][0].removeprefix("Llava").removesuffix("ForCausalLM")
    text_class = getattr(transformers, f"{language}{'2' if language == 'Qwen' else ''}Config")
    sizes = {key: own[key] for key in (*TEXT_SIZES, "vocab_size", "rms_norm_eps")}
    if "clip" in own["mm_vision_tower"]:
        tower: Any = transformers.CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        )
    else:
        tower = transformers.SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=26,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
            vision_use_head=False,
        )
    tied = own["hidden_size"] in (896, 1024)  # Qwen's 0.5B
    return CLASSES[kind].config_class(
        text_config=text_class(**sizes), vision_config=tower, tie_word_embeddings=tied
    )


def headers(shapes: Shapes) -> dict[str, SimpleNamespace]:
    """What the header of a weights file says of tensors with these names."""
    return {name: SimpleNamespace(shape=shape) for name, shape in shapes.items()}


def stored(own: dict[str, Any], kind: str) -> Shapes:
    """Names and shapes in lmms-lab's file, by the oracle's names."""
    found = {
        checkpoints.original_name(name): one for name, one in shapes_of(by_hand(own, kind), kind).items()
    }
    # Interleave's file holds one, and never reads it.
    return found | {"model.image_newline": (own["hidden_size"],)}
