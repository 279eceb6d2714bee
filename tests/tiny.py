"""A OneVision checkpoint of the true format, small enough for tests: random weights, odd 5 x 5 grid.

folder = tiny_checkpoint(tmp_path / "tiny")
backbone = load_backbone(str(folder))
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config
from transformers.models.siglip import SiglipVisionConfig

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
IMAGE_SIZE, PATCH_SIZE = 70, 14
PINPOINTS = [[70 * rows, 70 * columns] for rows in range(1, 4) for columns in range(1, 4)]


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE without merges: every UTF-8 text encodes, control tokens have ids 0 to 4."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIAL_TOKENS) + 256,
        special_tokens=[AddedToken(name, special=True) for name in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([], trainer)
    return tokenizer


def tiny_config(**text: object) -> LlavaOnevisionConfig:
    """The true configuration class at toy sizes; ``text`` overrides the language model's."""
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        vision_use_head=False,
    )
    settings: dict[str, object] = {
        "vocab_size": 264,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(**(settings | text)),
        image_token_index=3,
        video_token_index=4,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_4",
    )


def tiny_checkpoint(folder: Path, *, seed: int = 0, preset: str | None = None, **text: object) -> Path:
    """Write weights, configuration, tokenizer and preprocessor settings to ``folder``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = LlavaOnevisionForConditionalGeneration(tiny_config(**text))
        for name, parameter in hf.named_parameters():
            # transformers' own start is near zero for some parts: differences would hide in it.
            torch.nn.init.normal_(parameter, std=0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.data += 1.0
    hf.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    write = {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"},
        "preprocessor_config.json": {
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            "image_grid_pinpoints": PINPOINTS,
        },
    }
    if preset is not None:
        write["vidllava.json"] = {"preset": preset}
    for name, content in write.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder
