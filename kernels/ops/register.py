"""The operators, known to PyTorch: with shapes for tracing, with gradients, on every device.

    torch.ops.vidllava.splice            forward: every row of the packed input, and its rotary tables
    torch.ops.vidllava.splice_backward   the features' gradient, gathered in a fixed order
    torch.ops.vidllava.rotate            q and k; its backward is itself, turned the other way

`torch.library.opcheck` accepts them and ``torch.compile(fullgraph=True)`` keeps them in the graph. Outside of
a graph `record.py` records the same gradients by a shorter way. What they mean stands in `reference.py`; call
them through `api.py`, which checks the shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidllava.kernels.dispatch import implementation
from vidllava.kernels.work import Operands, Work


@torch.library.custom_op("vidllava::splice", mutates_args=())
def splice_op(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    inv_freq: Tensor,
    operands: list[Tensor],
    num_text: int,
    num_newlines: int,
    num_tile_cells: int,
    uses_max: bool,
    factor: float,
    attention_scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`operands`, and the counts after them, are a SplicePlan's `work`."""
    work = Work(Operands(*operands), num_text, num_newlines, num_tile_cells, uses_max)
    splice = implementation("splice", features.device).splice
    result: tuple[Tensor, Tensor, Tensor] = splice(
        features, embedding, newline, inv_freq, work, factor=factor, attention_scaling=attention_scaling
    )
    return result


@splice_op.register_fake
def _splice_shapes(
    features: Tensor, embedding: Tensor, newline: Tensor, inv_freq: Tensor, operands: list[Tensor], *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    num_rows = Operands(*operands).table_positions.shape[0]
    tables = [embedding.new_empty(num_rows, 2 * inv_freq.shape[0]) for _ in range(2)]
    return embedding.new_empty(num_rows, embedding.shape[1]), tables[0], tables[1]


@torch.library.custom_op("vidllava::splice_backward", mutates_args=())
def splice_backward_op(
    grad_rows: Tensor,
    features: Tensor | None,
    operands: list[Tensor],
    num_feature_rows: int,
    num_tile_cells: int,
    dtype: torch.dtype,
) -> Tensor:
    """The features' gradient, `dtype` [num_feature_rows, D]. `features` is needed for mode max only."""
    work = Work(Operands(*operands), 0, 0, num_tile_cells, features is not None)
    backward = implementation("splice", grad_rows.device).splice_backward
    gradient: Tensor = backward(grad_rows, features, work, num_feature_rows, dtype)
    return gradient


@splice_backward_op.register_fake
def _splice_backward_shapes(
    grad_rows: Tensor,
    features: Tensor | None,
    operands: list[Tensor],
    num_feature_rows: int,
    num_tile_cells: int,
    dtype: torch.dtype,
) -> Tensor:
    return grad_rows.new_empty(num_feature_rows, grad_rows.shape[1], dtype=dtype)


def splice_save(ctx: Any, features: Tensor, embedding: Tensor, newline: Tensor) -> None:
    """Keep what `row_gradients` and the features' gradient need beside the plan's integers."""
    ctx.num_features, ctx.feature_dtype = features.shape[0], features.dtype
    ctx.num_vocabulary, ctx.embedding_dtype = embedding.shape[0], embedding.dtype
    ctx.newline_dtype = newline.dtype


def row_gradients(
    ctx: Any, text: Tensor | None, ids: Tensor, newlines: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the embedding and of the newline vector, from those of their rows; None for None."""
    embedding = newline = None
    if text is not None:
        # The gradient of a plain embedding layer, which adds without atomics on CUDA too.
        embedding = torch.ops.aten.embedding_dense_backward(text, ids, ctx.num_vocabulary, -1, False)
        embedding = embedding.to(ctx.embedding_dtype)
    if newlines is not None:
        wide = torch.promote_types(newlines.dtype, torch.float32)
        newline = newlines.sum(0, dtype=wide).to(ctx.newline_dtype)
    return embedding, newline


def _splice_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, embedding, newline, _, operands, ctx.num_text, ctx.num_newlines, *counts = inputs
    ctx.num_tile_cells, uses_max = counts[:2]
    ctx.save_for_backward(*operands, *([features] if uses_max else []))
    splice_save(ctx, features, embedding, newline)
    ctx.mark_non_differentiable(*output[1:])


def _splice_gradients(ctx: Any, grad_rows: Tensor, *_tables: Tensor | None) -> tuple[Any, ...]:
    operands = list(ctx.saved_tensors[: len(Operands._fields)])
    features = ctx.saved_tensors[len(operands)] if len(ctx.saved_tensors) > len(operands) else None
    wants_features, wants_embedding, wants_newline = ctx.needs_input_grad[:3]
    gradient = text = newlines = None
    if wants_features:
        gradient = splice_backward_op(
            grad_rows, features, operands, ctx.num_features, ctx.num_tile_cells, ctx.feature_dtype
        )
    at, source = Operands(*operands).plain.unbind(1)
    if wants_embedding:
        text = grad_rows.index_select(0, at[: ctx.num_text])
    if wants_newline:
        newlines = grad_rows.index_select(0, at[ctx.num_text : ctx.num_text + ctx.num_newlines])
    grads = (gradient, *row_gradients(ctx, text, source[: ctx.num_text], newlines))
    return (*grads, None, [None] * len(operands), *[None] * 6)


splice_op.register_autograd(_splice_gradients, setup_context=_splice_setup)


@torch.library.custom_op("vidllava::rotate", mutates_args=())
def rotate_op(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k turned by the tables' angle, or back by it where `inverse`."""
    rotate = implementation("rotate", q.device).rotate
    result: tuple[Tensor, Tensor] = rotate(q, k, cos, sin, inverse, apart=True)
    return result


@rotate_op.register_fake
def _rotate_shapes(q: Tensor, k: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k)


def _rotate_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin)


def _rotate_gradients(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
    # A rotation's transpose is the rotation back.
    return (*rotate_op(grad_q, grad_k, *ctx.saved_tensors, not ctx.inverse), None, None, None)


rotate_op.register_autograd(_rotate_gradients, setup_context=_rotate_setup)
