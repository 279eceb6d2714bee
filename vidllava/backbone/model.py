"""The shared OneVision model: transformers' weights and layers, our pooling, placement, RoPE and chunks.

    backbone = load_backbone("nano")
    output = backbone(batch)                 # .loss over the labels, head computed only there
    logits = backbone.next_token_logits(batch)

What transformers' own class cannot do and this one does: any pool stride, mode and newline rule, visuals of
different kinds and frame counts in one batch, the tower in bounded chunks, a RoPE factor per call, and the
two kernels. What it saves loads with plain ``from_pretrained``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.cache_utils import Cache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from vidllava.backbone.familiarity import World
from vidllava.backbone.folders import ADAPTER_MODEL_CONFIG, part_of
from vidllava.backbone.memory import CELLS_PER_CHUNK
from vidllava.backbone.rotary import fit_kernels
from vidllava.backbone.settings import OWN_FILE, Tuning, write_grids, write_own_file
from vidllava.backbone.splice import PackedBatch, PackedRows
from vidllava.backbone.tokens import TextCodec
from vidllava.errors import ModelError
from vidllava.kernels import SplicePlan, splice
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


# Copied beside saved weights: what transformers and `vidllava ask` need besides weights and config.
COMPANION_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


@dataclass(frozen=True, eq=False)
class ForwardOutput:
    """loss: fp32 scalar, mean over the L labels of the batch; logits: [L, vocabulary] at those labels;
    label_losses: fp32 [L], without gradient."""

    loss: torch.Tensor
    logits: torch.Tensor
    num_labels: int
    label_losses: torch.Tensor


class SavedApart(Protocol):
    """Weights that were added to a model and are saved without it: an ``adapter.Adapter``."""

    def save(self, hf: nn.Module, folder: Path) -> None:
        """Write them, and what else of ``hf`` learns, into ``folder``."""


class Backbone(nn.Module):
    """One loaded model. ``hf`` is transformers' object; its parameters are this module's only ones."""

    def __init__(
        self, hf: LlavaOnevisionForConditionalGeneration, settings: ModelSettings, codec: TextCodec
    ) -> None:
        super().__init__()
        freeze_unused(hf)
        self.hf = hf
        self.settings = settings
        self.codec = codec
        self.rotary = fit_kernels(hf.model.language_model)
        self.rope_factor = 1.0
        """The factor of ``forward`` (training); inference calls name their own."""
        self.pool_first = False
        """Pool before the projector's last layer (``pool_first``); batches must be collated alike."""
        self.world: World | None = None
        """Statistics of the media that these very weights were trained on, where the checkpoint has some."""
        self.asked_by_name = True
        """Otherwise media outside ``world`` are refused."""
        self.adapter: SavedApart | None = None
        """LoRA additions that are not merged: then ``save`` writes them and not the model."""

    @property
    def device(self) -> torch.device:
        """Where the embeddings lie."""
        return self._embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        return self._embedding.dtype

    @property
    def _embedding(self) -> torch.Tensor:
        return cast(nn.Embedding, self.hf.get_input_embeddings()).weight

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, S, S] -> features [N * side * side, hidden], chunk by chunk: projected ones, or with
        ``pool_first`` those before the projector's last layer."""
        return encode(self.hf, pixels, self.settings, pool_first=self.pool_first)

    def frame_features(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N * side * side, hidden] as ``encode`` gives them -> float32 [N, D]: the mean of the
        projected cells of each frame or tile."""
        frames = features.unflatten(0, (-1, self.settings.side**2)).float().mean(dim=1)
        if self.pool_first:  # the mean over cells and a linear layer may change places
            last = self.hf.model.multi_modal_projector.linear_2
            frames = last(frames.to(last.weight.dtype)).float()
        return frames

    def hidden_states(
        self,
        batch: PackedRows,
        *,
        rope_factor: float,
        features: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """The language model's last hidden states, [B, S, hidden].

        ``features`` [N * side * side, hidden] skips the tower; ``cache`` is filled.
        """
        if features is None:
            features = self._features(batch)
        features = self._pooled(features, batch.pooling)
        newline = self.hf.model.image_newline
        rows, cos, sin = splice(
            features,
            self._embedding,
            newline,
            batch.plan,
            self.rotary.inv_freq,
            factor=rope_factor,
            attention_scaling=self.rotary.attention_scaling,
        )
        if self.training and (_has_no_pixels(batch) or batch.plan.newlines.numel() == 0):
            # Every rank must give every trained parameter a gradient in every step, or DDP waits for ever.
            # The sum of nothing is 0 whatever the values are; 0 times an Inf or NaN would be NaN.
            rows = rows + features[:0].sum() + newline[:0].sum()
        shape = (len(batch.lengths), batch.length, -1)
        tables = cos.view(shape), sin.view(shape)
        with self.rotary.using(rope_factor, tables):
            return self._language_model(rows.view(shape), cache=cache)

    def _features(self, batch: PackedRows) -> torch.Tensor:
        if not isinstance(batch, PackedBatch):
            raise ValueError("a batch without pixels needs the features of its visuals")
        pixels = batch.pixels
        if pixels.shape[0] == 0 and self.training:
            size = self.settings.image_size
            pixels = pixels.new_zeros(1, 3, size, size)
        return self.encode(pixels)

    def _pooled(self, features: torch.Tensor, pooling: SplicePlan | None) -> torch.Tensor:
        """With ``pool_first``, the projected rows of all visuals in order; else the features as they are."""
        if not self.pool_first:
            if pooling is not None:
                raise ValueError("the batch was collated with pool_first, the backbone runs without")
            return features
        if pooling is None and features.shape[0] and not self.training:
            raise ValueError("the backbone runs with pool_first, the batch was collated without")
        if pooling is not None:
            no_gradient = self._embedding.detach(), self.hf.model.image_newline.detach()
            features = splice(features, *no_gradient, pooling, self.rotary.inv_freq)[0]
        return self.hf.model.multi_modal_projector.linear_2(features)

    def _language_model(self, rows: torch.Tensor, **options: Any) -> torch.Tensor:
        cache = options.pop("cache", None)
        output = self.hf.model.language_model(
            inputs_embeds=rows, past_key_values=cache, use_cache=cache is not None, **options
        )
        return output.last_hidden_state

    def forward(self, batch: PackedBatch) -> ForwardOutput:
        """One training step's loss. The head is computed only on rows that predict a label: exact, and most
        of a video sample's rows predict none."""
        hidden = self.hidden_states(batch, rope_factor=self.rope_factor)
        logits = self.hf.lm_head(hidden.flatten(0, 1)[batch.label_rows])
        num_labels = batch.label_ids.numel()
        losses = F.cross_entropy(logits.float(), batch.label_ids, reduction="none")
        loss = losses.sum() / max(num_labels, 1)
        return ForwardOutput(loss, logits, num_labels, losses.detach())

    def all_logits(self, batch: PackedBatch, *, rope_factor: float = 1.0) -> torch.Tensor:
        """[B, S, vocabulary]: every position, for parity tests and scoring; costly on long prompts."""
        return self.hf.lm_head(self.hidden_states(batch, rope_factor=rope_factor))

    def next_token_logits(
        self,
        batch: PackedRows,
        *,
        rope_factor: float = 1.0,
        features: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """[B, vocabulary]: after each sample's last real row, where alone the head is computed."""
        hidden = self.hidden_states(batch, rope_factor=rope_factor, features=features, cache=cache)
        last = torch.tensor(batch.lengths, device=hidden.device) - 1
        return self.hf.lm_head(hidden[torch.arange(len(last), device=hidden.device), last])

    def step_logits(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        *,
        rope_factor: float,
        cache: Cache,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, vocabulary] after S more tokens each: ``tokens`` and ``position_ids`` int64 [B, S]."""
        rows = F.embedding(tokens, self._embedding)
        with self.rotary.using(rope_factor):
            hidden = self._language_model(
                rows, cache=cache, position_ids=position_ids, attention_mask=attention_mask
            )
        return self.hf.lm_head(hidden[:, -1])

    def tune(self, tuning: Tuning) -> None:
        """Read clips, pictures and positions differently from now on, and say so wherever this is saved."""
        self.settings = tuning.applied(self.settings)
        if tuning.pinpoints:
            self.hf.config.image_grid_pinpoints = [list(pair) for pair in tuning.pinpoints]
        if tuning.max_tiles is not None:
            self.hf.config.vision_aspect_ratio = f"anyres_max_{tuning.max_tiles}"
        if tuning.rope_factor == 1:
            return
        text = self.hf.model.language_model.config
        rope = dict(text.rope_parameters)
        own = float(rope.get("factor", 1.0)) if rope.get("rope_type") == "linear" else 1.0
        # transformers takes theta from here, and silently 10000 where it is not repeated.
        scaled = {"rope_type": "linear", "factor": own * tuning.rope_factor, "rope_theta": rope["rope_theta"]}
        text.rope_parameters = cast(Any, self.hf.config.text_config).rope_parameters = scaled
        # As transformers will compute it on loading, so that a resumed run has the very same bits.
        inv_freq, _ = ROPE_INIT_FUNCTIONS["linear"](text, self.device)
        self.rotary.inv_freq = inv_freq.float()

    def checkpoint_activations(self) -> None:
        """Compute each layer again in the backward pass instead of keeping what it made (training)."""
        again = partial(checkpoint, use_reentrant=False)
        for layer in self._layers:
            layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, again

    def compile_layers(self, **options: Any) -> None:
        """Compile every layer in place, one program for all of a kind; names of weights do not change."""
        for layer in self._layers:
            layer.compile(dynamic=True, **options)

    @property
    def _layers(self) -> list[Any]:
        """The repeated layers: nearly all of the work."""
        return [*vision_tower(self.hf).encoder.layers, *self.hf.model.language_model.layers]

    def save(self, folder: Path) -> None:
        """Write a checkpoint that plain ``from_pretrained`` loads, and that remembers its preset; of a model
        with an adapter only the adapter, for the model that it was added to."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.adapter is None:
            self.hf.save_pretrained(folder)
        else:
            self.hf.config.to_json_file(folder / ADAPTER_MODEL_CONFIG)
            self.adapter.save(self.hf, folder)
        source = self.settings.folder
        for name in COMPANION_FILES:
            companion = None if source is None else part_of(source, name)
            if companion is not None and companion.is_file() and source != folder:
                shutil.copyfile(companion, folder / name)
        if self.settings.pinpoints:
            write_grids(folder, self.settings.pinpoints)
        write_own_file(folder, self.settings.preset)
        for weights in folder.glob("*.safetensors"):
            shutil.copymode(folder / OWN_FILE, weights)  # safetensors writes for the owner alone


def _has_no_pixels(batch: PackedRows) -> bool:
    return isinstance(batch, PackedBatch) and batch.pixels.shape[0] == 0
