"""LLaVA-Video: OneVision's layers, 64 frames, a newline after each row of a frame, a sentence of times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.models.family import Family, NamedModel, Preset
from vidllava.models.onevision import config
from vidllava.prompting.layout import NewlineMode

_GRID: NewlineMode = "grid"


def _recognises(found: Mapping[str, Any]) -> bool:
    # In transformers' layout it is OneVision's class; only these keys of the original tell it from that.
    return found.get("model_type") == "llava_onevision" and found.get("mm_newline_position") == _GRID


FAMILY = Family(
    preset=Preset(name="llava-video", num_frames=64, newline_mode=_GRID, time_instruction=True),
    model_type="llava_onevision",
    hf_class="LlavaOnevisionForConditionalGeneration",
    recognises=_recognises,
    models=tuple(
        NamedModel(
            name=f"llava-video-{size}",
            hub_id=f"lmms-lab/LLaVA-Video-{size.upper()}-Qwen2",
            about=f"LLaVA-Video, Qwen2 {size.upper()}; original layout",
            config={**config(size), "mm_newline_position": _GRID},
        )
        for size in ("7b", "72b")
    ),
    sources=("https://arxiv.org/abs/2410.02713", "https://huggingface.co/lmms-lab/LLaVA-Video-7B-Qwen2"),
)
