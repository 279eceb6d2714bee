"""One loaded model of any family: transformers' weights and layers, our pooling, placement, RoPE and chunks.

    backbone = load_backbone("nano")
    output = backbone(batch)                 # .loss over the labels, head computed only there
    logits = backbone.next_token_logits(batch)

What transformers' own classes cannot do and this one does: any pool stride, mode and newline rule, visuals of
different kinds and frame counts in one batch, the tower in bounded chunks, a RoPE factor per call, and the
two kernels. What it saves loads with plain ``from_pretrained``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache

from vidllava.backbone.completion import complete_processor, complete_tokenizer
from vidllava.backbone.familiarity import World
from vidllava.backbone.folders import ADAPTER_MODEL_CONFIG, part_of
from vidllava.backbone.rotary import fit_kernels
from vidllava.backbone.settings import OWN_FILE, Tuning, stored_config, write_grids, write_own_file
from vidllava.backbone.splice import FeaturesAt, PackedBatch, PackedRows, features_at, grids_of, rows_of
from vidllava.backbone.tokenizer_model import tokenizer_json
from vidllava.backbone.tokens import TextCodec
from vidllava.backbone.tower import encode, freeze_unused, project_rest, vision_tower
from vidllava.kernels import BLOCK_FIELDS, splice
from vidllava.prompting.layout import VisualLayout
from vidllava.visuals.planner import ModelSettings

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

    def __init__(self, hf: Any, settings: ModelSettings, codec: TextCodec) -> None:
        super().__init__()
        freeze_unused(hf)
        self.hf = hf
        self.settings = settings
        self.codec = codec
        self.rotary = fit_kernels(hf.model.language_model)
        self.rope_factor = self.rotary.factor
        """The factor of ``forward`` (training): what the weights store; inference calls name their own."""
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

    def pools_at(self, layout: VisualLayout) -> FeaturesAt:
        """Where the features of one visual are taken."""
        return features_at([layout], pool_first=self.pool_first)

    def encode(self, pixels: torch.Tensor, *, at: FeaturesAt | None = None) -> torch.Tensor:
        """uint8 [N, 3, S, S] -> features [N * side * side, width], chunk by chunk, taken ``at`` some place;
        by default projected, or with ``pool_first`` before the projector's last layer."""
        return encode(self.hf, pixels, self.settings, at=at or features_at([], pool_first=self.pool_first))

    def frame_features(self, features: torch.Tensor, at: FeaturesAt | None = None) -> torch.Tensor:
        """Features [N * side * side, width] that were taken ``at`` some place -> float32 [N, D]: the mean of
        the projected cells of each frame or tile."""
        cells, at = self.settings.side**2, at or features_at([], pool_first=self.pool_first)
        if at == "tower":
            features = project_rest(self._projector, features, at)
        frames = features.unflatten(0, (-1, cells)).float().mean(dim=1)
        if at == "hidden":  # the mean over cells and a linear layer may change places
            last = self._projector.linear_2
            frames = last(frames.to(last.weight.dtype)).float()
        return frames

    @property
    def _projector(self) -> Any:
        return self.hf.model.multi_modal_projector

    @property
    def _newline(self) -> torch.Tensor:
        """[hidden]: the learned vector; zeros, which no plan reads, where a family has none."""
        newline = getattr(self.hf.model, "image_newline", None)
        return self._embedding.new_zeros(self._embedding.shape[1]) if newline is None else newline

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
        features = self._pooled(features, batch)
        newline = self._newline
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
        if self.training and self._convolution is not None and batch.convolved is None:
            rows = rows + sum(parameter.flatten()[:0].sum() for parameter in self._convolution.parameters())
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
        return self.encode(pixels, at=batch.at)

    def _pooled(self, features: torch.Tensor, batch: PackedRows) -> torch.Tensor:
        """The projected rows of all visuals in order; projected features stay as they are."""
        if batch.at == "projected" and self.pool_first and features.shape[0] and not self.training:
            raise ValueError("the backbone runs with pool_first, the batch was collated without")
        if batch.at == "hidden" and not self.pool_first:
            raise ValueError("the batch was collated with pool_first, the backbone runs without")
        if batch.pooling is not None:
            nothing = features.new_zeros(1, features.shape[1])  # no text and no newline is placed here
            pooled = splice(features, nothing, nothing[0], batch.pooling, self.rotary.inv_freq)[0]
            features = (
                pooled if batch.convolved is None else self._convolve(features, pooled, batch.convolved)
            )
        return project_rest(self._projector, features, batch.at)

    @property
    def _convolution(self) -> nn.Conv2d | None:
        """The learned pooling of a checkpoint whose ``spatial_pool_mode`` is ``conv``."""
        pool = getattr(getattr(self.hf.model, "vision_resampler", None), "pool", None)
        return pool if isinstance(pool, nn.Conv2d) else None

    def _convolve(self, features: torch.Tensor, pooled: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """``pooled`` [rows, width] with the rows of ``blocks`` convolved from ``features`` [cells, width]."""
        convolution = self._convolution
        assert convolution is not None  # the planner refuses the mode otherwise
        side = int(blocks[0, BLOCK_FIELDS.index("tile_h")])
        grids = features[grids_of(blocks)].unflatten(1, (side, -1))
        values = rearrange(convolution(rearrange(grids, "n y x d -> n d y x")), "n d y x -> (n y x) d")
        return pooled.index_copy(0, rows_of(blocks).long(), values.to(pooled.dtype))

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

    def all_logits(self, batch: PackedBatch, *, rope_factor: float | None = None) -> torch.Tensor:
        """[B, S, vocabulary]: every position, for parity tests and scoring; costly on long prompts."""
        factor = self.rope_factor if rope_factor is None else rope_factor
        return self.hf.lm_head(self.hidden_states(batch, rope_factor=factor))

    def next_token_logits(
        self,
        batch: PackedRows,
        *,
        rope_factor: float | None = None,
        features: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """[B, vocabulary]: after each sample's last real row, where alone the head is computed."""
        factor = self.rope_factor if rope_factor is None else rope_factor
        hidden = self.hidden_states(batch, rope_factor=factor, features=features, cache=cache)
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
            if hasattr(self.hf.config, "vision_aspect_ratio"):
                self.hf.config.vision_aspect_ratio = f"anyres_max_{tuning.max_tiles}"
            else:  # a class that knows no cap: our own file says it
                preset = replace(self.settings.preset, max_tiles=tuning.max_tiles)
                self.settings = replace(self.settings, preset=preset)
        if tuning.rope_factor in (None, self.rotary.factor):
            return
        text = self.hf.model.language_model.config
        theta = text.rope_parameters["rope_theta"]
        # transformers takes theta from here, and silently 10000 where it is not repeated.
        scaled = {"rope_type": "linear", "factor": float(tuning.rope_factor), "rope_theta": theta}
        text.rope_parameters = self.hf.config.text_config.rope_parameters = scaled
        self.rope_factor = self.rotary.factor = float(tuning.rope_factor)

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
    def wrap_classes(self) -> tuple[str, ...]:
        """Names of the classes of the repeated layers: what sharded training wraps one by one.

        transformers' own lists name classes that are not in these models.
        """
        return tuple(dict.fromkeys(type(layer).__name__ for layer in self._layers))

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
            companion = None if source is None else _companion(source, name)
            if companion is not None and companion.is_file() and source != folder:
                shutil.copyfile(companion, folder / name)
        complete_tokenizer(folder, self.hf.config, self.settings.template)
        if source is not None and stored_config(source) is not None:
            complete_processor(folder, self.hf.config.to_dict())
        if self.settings.pinpoints:
            write_grids(folder, self.settings.pinpoints)
        write_own_file(folder, self.settings.preset, self.hf.config.to_dict())
        for weights in folder.glob("*.safetensors"):
            shutil.copymode(folder / OWN_FILE, weights)  # safetensors writes for the owner alone


def _companion(source: Path, name: str) -> Path:
    return tokenizer_json(source) if name == "tokenizer.json" else part_of(source, name)


def _has_no_pixels(batch: PackedRows) -> bool:
    return isinstance(batch, PackedBatch) and batch.pixels.shape[0] == 0
