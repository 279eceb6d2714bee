"""What transformers computes for OneVision, splice and rotate compute."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.kernels.plans import Visual, case
from vidllava.kernels import rotary_tables, rotate, splice

SIDE, TILE, CHANNELS = 27, 378, 6


def model_class() -> type:
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    return LlavaOnevisionModel


def stand_in(pinpoints: list[list[int]]) -> SimpleNamespace:
    """As much of a model as its pooling and packing read."""
    vision = SimpleNamespace(image_size=TILE, patch_size=TILE // SIDE)
    return SimpleNamespace(config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=pinpoints))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_frames_are_pooled_as_apply_pooling_does(dtype: torch.dtype):
    one = case((Visual((SIDE, SIDE), "bilinear", 2, count=3),))
    features, embedding, newline, inv_freq = one.inputs(dtype, channels=CHANNELS)
    rows, _, _ = splice(features, embedding, newline, one.plan, inv_freq)
    theirs = model_class().apply_pooling(stand_in([]), features.view(3, SIDE * SIDE, CHANNELS))
    assert torch.equal(rows[:-1], theirs.flatten(0, 1))


@pytest.mark.parametrize(
    ("height", "width", "grid", "crop", "out", "rule"),
    [
        (378, 756, (1, 2), (0, 0, 27, 54), (27, 54), "anyres_max_9"),
        (500, 700, (2, 2), (8, 0, 38, 54), (38, 54), "anyres_max_9"),
        (756, 756, (2, 2), (0, 0, 54, 54), (27, 27), "anyres_max_1"),
        (500, 700, (2, 2), (8, 0, 38, 54), (22, 32), "anyres_max_1"),
    ],
)
def test_a_picture_is_packed_as_pack_image_features_does(height, width, grid, crop, out, rule):
    pinpoints = [[TILE * grid[0], TILE * grid[1]]]
    tiles = Visual(
        (SIDE, SIDE), "copy" if crop[2:] == out else "bilinear", tiles=grid, crop=crop, out=out, newline="row"
    )
    one = case((Visual((SIDE, SIDE), "copy"), tiles))
    features, embedding, newline, inv_freq = one.inputs(torch.float32, channels=CHANNELS)
    rows, _, _ = splice(features, embedding, newline, one.plan, inv_freq)
    views = features.view(1 + grid[0] * grid[1], SIDE * SIDE, CHANNELS)
    theirs, _ = model_class().pack_image_features(
        stand_in(pinpoints), [views], torch.tensor([[height, width]]), newline, rule
    )
    theirs = theirs[0] if isinstance(theirs, list | tuple) else theirs
    torch.testing.assert_close(rows[:-1], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tables_are_those_of_a_checkpoint_with_linear_scaling(factor: float, dtype: torch.dtype):
    from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    plain, scaled = (
        Qwen2RotaryEmbedding(Qwen2Config(**sizes, rope_parameters={"rope_theta": 1e6, **rope}))
        for rope in ({"rope_type": "default"}, {"rope_type": "linear", "factor": factor})
    )
    positions = torch.arange(0, 30_000, 7)[None]
    theirs = scaled(torch.zeros(1, dtype=dtype), positions)
    ours = rotary_tables(positions, plain.inv_freq, factor=factor, attention_scaling=1.0, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    one = case((9,))
    features, embedding, newline, _ = one.inputs(dtype)
    spliced = splice(features, embedding, newline, one.plan, plain.inv_freq, factor=factor)[1:]
    theirs = scaled(torch.zeros(1, dtype=dtype), torch.arange(9)[None])
    assert all(torch.equal(a[:9], b[0]) for a, b in zip(spliced, theirs, strict=True))


@pytest.mark.parametrize("heads", [(14, 2), (4, 4)])
def test_heads_are_turned_as_apply_rotary_pos_emb_does(heads: tuple[int, int]):
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, n, 11, 16, generator=generator, requires_grad=True) for n in heads)
    cos, sin = rotary_tables(
        torch.arange(11)[None],
        1e4 ** -(torch.arange(8) / 8),
        factor=1.0,
        attention_scaling=1.0,
        dtype=q.dtype,
    )
    ours, theirs = rotate(q, k, cos, sin), apply_rotary_pos_emb(q, k, cos, sin)
    grads = [torch.randn(x.shape, generator=generator) for x in ours]
    for a, b in zip(
        (*ours, *torch.autograd.grad(ours, (q, k), grads)),
        (*theirs, *torch.autograd.grad(theirs, (q, k), grads)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
