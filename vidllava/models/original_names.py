"""Names of a checkpoint's tensors: lmms-lab's, transformers' in memory, and those that transformers 4 wrote.

*Stored* is lmms-lab's name (https://github.com/LLaVA-VL/LLaVA-NeXT, llava/model/llava_arch.py), *in memory*
is that of transformers 5 (5.17 to 5.23: neither tower has an inner ``vision_model``), *legacy* is what
transformers 4 wrote. The pairs are those of transformers' converters
(convert_llava_next_video_weights_to_hf.py and its like for OneVision and Interleave).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vidllava.errors import ModelError

LANGUAGE, TOWER, PROJECTOR = "model.language_model.", "model.vision_tower.", "model.multi_modal_projector."
NEWLINE, HEAD, POOL = "model.image_newline", "lm_head.weight", "model.vision_resampler.pool."
_PAIRS = (
    ("model.vision_tower.vision_tower.vision_model.", TOWER),
    ("model.mm_projector.0.", f"{PROJECTOR}linear_1."),
    ("model.mm_projector.2.", f"{PROJECTOR}linear_2."),
    ("model.embed_tokens.", f"{LANGUAGE}embed_tokens."),
    ("model.layers.", f"{LANGUAGE}layers."),
    ("model.norm.", f"{LANGUAGE}norm."),
)
_SAME = (NEWLINE, HEAD, f"{POOL}weight", f"{POOL}bias")
# Tables that are computed, and that old versions of the libraries stored.
_COMPUTED = ("rotary_emb.inv_freq", "embeddings.position_ids")

KEY_MAPPING: dict[str, str] = {"^" + re.escape(stored): here for stored, here in _PAIRS}
"""``from_pretrained(..., key_mapping=KEY_MAPPING)``: regular expressions, stored names to names in memory.

transformers remembers a mapping and turns it round: ``save_pretrained`` of an object that was loaded with it
writes lmms-lab's names.
"""


def hf_name(name: str) -> str | None:
    """The name in memory of a stored tensor; None for a table that is computed.

    These are ``inv_freq`` and ``position_ids``, which old versions stored. Raises ModelError
    for a name that lmms-lab's published checkpoints do not have.
    """
    if name.endswith(_COMPUTED):
        return None
    for stored, here in _PAIRS:
        if name.startswith(stored):
            return here + name.removeprefix(stored)
    if name in _SAME:
        return name
    raise ModelError(
        f"tensor {name}", "has no place in transformers' layout", "known are lmms-lab's own names"
    )


def original_name(name: str) -> str:
    """The name that lmms-lab stores for a tensor in memory. Raises ModelError for one that is unknown."""
    for stored, here in _PAIRS:
        if name.startswith(here):
            return stored + name.removeprefix(here)
    if name in _SAME:
        return name
    raise ModelError(
        f"tensor {name}", "has no place in lmms-lab's layout", "convert a model without additions"
    )


def legacy_name(name: str) -> str:
    """The name that transformers 4 wrote for a tensor in memory, and that readers of its files expect.

    Raises ModelError for a name that is unknown.
    """
    if name.startswith(LANGUAGE):
        return "language_model.model." + name.removeprefix(LANGUAGE)
    if name.startswith(TOWER):
        return "vision_tower.vision_model." + name.removeprefix(TOWER)
    if name == HEAD:
        return f"language_model.{name}"
    if name.startswith(PROJECTOR) or name in _SAME:
        return name.removeprefix("model.")
    raise ModelError(
        f"tensor {name}", "has no place in the layout of transformers 4", "leave out --legacy-keys"
    )


def unused(config: Mapping[str, Any]) -> frozenset[str]:
    """Stored tensors that the model does not use, given its configuration in transformers' layout.

    Interleave's files hold a newline vector; with merge type flat nothing reads it, and transformers' class
    has no place for it (its converter deletes it).
    """
    return frozenset({NEWLINE} if config.get("model_type") == "llava" else ())
