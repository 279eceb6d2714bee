"""Tiny random checkpoints of every family, in the published layouts: true classes, true file formats.

    folder = hf_checkpoint("next-video-7b", tmp_path / "hf")           # what the hub's llava-hf folder holds
    folder = original_checkpoint("next-video-7b", tmp_path / "lmms")   # what lmms-lab's folder holds

Sources of the layouts: the converters of transformers (`convert_llava_next_video_weights_to_hf.py` and
its like for OneVision and Interleave) and the configurations on the hub.
Sizes are toys, everything else is as published: which layer is read, how many tower layers are stored, what a
rotary scale says, where a tokenizer puts its control tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

PATCH, CLIP_SIDE, SIGLIP_SIDE = 14, 84, 70
CLIP_GRID, SIGLIP_GRID = CLIP_SIDE // PATCH, SIGLIP_SIDE // PATCH
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def _each(kind: str, shown: str) -> str:
    """Jinja: what stands for every part of a message of this kind."""
    chosen = f"message['content'] | selectattr('type', 'equalto', '{kind}')"
    return "{% for content in " + chosen + " %}{{ " + shown + " }}{% endfor %}"


_MEDIA = _each("image", r"'<image>\n'") + _each("video", r"'<video>\n'")
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}"
    "{% else %}{{ message['role'].upper() + ': ' }}{% endif %}"
    + _MEDIA
    + _each("text", "content['text'] + ' '")
    + "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + _MEDIA
    + _each("text", "content['text']")
    + "{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'][0]['text'] + '</s> ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    + _MEDIA
    + _each("text", "content['text']")
    + "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WORDS = (
    "why is this video funny",
    "what happens in the clip",
    "the red circle moves left",
    "USER: ASSISTANT:",
)


def llama_tokenizer(*added: str) -> Tokenizer:
    """A SentencePiece-like BPE of Llama's kind: "▁" for spaces, byte fallback, <s> before every text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=len(names) + 130, special_tokens=names, initial_alphabet=["▁"], show_progress=False
    )
    tokenizer.train_from_iterator(_WORDS * 20, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    # Of the byte tokens only the three control tokens are special, as in Llama's own file.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [
        one for one in content["added_tokens"] if not re.fullmatch(r"<0x[0-9A-F]{2}>", one["content"])
    ]
    return Tokenizer.from_str(json.dumps(content))


