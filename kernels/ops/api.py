"""What the backbone calls: `splice` once per batch, `rotate` once per layer. Legend as in `reference.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vidllava.kernels.dispatch import choose, implementation
from vidllava.kernels.plan import SplicePlan
from vidllava.kernels.register import rotate_op, row_gradients, splice_op, splice_save
from vidllava.kernels.work import Work


class _Splice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        embedding: Tensor,
        newline: Tensor,
        inv_freq: Tensor,
        work: Work,
        factor: float,
        attention_scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Saving here, not in a setup_context of its own, halves what a call costs.
        result = _splice(features, embedding, newline, inv_freq, work, factor, attention_scaling)
        ctx.work = work
        ctx.save_for_backward(*([features] if work.uses_max else []))
        splice_save(ctx, features, embedding, newline)
        ctx.mark_non_differentiable(*result[1:])
        # The tables' gradients would come as zeros to throw away.
        ctx.set_materialize_grads(False)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, *_tables: Tensor | None) -> tuple[Tensor | None, ...]:
        work: Work = ctx.work
        if grad_rows is None:
            return (None,) * 7
        wants_features, wants_embedding, wants_newline = ctx.needs_input_grad[:3]
        gradient = None
        if wants_features:
            backward = implementation("splice", grad_rows.device).splice_backward
            features = ctx.saved_tensors[0] if work.uses_max else None
            gradient = backward(grad_rows, features, work, ctx.num_features, ctx.feature_dtype)
        text = work.text.take(grad_rows) if wants_embedding else None
        newlines = work.newlines.take(grad_rows) if wants_newline else None
        return gradient, *row_gradients(ctx, text, work.ids, newlines), None, None, None, None


def _splice(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    inv_freq: Tensor,
    work: Work,
    factor: float,
    attention_scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    splice = implementation("splice", features.device).splice
    result: tuple[Tensor, Tensor, Tensor] = splice(
        features, embedding, newline, inv_freq, work, factor=factor, attention_scaling=attention_scaling
    )
    return result


def build_rows(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    inv_freq: Tensor,
    plan: SplicePlan,
    factor: float,
    attention_scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`splice_op` by the shortest way: itself in a traced graph, no more than needed outside of one."""
    tensors = (features, embedding, newline, inv_freq)
    if torch.compiler.is_compiling():
        counts = (plan.text.shape[0], plan.newlines.shape[0], plan.num_tile_cells, plan.uses_max)
        rows, cos, sin = splice_op(*tensors, list(plan.operands), *counts, factor, attention_scaling)
        return rows, cos, sin
    if plan.work.all_ids is not None and choose(features.device)[0] == "torch":
        embed = implementation("splice", features.device).embed
        result: tuple[Tensor, Tensor, Tensor] = embed(
            embedding, inv_freq, plan.work, factor=factor, attention_scaling=attention_scaling
        )
        return result
    records = torch.is_grad_enabled() and any(x.requires_grad for x in tensors[:3])
    function = _Splice.apply if records else _splice
    result = function(*tensors, plan.work, factor, attention_scaling)
    return result


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.inverse = inverse
        ctx.save_for_backward(cos, sin)
        return _rotate(q, k, cos, sin, inverse)

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
        # A rotation's transpose is the rotation back. Gradients may be anyone's: never overwritten.
        cos, sin = ctx.saved_tensors
        return *turn(grad_q, grad_k, cos, sin, not ctx.inverse), None, None, None


def _rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    rotate = implementation("rotate", q.device, q.numel()).rotate
    result: tuple[Tensor, Tensor] = rotate(q, k, cos, sin, inverse, overwrite)
    return result


def turn(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """`rotate_op` by the shortest way; `overwrite` is a permission, taken where no gradient can be harmed."""
    if torch.compiler.is_compiling():
        turned_q, turned_k = rotate_op(q, k, cos, sin, inverse)
        return turned_q, turned_k
    trains = q.requires_grad or k.requires_grad
    if trains and torch.is_grad_enabled():
        result: tuple[Tensor, Tensor] = _Rotate.apply(q, k, cos, sin, inverse)
        return result
    # An expanded dimension is one element seen many times: it must not be written many times.
    free = overwrite and not trains and 0 not in q.stride() and 0 not in k.stride()
    return _rotate(q, k, cos, sin, inverse, free)


def splice(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    plan: SplicePlan,
    inv_freq: Tensor,
    *,
    factor: float = 1.0,
    attention_scaling: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Build every row of the packed language input, and every row's rotary table, in one launch.

    features    [N, D]      projected visual features, one row per cell of the tower's grids
    embedding   [V, D]      the language model's token embeddings
    newline     [D]         the learned newline vector
    plan        SplicePlan  the source of each of the S rows, on the device of `features`
    inv_freq    fp32 [R/2]  inverse frequencies, not yet divided
    factor      linear RoPE scaling: the angle of a row is position * (inv_freq / factor)

    Returns rows [S, D], cos [S, R] and sin [S, R] in the embedding's dtype; maths in fp32, one rounding.
    Gradients: features, newline, and embedding if it requires them; deterministic with Triton and on the
    CPU. What no row reads gets zeros for a gradient, or none. Raises ValueError where the shapes do not fit
    the plan.
    """
    channels = embedding.shape[1]
    if features.shape[1:] != (channels,) or newline.shape != (channels,):
        raise ValueError(
            f"features {list(features.shape)} and newline {list(newline.shape)} do not fit embeddings of "
            f"{channels} channels"
        )
    if features.shape[0] < plan.num_feature_rows or embedding.shape[0] < plan.num_vocabulary:
        raise ValueError(
            f"the plan reads {plan.num_feature_rows} feature rows and {plan.num_vocabulary} embeddings, "
            f"given are {features.shape[0]} and {embedding.shape[0]}"
        )
    if plan.device != features.device:
        raise ValueError(f"the plan is on {plan.device}, the features are on {features.device}")
    return build_rows(features, embedding, newline, inv_freq, plan, factor, attention_scaling)


def rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, may_overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by their rows' tables, in one launch.

    q           [B, H, S, D]        any strides
    k           [B, Hkv, S, D]      any strides; any number of heads
    cos, sin    [B or 1, S, R]      as `splice` and `rotary_tables` make them: R <= D, both halves equal

    Channel i < R/2 is paired with channel i + R/2 (transformers' layout); channels from R on are copied.
    Maths in fp32, one rounding; the PyTorch path rounds low precision twice (transformers: three times).
    Gradients for q and k: the inverse rotation. Raises ValueError.

    Neither input is changed, unless `may_overwrite`: then the caller needs neither again, they share no
    element, and the results may lie in their memory, which saves allocating. It is a permission: an input
    that requires a gradient, or is expanded, is left as it is.
    """
    q_shape, k_shape, tables = q.shape, k.shape, cos.shape
    batch, _, length, channels = q_shape
    if k_shape[0] != batch or k_shape[2:] != q_shape[2:]:
        raise ValueError(f"k {list(k_shape)} does not fit q {list(q_shape)}: only the heads may differ")
    fits = len(tables) == 3 and sin.shape == tables and tables[0] in (1, batch) and tables[1] == length
    if not fits or tables[2] % 2 or not 0 < tables[2] <= channels:
        raise ValueError(
            f"cos {list(cos.shape)} and sin {list(sin.shape)} do not fit q {list(q_shape)}: expected "
            f"[{batch} or 1, {length}, even and at most {channels}]"
        )
    return turn(q, k, cos, sin, False, may_overwrite)
