"""The same work by transformers' own functions: what the kernels are compared with, and what surrounds them.

Nothing here is written anew: `apply_pooling`, `get_placeholder_mask`, `masked_scatter`, the rotary module and
`apply_rotary_pos_emb` are called as `LlavaOnevisionModel.forward` and `Qwen2Attention.forward` call them
(transformers 5.17 to 5.23, models/llava_onevision and models/qwen2).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, Qwen2Config, Qwen2Model, SiglipVisionConfig, SiglipVisionModel
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionModel,
    LlavaOnevisionMultiModalProjector,
)
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding, apply_rotary_pos_emb

from vidllava.backbone.rotary import fit_kernels
from vidllava.bench.paths import FACTOR, Constants, Path
from vidllava.bench.shapes import TEXT_BEFORE, VOCABULARY_ROWS, Case, ModelSizes

VIDEO_ID, IMAGE_ID = 3, 4


def why_not(case: Case) -> str | None:
    """What of a case transformers' own path cannot do; None if it can."""
    if case.kernel == "rotate":
        return None if case.rotated == case.head_size else "Qwen2's rotation has no partial form"
    if (case.pool_mode, case.pool_stride) != ("bilinear", 2):
        return "apply_pooling knows bilinear, stride 2, alone"
    if case.newline_mode != "one_token":
        return "get_video_features puts one newline at a clip's end, no other"
    return None


def transformers_path(case: Case, constants: Constants) -> Path:
    """The path of a case that `why_not` lets pass."""
    if case.kernel == "rotate":
        return lambda leaves: apply_rotary_pos_emb(leaves[0], leaves[1], constants.cos, constants.sin)
    return _splice_path(case, constants)


def _splice_path(case: Case, constants: Constants) -> Path:
    size = 14 * case.side
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": size, "patch_size": 14},
        text_config={"model_type": "qwen2"},
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
    )
    # As much of a model as these methods read; their class would allocate a whole one.
    stand_in = cast(Any, SimpleNamespace(config=config, get_input_embeddings=lambda: constants.embedding))
    assert case.num_frames is not None
    device, text = constants.embedding.device, list(constants.text_ids)
    ids = [*text[:TEXT_BEFORE], *[VIDEO_ID] * case.layout.num_tokens, *text[TEXT_BEFORE:]]
    input_ids = cast(torch.LongTensor, torch.tensor([ids] * case.batch_size, device=device))
    position_ids = torch.arange(case.length, device=device)[None]
    rotary = _rotary(case).to(device)
    frames, batch = case.batch_size * case.num_frames, case.batch_size

    def run(leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features, newline = leaves
        embeds = F.embedding(input_ids, constants.embedding)
        # get_video_features, from its projector on
        pooled = LlavaOnevisionModel.apply_pooling(stand_in, features.view(frames, -1, features.shape[-1]))
        pooled = pooled.reshape(batch, -1, pooled.shape[-1])
        pooled = torch.cat((pooled, newline[None, None, :].repeat(batch, 1, 1)), dim=1)
        # forward, up to the language model
        pooled = pooled.flatten(0, 1).to(embeds.device, embeds.dtype)
        _, mask = LlavaOnevisionModel.get_placeholder_mask(
            stand_in, input_ids, inputs_embeds=embeds, video_features=pooled
        )
        rows = embeds.masked_scatter(mask, pooled)
        cos, sin = rotary(rows, position_ids)
        return rows.flatten(0, 1), cos, sin

    return run


def _rotary(case: Case) -> nn.Module:
    return Qwen2RotaryEmbedding(
        Qwen2Config(
            hidden_size=case.head_size,
            num_attention_heads=1,
            num_key_value_heads=1,
            vocab_size=VOCABULARY_ROWS,
            rope_parameters={"rope_type": "linear", "factor": FACTOR, "rope_theta": case.rope_theta},
        )
    )


def language_model(sizes: ModelSizes, num_layers: int) -> Qwen2Model:
    """Random layers of the model's sizes, run by our rotation as in the backbone."""
    model = Qwen2Model(
        Qwen2Config(
            hidden_size=sizes.width,
            intermediate_size=sizes.mlp,
            num_hidden_layers=num_layers,
            num_attention_heads=sizes.q_heads,
            num_key_value_heads=sizes.k_heads,
            vocab_size=8,
            rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        )
    )
    model.set_attn_implementation("sdpa")
    fit_kernels(model)
    return model


def vision_tower(sizes: ModelSizes, num_layers: int) -> SiglipVisionModel:
    """Random layers of the tower's sizes."""
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=sizes.tower_width,
            intermediate_size=sizes.tower_mlp,
            num_hidden_layers=num_layers,
            num_attention_heads=sizes.tower_heads,
            image_size=sizes.image_size,
            patch_size=sizes.image_size // sizes.side,
            vision_use_head=False,
        )
    )
    tower.set_attn_implementation("sdpa")
    return tower


def projector(sizes: ModelSizes) -> nn.Module:
    """The two linear layers between them."""
    return LlavaOnevisionMultiModalProjector(
        LlavaOnevisionConfig(
            vision_config={"model_type": "siglip_vision_model", "hidden_size": sizes.tower_width},
            text_config={"model_type": "qwen2", "hidden_size": sizes.width},
        )
    )
