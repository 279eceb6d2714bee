"""nano's architecture: LLaVA-OneVision's parts at a size that two cores can train and answer with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from examples.train_nano.tokenizer import END_OF_TEXT, IM_END, IMAGE, VIDEO, build_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

IMAGE_SIZE, PATCH = 84, 12
SIDE = IMAGE_SIZE // PATCH  # cells on each side of a frame: 7
CONTEXT = 384  # tokens: 20 frames, the system line, a question and its answer; the longest it is trained on


def nano_config(vocabulary: dict[str, int]) -> LlavaOnevisionConfig:
    """The configuration in transformers' format. ``vocabulary``: token -> id of nano's tokenizer."""
    from transformers import LlavaOnevisionConfig

    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(vocabulary),
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": CONTEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": vocabulary[IM_END],
            "pad_token_id": vocabulary[END_OF_TEXT],
        },
        image_token_index=vocabulary[IMAGE],
        video_token_index=vocabulary[VIDEO],
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        tie_word_embeddings=True,
    )


def fresh_model(seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    """A randomly initialised nano. Weights are wider than transformers' 0.02, which is for large models."""
    import torch
    from transformers import LlavaOnevisionForConditionalGeneration

    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(nano_config(build_tokenizer().get_vocab()))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and ".layers." in name:
                into_residual = name.endswith(
                    ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")
                )
                weight.normal_(std=(0.5 if into_residual else 1.0) * weight.shape[1] ** -0.5)
            elif name.endswith("embed_tokens.weight"):
                weight.normal_(std=0.05)
            elif name.endswith("position_embedding.weight"):
                weight.normal_(std=0.3)
            elif name.endswith(("patch_embedding.weight", "image_newline")):
                weight.normal_(std=0.05)
    return model


def save_nano(model: LlavaOnevisionForConditionalGeneration, folder: Path) -> None:
    """Write a folder that plain ``from_pretrained`` and ``AutoTokenizer`` load."""
    model.save_pretrained(folder)
    save_tokenizer(folder, context=CONTEXT)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    picture = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": [[IMAGE_SIZE, IMAGE_SIZE]],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": size,
    }
    _write(folder / "preprocessor_config.json", picture)
    _write(folder / "vidllava.json", {"preset": "nano"})


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
