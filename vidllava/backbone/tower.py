"""The vision tower, in chunks of bounded memory, up to the layer that is wanted and no further.

features = encode(hf, pixels, settings)      # uint8 [N, 3, S, S] -> [N * side * side, hidden]
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from vidllava.backbone.memory import CELLS_PER_CHUNK
from vidllava.errors import ModelError
from vidllava.media.pixels import normalise
from vidllava.visuals.planner import ModelSettings


def encode(
    hf: LlavaOnevisionForConditionalGeneration,
    pixels: torch.Tensor,
    settings: ModelSettings,
    *,
    pool_first: bool = False,
) -> torch.Tensor:
    """Projected features of frames and tiles: uint8 [N, 3, S, S] -> [N * cells, hidden], rows in order.

    ``pool_first`` leaves the projector's last layer out: it then follows the pooling.
    """
    tower, projector = vision_tower(hf), hf.model.multi_modal_projector
    weight = tower.embeddings.patch_embedding.weight
    if pixels.shape[0] == 0:
        return weight.new_empty(0, projector.linear_2.out_features)
    project = (lambda states: projector.act(projector.linear_1(states))) if pool_first else projector
    chunks = []
    for chunk in pixels.split(grids_per_chunk(settings)):
        values = normalise(chunk.to(weight.device), settings.image_mean, settings.image_std, weight.dtype)
        hidden = tower_states(tower, values, hf.config.vision_feature_layer)
        chunks.append(project(hidden).flatten(0, 1))
    return torch.cat(chunks)


def grids_per_chunk(settings: ModelSettings) -> int:
    """Frames and tiles that the tower reads at once. Whoever calls it chunk by chunk gets the same bits."""
    return max(1, CELLS_PER_CHUNK // settings.side**2)


def tower_states(tower: SiglipVisionModel, values: torch.Tensor, layer: int | list[int]) -> torch.Tensor:
    """Hidden states [N, cells, width] of ``layer`` (0 = embeddings, -1 = the last, before the norm).

    A list of layers is concatenated along the width. Layers above the highest one wanted are not run.
    """
    wanted = [layer] if isinstance(layer, int) else list(layer)
    blocks = tower.encoder.layers
    depths = [depth % (len(blocks) + 1) for depth in wanted]
    hidden = tower.embeddings(values)
    states = {0: hidden}
    for depth, block in enumerate(blocks[: max(depths)], start=1):
        hidden = block(hidden, None)
        if depth in depths:
            states[depth] = hidden
    return states[depths[0]] if len(depths) == 1 else torch.cat([states[depth] for depth in depths], dim=-1)


def freeze_unused(hf: LlavaOnevisionForConditionalGeneration) -> None:
    """Stop training what the features never pass through: the final norm, and blocks above the layer taken.

    They would never get a gradient, and a parameter without one makes distributed training wait for ever.
    """
    tower, layer = vision_tower(hf), hf.config.vision_feature_layer
    blocks = tower.encoder.layers
    depth = max(one % (len(blocks) + 1) for one in ([layer] if isinstance(layer, int) else layer))
    unused: list[nn.Module] = [tower.post_layernorm, *blocks[depth:]]
    if hasattr(tower, "head"):
        unused.append(tower.head)
    for module in unused:
        module.requires_grad_(False)


def vision_tower(hf: LlavaOnevisionForConditionalGeneration) -> SiglipVisionModel:
    """The model's tower. Raises ModelError unless it is SigLIP's with all cells used, as OneVision's is."""
    tower, strategy = hf.model.vision_tower, hf.config.vision_feature_select_strategy
    if not isinstance(tower, SiglipVisionModel):
        raise ModelError(type(tower).__name__, "is not a SigLIP vision tower", "OneVision's is SigLIP")
    if strategy != "full":
        raise ModelError("vision_feature_select_strategy", f"is {strategy!r}", "OneVision's is 'full'")
    return tower
