"""Figures that were published of checkpoints: first logits, ids of prompts and tokens; what ``verify`` reads.

Sources: transformers' converters (convert_llava_{onevision,next}_weights_to_hf.py), its tests
(tests/models/llava_onevision, llava_next_video), and config.json files on the Hugging Face hub.
"""

from __future__ import annotations

from vidllava.prompting.conversation import Control

Slice = tuple[tuple[float, float, float], ...]
# The first three logits of the first three rows, which are words of the prompt alone: transformers'
# convert_llava_onevision_weights_to_hf.py and convert_llava_next_weights_to_hf.py, in half precision.
SLICES: dict[str, Slice] = {
    "onevision-0.5b-si": (
        (-12.1953, -14.6797, -12.7891), (0.5840, -0.8467, 1.3799), (3.6055, 4.5430, 9.9062),
    ),
    "onevision-0.5b": ((-12.0234, -14.3828, -12.7500), (2.3594, 1.0000, 3.9336), (3.6582, 4.7148, 9.1172)),
    "onevision-7b-si": ((1.7656, 3.3418, 1.4033), (0.0757, 0.7427, 3.5098), (6.7109, 5.6797, 9.3828)),
    "onevision-7b": ((1.8496, 3.4219, 1.3135), (3.0996, 3.0117, 3.1484), (4.2422, 4.7109, 9.9688)),
    "onevision-7b-chat": ((1.8662, 3.4316, 1.3174), (2.7109, 2.5488, 3.0117), (4.4648, 4.9648, 10.3359)),
    "onevision-72b-si": ((4.1875, 4.4883, 2.7910), (1.2949, 5.1328, 3.1582), (0.9390, 6.4531, 8.4375)),
    "onevision-72b": ((4.2930, 4.7305, 2.7363), (1.7529, 5.0742, 3.9590), (1.3936, 6.3438, 9.3984)),
    "onevision-72b-chat": ((4.3086, 4.7344, 2.6953), (1.7090, 5.1719, 4.0234), (1.3057, 6.3438, 9.5469)),
    "next-vicuna-7b": ((1.4883, 0.9976, -0.6992), (-9.7031, -5.7031, -1.5557), (-5.1328, -5.5586, 8.8281)),
    "next-mistral-7b": (
        (-4.8555, -4.6992, -0.1996), (-10.5703, -10.7344, -2.7246), (-7.0391, -7.3672, -0.2634),
    ),
}  # fmt: skip
# How the converters' prompts begin; what comes after three tokens reaches none of these rows.
SYSTEM = (Control("<|im_start|>"), "system\nYou are a helpful assistant.")
OPENINGS: dict[str, tuple[Control | str, ...]] = {
    "next-vicuna-7b": ("A chat between a curious human and an artificial intelligence assistant.",),
    "next-mistral-7b": ("[INST] ",),
}
# tests/models/llava_onevision, test_small_model_integration_test: the third row is a picture's first, so that
# tower, projector and placement are in it.
PICTURE_SLICES: dict[str, Slice] = {
    "onevision-0.5b": ((-12.3125, -14.5625, -12.8750), (3.4023, 5.0508, 9.5469), (3.5762, 4.4922, 7.8906)),
}
AROUND_PICTURE: tuple[tuple[Control | str, ...], tuple[Control | str, ...]] = (
    ("user\n",),
    (
        "\nWhat do you see in this image?",
        *(Control("<|im_end|>"), "\n", Control("<|im_start|>"), "assistant\n"),
    ),
)
PICTURE_URL = (
    "https://github.com/haotian-liu/LLaVA/blob/1a91fc274d7c35a9b50b3cb29c4247ae5837ce39"
    "/images/llava_v1_5_radar.jpg?raw=true"
)
PICTURE_SIZE = (899, 1024)
"""Height and width of that picture in pixels."""
PICTURE_IDS = 6567
"""Length of that prompt: 16 words and marks, 6551 rows of the picture."""
TOLERANCES = {"float32": 0.05, "float16": 0.05, "bfloat16": 0.4}
"""Published are float16 values of one GPU, of which 1e-4 and 1e-3 are asked. Others sum in another order:
float16 holds 11 bits, a hundredth at a logit of 14, a few of them after all layers; bfloat16 3 bits less."""
# tests/models/llava_next_video: "USER: <video>\nWhy is this video funny? ASSISTANT:", unexpanded.
FUNNY = (1, 3148, 1001, 29901, 29871, 32000, 13, 11008, 338, 445, 4863, 2090, 1460, 29973, 319, 1799, 9047)
FUNNY_IDS = {name: (*FUNNY, 13566, 29901) for name in ("next-video-7b", "next-video-7b-dpo")}
# Of the config.json files on the hub, and of the base models' tokenizers.
_NEXT_VIDEO = {"<video>": 32_000, "<image>": 32_001}
_INTERLEAVE = {"<image>": 151_646}
_ONEVISION = {"<image>": 151_646, "<video>": 151_647}
PLACEHOLDERS: dict[str, dict[str, int]] = {
    **dict.fromkeys(("next-video-7b", "next-video-7b-dpo", "next-video-7b-32k"), _NEXT_VIDEO),
    **dict.fromkeys(("interleave-0.5b", "interleave-7b", "interleave-7b-dpo"), _INTERLEAVE),
    **dict.fromkeys((name for name in SLICES if name.startswith("onevision")), _ONEVISION),
}
"""Ids of the placeholders in transformers' layout; lmms-lab's tokenizers have none."""
_LLAMA_ENDS, _QWEN_ENDS = ((1,), 2), ((), 151_645)
ENDS: dict[str, tuple[tuple[int, ...], int]] = {
    **dict.fromkeys(FUNNY_IDS, _LLAMA_ENDS),
    **dict.fromkeys((name for name in SLICES if name.startswith("onevision")), _QWEN_ENDS),
    **dict.fromkeys(("llava-video-7b", "llava-video-72b"), _QWEN_ENDS),
}
"""The ids that the tokenizer puts before a text, and the id that ends an answer."""
