"""PyTorch knows the operators: opcheck accepts them, and a compiled step keeps them in its graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.kernels.plans import CASES, Case, Visual, case
from tests.tiny import tiny_checkpoint
from vidllava.backbone.load import load_backbone
from vidllava.backbone.splice import PackedBatch
from vidllava.kernels import SplicePlan, rotary_tables, rotate, splice


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch.compiler.reset()


def splice_arguments(one: Case) -> tuple:
    plan = one.plan
    counts = (len(plan.text), len(plan.newlines), plan.num_tile_cells, plan.uses_max)
    return *one.inputs(torch.float32), list(plan.operands), *counts, 2.5, 1.0


def heads(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 5, n, 8, generator=generator).to(dtype).transpose(1, 2) for n in (4, 2))
    cos, sin = rotary_tables(
        torch.arange(5)[None], 1e4 ** -(torch.arange(3) / 3), factor=1.0, attention_scaling=1.0, dtype=dtype
    )
    return [q.requires_grad_(), k.requires_grad_(), cos, sin]


@pytest.mark.parametrize("name", CASES)
def test_opcheck_accepts_splice(name: str, device: str):
    torch.library.opcheck(torch.ops.vidllava.splice.default, splice_arguments(CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_opcheck_accepts_the_gradient_of_splice(name: str, device: str):
    one = CASES[name]
    features = one.inputs(torch.float32)[0].detach() if one.plan.uses_max else None
    sizes = (one.num_features, one.plan.num_tile_cells, torch.float32)
    arguments = (torch.ones(one.plan.num_rows, 5), features, list(one.plan.operands), *sizes)
    torch.library.opcheck(torch.ops.vidllava.splice_backward.default, arguments)


@pytest.mark.parametrize("name", CASES)
def test_the_way_outside_of_graphs_gives_what_the_operator_gives(name: str, device: str):
    one = CASES[name]
    inputs = one.inputs(torch.float32)
    rows, cos, sin = splice(*inputs[:3], one.plan, inputs[3], factor=2.5)
    theirs = torch.ops.vidllava.splice(*inputs, *splice_arguments(one)[4:])
    assert all(torch.equal(a, b) for a, b in zip((rows, cos, sin), theirs, strict=True))
    grad = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2))
    mine, other = (
        torch.autograd.grad(x, inputs[:3], grad, allow_unused=True, materialize_grads=True)
        for x in (rows, theirs[0])
    )
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_opcheck_accepts_rotate(inverse: bool, device: str):
    torch.library.opcheck(torch.ops.vidllava.rotate.default, (*heads(), inverse))


def step(plan: SplicePlan, features: Tensor, embedding: Tensor, newline: Tensor, inv_freq: Tensor) -> Tensor:
    """The operators as a model uses them: rows in, heads turned by their tables, one number out."""
    rows, cos, sin = splice(features, embedding, newline, plan, inv_freq, factor=2.0)
    q = torch.nn.functional.pad(rows, (0, 3)).view(1, 1, -1, 8)
    turned, same = rotate(q, q.sin(), cos[None], sin[None])
    return (turned * same).sum() + rows.square().sum()


@pytest.mark.parametrize("name", ["mixed-batch", "slow-and-fast"])
def test_a_compiled_step_is_one_graph_with_the_same_gradients(name: str):
    one = CASES[name]
    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        inputs = one.inputs(torch.float32)
        loss = function(one.plan, *inputs)
        results.append((loss, *torch.autograd.grad(loss, inputs[:3])))
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain)


def test_a_models_own_step_compiles_to_one_graph_with_the_same_gradients(tmp_path: Path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    folder = tiny_checkpoint(tmp_path / "tiny", **sizes, num_attention_heads=2, num_key_value_heads=1)
    backbone = load_backbone(str(folder), device="cpu").train()
    plan = case((3, Visual((5, 5), "bilinear", 2, count=2, newline="one"), 4)).plan
    batch = PackedBatch(
        pixels=torch.zeros(2, 3, 70, 70, dtype=torch.uint8),
        plan=plan,
        lengths=(plan.num_rows - 1,),
        length=plan.num_rows,
        label_rows=torch.tensor([20]),
        label_ids=torch.tensor([5]),
    )

    def model_step(features: Tensor) -> Tensor:
        return backbone.hidden_states(batch, rope_factor=2.0, features=features).square().mean()

    results = []
    for function in (model_step, torch.compile(model_step, fullgraph=True)):
        features = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = function(features)
        trained = [features, backbone.hf.model.image_newline]
        trained += [layer.self_attn.q_proj.weight for layer in backbone.hf.model.language_model.layers]
        results.append((loss, *torch.autograd.grad(loss, trained)))
    for plain, compiled in zip(*results, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_one_graph_serves_many_batches():
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(step, fullgraph=True, backend=count)
    for frames in (3, 5, 8, 13):
        one = case((4, Visual((5, 5), "bilinear", 2, count=frames, newline="end"), 3 * frames))
        compiled(one.plan, *one.inputs(torch.float32))
    # One for the first batch, one whose sizes are symbols, and no more.
    assert len(graphs) == 2


def test_rotate_keeps_no_copy_of_its_inputs():
    q, k, cos, sin = heads()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        rotate(q, k, cos, sin)
    assert {x.data_ptr() for x in saved} == {cos.data_ptr(), sin.data_ptr()}


@pytest.mark.parametrize("name", ["mixed-batch", "max-2"])
def test_splice_keeps_the_features_only_to_find_maxima_again(name: str):
    one = CASES[name]
    inputs = one.inputs(torch.float32)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        splice(*inputs[:3], one.plan, inputs[3])
    floating = [x for x in saved if x.is_floating_point()]
    assert [x.data_ptr() for x in floating] == ([inputs[0].data_ptr()] if one.plan.uses_max else [])
