"""The operators outside of a traced graph: the same values and gradients, with less to pay for each call.

A `torch.library` operator costs tens of microseconds a call and as much again to record, more than rotating
one token. So here an `autograd.Function` records, or nothing does where nothing is to be recorded; in a graph
that is being traced the operators of `register.py` stand.
"""

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
