"""The operators, known to PyTorch: with shapes for tracing, with gradients, on every device.

    torch.ops.vidllava.splice            forward: every row of the packed input, and its rotary tables
    torch.ops.vidllava.splice_backward   the features' gradient, gathered in a fixed order
    torch.ops.vidllava.rotate            q and k; its backward is itself, turned the other way

`torch.library.opcheck` accepts them and ``torch.compile(fullgraph=True)`` keeps them in the graph.
What they mean stands in `reference.py`; call them through `api.py`, which checks the shapes.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vidllava.kernels.dispatch import choose
from vidllava.kernels.plan import Operands


def implementation(operator: str, device: torch.device) -> ModuleType:
    """The module whose functions serve `operator` ("splice" or "rotate") on `device`."""
    return _load(operator, choose(device)[0])


@cache
def _load(operator: str, kernels: str) -> ModuleType:
    return importlib.import_module(f"vidllava.kernels.{operator}_{kernels}")


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
    """`operands` are a SplicePlan's; `num_tile_cells` and `uses_max` serve the backward pass."""
    splice = implementation("splice", features.device).splice
    return splice(
        features,
        embedding,
        newline,
        inv_freq,
        Operands(*operands),
        num_text=num_text,
        num_newlines=num_newlines,
        factor=factor,
        attention_scaling=attention_scaling,
    )


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
    backward = implementation("splice", grad_rows.device).splice_backward
    return backward(grad_rows, features, Operands(*operands), num_feature_rows, num_tile_cells, dtype)


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


def _splice_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, embedding, newline, _, operands, num_text, num_newlines, num_tile_cells, uses_max, _, _ = inputs
    ctx.save_for_backward(*operands, *([features] if uses_max else []))
    ctx.feature_shape, ctx.feature_dtype = features.shape, features.dtype
    ctx.num_vocabulary, ctx.embedding_dtype, ctx.newline_dtype = (
        embedding.shape[0],
        embedding.dtype,
        newline.dtype,
    )
    ctx.num_text, ctx.num_newlines, ctx.num_tile_cells = num_text, num_newlines, num_tile_cells
    ctx.mark_non_differentiable(*output[1:])


def _splice_gradients(ctx: Any, grad_rows: Tensor, *_tables: Tensor | None) -> tuple[Any, ...]:
    operands = list(ctx.saved_tensors[: len(Operands._fields)])
    features = ctx.saved_tensors[len(operands)] if len(ctx.saved_tensors) > len(operands) else None
    plain = Operands(*operands).plain
    wants_features, wants_embedding, wants_newline = ctx.needs_input_grad[:3]
    grads: list[Tensor | None] = [None, None, None]
    if wants_features:
        grads[0] = splice_backward_op(
            grad_rows, features, operands, ctx.feature_shape[0], ctx.num_tile_cells, ctx.feature_dtype
        )
    if wants_embedding:
        at, ids = plain[: ctx.num_text].unbind(1)
        # The gradient of a plain embedding layer, which adds without atomics on CUDA too.
        grads[1] = torch.ops.aten.embedding_dense_backward(
            grad_rows.index_select(0, at), ids, ctx.num_vocabulary, -1, False
        ).to(ctx.embedding_dtype)
    if wants_newline:
        at = plain[ctx.num_text : ctx.num_text + ctx.num_newlines, 0]
        wide = torch.promote_types(grad_rows.dtype, torch.float32)
        grads[2] = grad_rows.index_select(0, at).sum(0, dtype=wide).to(ctx.newline_dtype)
    return (*grads, None, [None] * len(operands), *[None] * 6)


splice_op.register_autograd(_splice_gradients, setup_context=_splice_save)


@torch.library.custom_op("vidllava::rotate", mutates_args=())
def rotate_op(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k turned by the tables' angle, or back by it where `inverse`."""
    result: tuple[Tensor, Tensor] = implementation("rotate", q.device).rotate(q, k, cos, sin, inverse)
    return result


@rotate_op.register_fake
def _rotate_shapes(q: Tensor, k: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k)


def _rotate_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin)


def _rotate_gradients(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
    cos, sin = ctx.saved_tensors
    # A rotation's transpose is the rotation back.
    return (*turn(grad_q, grad_k, cos, sin, not ctx.inverse), None, None, None)


rotate_op.register_autograd(_rotate_gradients, setup_context=_rotate_save)


class _Rotate(torch.autograd.Function):
    """The operator's recording without the operator, which costs as much again as rotating one token."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        # Saving here, not in a setup_context of its own, halves what a call costs.
        result: tuple[Tensor, Tensor] = implementation("rotate", inputs[0].device).rotate(*inputs)
        _rotate_save(ctx, inputs, result)
        return result

    backward = staticmethod(_rotate_gradients)


def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """`rotate_op` by the shortest way: itself in a traced graph, no more than needed outside of one."""
    if torch.compiler.is_compiling():
        turned_q, turned_k = rotate_op(q, k, cos, sin, inverse)
        return turned_q, turned_k
    records = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    function = _Rotate.apply if records else implementation("rotate", q.device).rotate
    result: tuple[Tensor, Tensor] = function(q, k, cos, sin, inverse)
    return result