def qwen_tokenizer(*added: str) -> Tokenizer:
    """Byte-level BPE of Qwen2's kind, without merges; nothing stands before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *added)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer


@dataclass(frozen=True)
class Published:
    """One published checkpoint: how its Hugging Face form is configured, and what its own form says."""

    family: str
    hf_class: type[Any]
    tokenizer: Callable[[], Tokenizer]
    config: Callable[[Tokenizer], Any]
    template: str
    eos: str
    processor: dict[str, Any]
    original: dict[str, Any] = field(default_factory=dict)
    """Keys of the lmms-lab configuration beside those of the language model; empty: no such folder exists."""
    original_tokens: tuple[str, ...] = ()


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=16,
        image_size=CLIP_SIDE,
        patch_size=PATCH,
        projection_dim=16,
    )


def _siglip() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=16,
        image_size=SIGLIP_SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )


def _padded(tokenizer: Tokenizer) -> int:
    """Rows of the embeddings: the vocabulary rounded up to 64, as the converters pad it."""
    return -(-tokenizer.get_vocab_size() // 64) * 64


def _text(kind: type[Any], tokenizer: Tokenizer, **more: Any) -> Any:
    return kind(**(TEXT | {"vocab_size": _padded(tokenizer), "rms_norm_eps": 1e-5} | more))


def _id(tokenizer: Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    assert found is not None, name
    return found


_CLIP_POINTS = [
    [CLIP_SIDE * rows, CLIP_SIDE * columns] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
]
_SIGLIP_POINTS = [
    [SIGLIP_SIDE * rows, SIGLIP_SIDE * columns] for rows in range(1, 4) for columns in range(1, 4)
]


def _next_video(text: type[Any], **more: Any) -> Callable[[Tokenizer], Any]:
    def config(tokenizer: Tokenizer) -> LlavaNextVideoConfig:
        return LlavaNextVideoConfig(
            vision_config=_clip(),
            text_config=_text(text, tokenizer, **more),
            image_token_index=_id(tokenizer, "<image>"),
            video_token_index=_id(tokenizer, "<video>"),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            spatial_pool_mode="average",
            spatial_pool_stride=2,
            image_grid_pinpoints=_CLIP_POINTS,
            image_seq_length=CLIP_GRID**2,
            video_seq_length=CLIP_GRID**2 // 2,
            tie_word_embeddings=False,
        )

    return config


def _next(text: type[Any], **more: Any) -> Callable[[Tokenizer], Any]:
    def config(tokenizer: Tokenizer) -> LlavaNextConfig:
        return LlavaNextConfig(
            vision_config=_clip(),
            text_config=_text(text, tokenizer, **more),
            image_token_index=_id(tokenizer, "<image>"),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            image_grid_pinpoints=_CLIP_POINTS,
            image_seq_length=CLIP_GRID**2,
            tie_word_embeddings=False,
        )

    return config


def _interleave(tokenizer: Tokenizer) -> LlavaConfig:
    return LlavaConfig(
        vision_config=_siglip(),
        text_config=_text(Qwen2Config, tokenizer, max_position_embeddings=512, tie_word_embeddings=True),
        image_token_index=_id(tokenizer, "<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def _onevision(**more: Any) -> Callable[[Tokenizer], Any]:
    def config(tokenizer: Tokenizer) -> LlavaOnevisionConfig:
        return LlavaOnevisionConfig(
            vision_config=_siglip(),
            text_config=_text(
                Qwen2Config, tokenizer, max_position_embeddings=512, num_key_value_heads=2, rope_theta=1e6
            ),
            image_token_index=_id(tokenizer, "<image>"),
            video_token_index=_id(tokenizer, "<video>"),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_grid_pinpoints=_SIGLIP_POINTS,
            vision_aspect_ratio="anyres_max_4",
            **more,
        )

    return config


_CLIP_PROCESSOR = {
    "image_processor_type": "LlavaNextImageProcessor",
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": CLIP_SIDE},
    "crop_size": {"height": CLIP_SIDE, "width": CLIP_SIDE},
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "image_grid_pinpoints": _CLIP_POINTS,
    "aspect_ratio_setting": "anyres",
}
_SIGLIP_PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": SIGLIP_SIDE, "width": SIGLIP_SIDE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_ONEVISION_PROCESSOR = _SIGLIP_PROCESSOR | {
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "image_grid_pinpoints": _SIGLIP_POINTS,
}
_CLIP_ORIGINAL = {
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_hidden_size": 32,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": _CLIP_POINTS,
    "tokenizer_padding_side": "right",
}
_VIDEO_ORIGINAL = _CLIP_ORIGINAL | {
    "mm_resampler_type": "spatial_pool",
    "mm_spatial_pool_mode": "average",
    "mm_spatial_pool_stride": 2,
    "mm_spatial_pool_out_channels": 32,
    "mm_newline_position": "no_token",
}
_SIGLIP_ORIGINAL = {
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_hidden_size": 32,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_spatial_pool_mode": "bilinear",
    "mm_newline_position": "one_token",
    "image_aspect_ratio": "anyres_max_4",
    "image_grid_pinpoints": _SIGLIP_POINTS,
    "tokenizer_padding_side": "right",
}
_VIDEO = ("<video>", "<image>", "<pad>")

PUBLISHED: dict[str, Published] = {
    "next-video-7b": Published(
        "next-video",
        LlavaNextVideoForConditionalGeneration,
        lambda: llama_tokenizer(*_VIDEO),
        _next_video(
            LlamaConfig,
            max_position_embeddings=256,
            rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0},
        ),
        VICUNA_TEMPLATE,
        "</s>",
        _CLIP_PROCESSOR,
        _VIDEO_ORIGINAL,
    ),
    "next-video-34b": Published(
        "next-video",
        LlavaNextVideoForConditionalGeneration,
        lambda: llama_tokenizer("<|im_start|>", "<|im_end|>", *_VIDEO),
        _next_video(LlamaConfig, max_position_embeddings=256, num_key_value_heads=2, rope_theta=5e6),
        CHATML_TEMPLATE,
        "<|im_end|>",
        _CLIP_PROCESSOR,
        _VIDEO_ORIGINAL,
    ),
    "next-video-7b-32k": Published(
        "next-video",
        LlavaNextVideoForConditionalGeneration,
        lambda: llama_tokenizer(*_VIDEO),
        _next_video(
            MistralConfig,
            max_position_embeddings=2048,
            num_key_value_heads=2,
            sliding_window=None,
            rope_theta=1e6,
        ),
        MISTRAL_TEMPLATE,
        "</s>",
        _CLIP_PROCESSOR,
        _VIDEO_ORIGINAL,
    ),
    "next-vicuna-7b": Published(
        "next",
        LlavaNextForConditionalGeneration,
        lambda: llama_tokenizer("<image>", "<pad>"),
        _next(LlamaConfig, max_position_embeddings=512),
        VICUNA_TEMPLATE,
        "</s>",
        _CLIP_PROCESSOR,
        _CLIP_ORIGINAL,
    ),
    "next-mistral-7b": Published(
        "next",
        LlavaNextForConditionalGeneration,
        lambda: llama_tokenizer("<image>", "<pad>"),
        _next(MistralConfig, max_position_embeddings=512, num_key_value_heads=2, sliding_window=None),
        MISTRAL_TEMPLATE,
        "</s>",
        _CLIP_PROCESSOR,
        _CLIP_ORIGINAL,
    ),
    "interleave-0.5b": Published(
        "interleave",
        LlavaForConditionalGeneration,
        lambda: qwen_tokenizer("<image>"),
        _interleave,
        CHATML_TEMPLATE,
        "<|im_end|>",
        _SIGLIP_PROCESSOR,
        {key: value for key, value in _SIGLIP_ORIGINAL.items() if "newline" not in key and "pool" not in key}
        | {"mm_patch_merge_type": "flat", "image_aspect_ratio": "pad"},
    ),
    "onevision-0.5b": Published(
        "onevision",
        LlavaOnevisionForConditionalGeneration,
        lambda: qwen_tokenizer("<image>", "<video>"),
        _onevision(tie_word_embeddings=True),
        CHATML_TEMPLATE,
        "<|im_end|>",
        _ONEVISION_PROCESSOR,
        _SIGLIP_ORIGINAL,
    ),
    "onevision-7b": Published(
        "onevision",
        LlavaOnevisionForConditionalGeneration,
        lambda: qwen_tokenizer("<image>", "<video>"),
        _onevision(tie_word_embeddings=False),
        CHATML_TEMPLATE,
        "<|im_end|>",
        _ONEVISION_PROCESSOR,
        _SIGLIP_ORIGINAL,
    ),
    "llava-video-7b": Published(
        "llava-video",
        LlavaOnevisionForConditionalGeneration,
        lambda: qwen_tokenizer("<image>", "<video>"),
        _onevision(tie_word_embeddings=False),
        CHATML_TEMPLATE,
        "<|im_end|>",
        _ONEVISION_PROCESSOR,
        _SIGLIP_ORIGINAL
        | {
            "mm_newline_position": "grid",
            "add_time_instruction": True,
            "force_sample": True,
            "mm_spatial_pool_stride": 2,
        },
    ),
}


def random_model(published: Published, tokenizer: Tokenizer, seed: int = 0) -> Any:
    """transformers' own class with weights large enough for every difference to show."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = published.hf_class(published.config(tokenizer))
        for name, parameter in hf.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.data += 1.0
        hf.tie_weights()
    return hf.eval()


