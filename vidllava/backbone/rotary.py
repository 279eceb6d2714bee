"""Linear-scaled RoPE through our kernels, fitted to one loaded language model.

transformers keeps the layers; two things change, on this model object alone (another model in the same
process is untouched):

- ``rotary_emb`` becomes ``ScaledRotary``: it hands out the tables that ``splice`` wrote, or computes those of
  a decode step, at a factor that may change from call to call;
- every attention becomes a ``KernelAttention``, which rotates q and k in one call of ``rotate``.

Positions stay integers: transformers reads any other step as the boundary of a packed sequence. The inverse
frequencies are divided instead, which is what ``{"rope_type": "linear", "factor": f}`` in a configuration
means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2Model, eager_attention_forward

from vidllava.errors import ModelError
from vidllava.kernels import rotary_tables, rotate

Tables = tuple[torch.Tensor, torch.Tensor]


class ScaledRotary(nn.Module):
    """The rotary tables of one model. ``inv_freq`` [head_dim / 2] fp32 holds the checkpoint's own factor."""

    inv_freq: torch.Tensor

    def __init__(self, inv_freq: torch.Tensor, attention_scaling: float) -> None:
        super().__init__()
        self.register_buffer("inv_freq", inv_freq.float(), persistent=False)
        self.attention_scaling = float(attention_scaling)
        self.factor = 1.0
        self._tables: Tables | None = None

    def forward(self, hidden: torch.Tensor, position_ids: torch.Tensor) -> Tables:
        """cos and sin, each [B, S, head_dim] in the dtype of ``hidden``, for ``position_ids`` [B, S]."""
        if self._tables is not None:
            return self._tables
        return rotary_tables(
            position_ids,
            self.inv_freq,
            factor=self.factor,
            attention_scaling=self.attention_scaling,
            dtype=hidden.dtype,
        )

    @contextmanager
    def using(self, factor: float, tables: Tables | None = None) -> Iterator[None]:
        """Run the model at ``factor``, and with ``tables`` where they are already written."""
        before = self.factor, self._tables
        self.factor, self._tables = float(factor), tables
        try:
            yield
        finally:
            self.factor, self._tables = before


class KernelAttention(Qwen2Attention):
    """Qwen2's attention with q and k rotated by ``vidllava.kernels.rotate``; the same weights."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Tables,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As Qwen2Attention: ``hidden_states`` [B, S, D] -> ([B, S, D], attention weights or None)."""
        batch_and_length = hidden_states.shape[:-1]
        heads = (*batch_and_length, -1, self.head_dim)
        q = self.q_proj(hidden_states).view(heads).transpose(1, 2)
        k = self.k_proj(hidden_states).view(heads).transpose(1, 2)
        v = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        # Fresh projections that nobody else holds: where nothing is trained they need not be kept.
        q, k = rotate(q, k, *position_embeddings, may_overwrite=True)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self,
            q,
            k,
            v,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return self.o_proj(output.reshape(*batch_and_length, -1).contiguous()), weights


def fit_kernels(language_model: nn.Module) -> ScaledRotary:
    """Make ``language_model`` (a Qwen2Model) run through our kernels; returns its new rotary module.

    Raises ModelError for another language model: its attention would have to be checked first.
    """
    if not isinstance(language_model, Qwen2Model):
        raise ModelError(
            type(language_model).__name__, "is not a Qwen2 language model", "OneVision's is Qwen2"
        )
    for layer in language_model.layers:
        # A change of class keeps weights, hooks, copies and pickles working, and touches this object alone.
        layer.self_attn.__class__ = KernelAttention
    old = language_model.rotary_emb
    rotary = ScaledRotary(old.inv_freq, old.attention_scaling)
    language_model.rotary_emb = cast(Any, rotary)
    return rotary
