"""Linear-scaled RoPE through our kernels, fitted to one loaded language model.

transformers keeps the layers; two things change, on this model object alone (another model in the same
process is untouched):

- ``rotary_emb`` becomes ``ScaledRotary``: it hands out the tables that ``splice`` wrote, or computes those of
  a decode step, at a factor that may change from call to call;
- every attention becomes a ``KernelAttention``, which rotates q and k in one call of ``rotate``.

Positions stay integers: transformers reads any other step as the boundary of a packed sequence. The inverse
frequencies are divided instead, which is what ``{"rope_type": "linear", "factor": f}`` in a configuration
means. The factor is absolute: what a checkpoint stores is taken off, and is its least (``least_factor``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, eager_attention_forward

from vidllava.errors import ModelError
from vidllava.kernels import rotary_tables, rotate

Tables = tuple[torch.Tensor, torch.Tensor]


class ScaledRotary(nn.Module):
    """The rotary tables of one model. ``inv_freq`` [head_dim / 2] fp32 holds no factor; ``factor`` does."""

    inv_freq: torch.Tensor

    def __init__(self, inv_freq: torch.Tensor, attention_scaling: float, factor: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("inv_freq", inv_freq.float(), persistent=False)
        self.attention_scaling = float(attention_scaling)
        self.factor = float(factor)
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


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    position_embeddings: Tables,
    attention_mask: torch.Tensor | None,
    past_key_values: Cache | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As transformers': ``hidden_states`` [B, S, D] -> ([B, S, D], attention weights or None).

    One forward serves the three: they differ in biases, and in where a sliding window is written down.
    """
    batch_and_length = hidden_states.shape[:-1]
    heads = (*batch_and_length, -1, self.head_dim)
    q = self.q_proj(hidden_states).view(heads).transpose(1, 2)
    k = self.k_proj(hidden_states).view(heads).transpose(1, 2)
    v = self.v_proj(hidden_states).view(heads).transpose(1, 2)
    # Fresh projections that nobody else holds: where nothing is trained they need not be kept.
    q, k = rotate(q, k, *position_embeddings, may_overwrite=True)
    if past_key_values is not None:
        k, v = past_key_values.update(k, v, self.layer_idx)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
    output, weights = attend(
        self,
        q,
        k,
        v,
        attention_mask,
        dropout=self.attention_dropout if self.training else 0.0,
        scaling=self.scaling,
        sliding_window=_window(self),
        **kwargs,
    )
    return self.o_proj(output.reshape(*batch_and_length, -1).contiguous()), weights


def _window(attention: Any) -> int | None:
    if isinstance(attention, MistralAttention):
        return getattr(attention.config, "sliding_window", None)
    return getattr(attention, "sliding_window", None)


class RotatedQwen2(Qwen2Attention):
    """Qwen2's attention, q and k rotated by ``vidllava.kernels.rotate``; the same weights."""

    forward = _forward


class RotatedLlama(LlamaAttention):
    """Llama's (Vicuna, Yi), likewise."""

    forward = _forward  # type: ignore[assignment]  # theirs leaves the tables out where nobody does


class RotatedMistral(MistralAttention):
    """Mistral's, likewise."""

    forward = _forward


ROTATED: dict[type[nn.Module], type[nn.Module]] = {
    Qwen2Attention: RotatedQwen2,
    LlamaAttention: RotatedLlama,
    MistralAttention: RotatedMistral,
}
"""Attention classes whose q and k our kernel rotates. Others keep transformers' rotation, by our tables."""


def fit_kernels(language_model: Any) -> ScaledRotary:
    """Make ``language_model`` run through our kernels; returns its new rotary module.

    Raises ModelError for one without rotary tables of its own, or with some that a linear factor does not
    combine with.
    """
    old = getattr(language_model, "rotary_emb", None)
    name = type(language_model).__name__
    if old is None:
        raise ModelError(name, "has no rotary position tables", "Qwen2, Llama, Mistral and their like have")
    rope_type = getattr(old, "rope_type", "default")
    if rope_type not in ("default", "linear"):
        raise ModelError(name, f"rope_type {rope_type!r} cannot be scaled linearly", "default or linear")
    for layer in language_model.layers:
        # A change of class keeps weights, hooks, copies and pickles working, and touches this object alone.
        attention = layer.self_attn
        attention.__class__ = ROTATED.get(type(attention), type(attention))
    stored = stored_factor(language_model.config)
    inv_freq = (
        old.inv_freq if stored == 1 else unscaled_frequencies(language_model.config, old.inv_freq.device)
    )
    rotary = ScaledRotary(inv_freq, old.attention_scaling, stored)
    language_model.rotary_emb = cast(Any, rotary)
    return rotary


def stored_factor(config: Any) -> float:
    """The linear factor in a text configuration; 1 where there is none."""
    rope = config.rope_parameters or {}
    return float(rope.get("factor") or 1.0) if rope.get("rope_type") == "linear" else 1.0


def unscaled_frequencies(config: Any, device: torch.device) -> torch.Tensor:
    """Inverse frequencies [head_dim / 2] fp32 before any factor: theta ** -(2 i / head_dim).

    In transformers' own order of operations, which divides exactly these by the factor.
    """
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    steps = torch.arange(0, head, 2, dtype=torch.int64).to(device=device, dtype=torch.float)
    return 1.0 / (config.rope_parameters["rope_theta"] ** (steps / head))