def hf_checkpoint(name: str, folder: Path, *, seed: int = 0, legacy_keys: bool = False) -> Path:
    """Write the Hugging Face form. ``legacy_keys``: the names of tensors that transformers 4.x wrote."""
    published, tokenizer = PUBLISHED[name], PUBLISHED[name].tokenizer()
    hf = random_model(published, tokenizer, seed)
    hf.save_pretrained(folder)
    if legacy_keys:
        state = {legacy_name(key): value.clone().contiguous() for key, value in untied(hf).items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(folder, tokenizer, published)
    is_clip = published.processor is _CLIP_PROCESSOR
    _write(folder / "preprocessor_config.json", published.processor)
    processor = {
        "patch_size": PATCH,
        "num_additional_image_tokens": 1 if is_clip else 0,
        "vision_feature_select_strategy": "default" if is_clip else "full",
        "image_token": "<image>",
        "video_token": "<video>",
    }
    _write(folder / "processor_config.json", processor)
    (folder / "chat_template.jinja").write_text(published.template, encoding="utf-8")
    return folder


def original_checkpoint(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write lmms-lab's form of the same weights: its names of tensors, its configuration, its tokenizer."""
    published, tokenizer = PUBLISHED[name], PUBLISHED[name].tokenizer()
    hf = random_model(published, tokenizer, seed)
    folder.mkdir(parents=True, exist_ok=True)
    state = {original_name(key): value.clone().contiguous() for key, value in untied(hf).items()}
    if published.family == "interleave":  # in the file, and not used: merge type flat
        state["model.image_newline"] = torch.zeros(TEXT["hidden_size"])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    text = hf.config.text_config.to_dict()
    qwen = isinstance(hf.config.text_config, Qwen2Config)
    mistral = isinstance(hf.config.text_config, MistralConfig)
    config = {key: value for key, value in text.items() if not key.startswith("_")}
    rope = config.pop("rope_parameters", None) or {}
    config |= {"rope_theta": rope.get("rope_theta", 10000.0), "rope_scaling": None}
    if rope.get("rope_type") == "linear":
        config["rope_scaling"] = {"type": "linear", "factor": rope["factor"]}
    kind = "LlavaQwen" if qwen else "LlavaMistral" if mistral else "LlavaLlama"
    config |= {"architectures": [f"{kind}ForCausalLM"], "model_type": "llava", **published.original}
    if published.family == "next" or published.family == "next-video":
        config["model_type"] = "llava_mistral" if mistral else "llava"
    _write(folder / "config.json", config)
    _write_tokenizer(folder, tokenizer, published)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def untied(hf: Any) -> dict[str, torch.Tensor]:
    """The weights that are stored: a head that is tied to the embeddings is not."""
    state = dict(hf.state_dict())
    if hf.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return {key: value for key, value in state.items() if "inv_freq" not in key and "position_ids" not in key}


def original_name(key: str) -> str:
    """The name that lmms-lab's code gives to a tensor of transformers' class."""
    for before, after in (
        ("model.language_model.", "model."),
        ("model.vision_tower.", "model.vision_tower.vision_tower."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ):
        if key.startswith(before):
            rest = key.removeprefix(before)
            if before == "model.vision_tower." and not rest.startswith("vision_model."):
                rest = f"vision_model.{rest}"
            return after + rest
    return key


def legacy_name(key: str) -> str:
    """The name that transformers 4.x gives to a tensor of 5.x."""
    if key.startswith("model.language_model."):
        return "language_model.model." + key.removeprefix("model.language_model.")
    if key.startswith("model.vision_tower."):
        rest = key.removeprefix("model.vision_tower.").removeprefix("vision_model.")
        return f"vision_tower.vision_model.{rest}"
    if key.startswith("lm_head."):
        return f"language_model.{key}"
    return key.removeprefix("model.")


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, published: Published) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    llama = tokenizer.token_to_id("<s>") is not None
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": published.eos}
    if llama:
        content |= {"bos_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    _write(folder / "tokenizer_config.json", content)
    ids = {"eos_token_id": tokenizer.token_to_id(published.eos)}
    if llama:
        ids |= {"bos_token_id": 1, "pad_token_id": tokenizer.token_to_id("<pad>")}
    _write(folder / "generation_config.json", ids)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def image_processor(folder: Path) -> Any:
    """transformers' processor of pictures that works through Pillow: the automatic one may want another."""
    name = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))[
        "image_processor_type"
    ]
    return getattr(transformers, f"{name}Pil").from_pretrained(folder)


def picture_processor(folder: Path, kind: str) -> Any:
    """transformers' processor (LlavaProcessor, LlavaNextProcessor) of pictures and words, from its files."""
    content = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    known = ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy", "image_token")
    return getattr(transformers, kind)(
        image_processor=image_processor(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        **{key: content[key] for key in known},
    )
