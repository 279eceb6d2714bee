"""The vision tower and what stands between it and the language model: features of frames and tiles.

    features = encode(hf, pixels, settings, at="projected")        # [N * cells, hidden]

CLIP and SigLIP. Layers above the one that is read are not run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from vidllava.backbone.memory import CELLS_PER_CHUNK
from vidllava.backbone.splice import FeaturesAt
from vidllava.errors import ModelError
from vidllava.media.pixels import normalise
from vidllava.visuals.planner import ModelSettings


def vision_tower(hf: Any) -> Any:
    """The model's tower. Raises ModelError unless it is CLIP's without, or SigLIP's with, all its rows."""
    tower, strategy = hf.model.vision_tower, hf.config.vision_feature_select_strategy
    if not isinstance(tower, CLIPVisionModel | SiglipVisionModel):
        raise ModelError(type(tower).__name__, "is no vision tower that is known here", "CLIP or SigLIP")
    wanted = "default" if isinstance(tower, CLIPVisionModel) else "full"
    if strategy != wanted:
        what = f"is {strategy!r}, and a {type(tower).__name__} is read as {wanted!r}"
        raise ModelError("vision_feature_select_strategy", what, "the checkpoint's own config.json")
    return tower


def encode(hf: Any, pixels: torch.Tensor, settings: ModelSettings, *, at: FeaturesAt) -> torch.Tensor:
    """Features of frames and tiles: uint8 [N, 3, S, S] -> [N * cells, width], rows in order.

    ``at``: of the tower, before the projector's last layer ("hidden"), or projected.
    """
    tower, projector = vision_tower(hf), hf.model.multi_modal_projector
    weight = tower.embeddings.patch_embedding.weight
    if pixels.shape[0] == 0:
        widths = {"tower": projector.linear_1.in_features}
        return weight.new_empty(0, widths.get(at, projector.linear_2.out_features))
    chunks = []
    for chunk in pixels.split(grids_per_chunk(settings)):
        values = normalise(chunk.to(weight.device), settings.image_mean, settings.image_std, weight.dtype)
        hidden = tower_states(tower, values, hf.config.vision_feature_layer)
        chunks.append(project_until(projector, hidden, at).flatten(0, 1))
    return torch.cat(chunks)


def project_until(projector: Any, states: torch.Tensor, at: FeaturesAt) -> torch.Tensor:
    """The tower's features as they are, before the projector's last layer, or projected."""
    if at == "tower":
        return states
    return projector(states) if at == "projected" else projector.act(projector.linear_1(states))


def project_rest(projector: Any, rows: torch.Tensor, at: FeaturesAt) -> torch.Tensor:
    """The projected rows, of rows that ``project_until`` left ``at`` some place."""
    return projector(rows) if at == "tower" else projector.linear_2(rows) if at == "hidden" else rows


def grids_per_chunk(settings: ModelSettings) -> int:
    """Frames and tiles that the tower reads at once. Whoever calls it chunk by chunk gets the same bits."""
    return max(1, CELLS_PER_CHUNK // settings.side**2)


def tower_states(tower: Any, values: torch.Tensor, layer: int | list[int]) -> torch.Tensor:
    """Hidden states [N, cells, width] of ``layer`` (0 = embeddings, -1 = the last, before the norm).

    A list of layers is concatenated along the width. A class token is dropped at the end.
    """
    blocks = tower.encoder.layers
    depths = [depth % (len(blocks) + 1) for depth in _listed(layer)]
    hidden = tower.embeddings(values)
    is_clip = isinstance(tower, CLIPVisionModel)
    if is_clip:
        hidden = tower.pre_layrnorm(hidden)  # transformers' spelling
    states = {0: hidden}
    for depth, block in enumerate(blocks[: max(depths)], start=1):
        hidden = block(hidden, None)
        if depth in depths:
            states[depth] = hidden
    read = states[depths[0]] if len(depths) == 1 else torch.cat([states[depth] for depth in depths], dim=-1)
    return read[:, 1:] if is_clip else read


def freeze_unused(hf: Any) -> None:
    """Stop training what the features never pass through: the final norm, and blocks above the layer taken.

    They would never get a gradient, and a parameter without one makes distributed training wait for ever.
    """
    tower = vision_tower(hf)
    blocks = tower.encoder.layers
    depth = max(one % (len(blocks) + 1) for one in _listed(hf.config.vision_feature_layer))
    unused: list[nn.Module] = [tower.post_layernorm, *blocks[depth:]]
    if hasattr(tower, "head"):
        unused.append(tower.head)
    for module in unused:
        module.requires_grad_(False)


def _listed(layer: int | list[int]) -> list[int]:
    return [layer] if isinstance(layer, int) else list(layer)
