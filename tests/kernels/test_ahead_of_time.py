"""Compiled for sm_80 and sm_90 without a device: wide memory accesses, no spills, rounding to nearest."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
# In the interpreter's process there is nothing to compile.
if triton.knobs.runtime.interpret:
    pytest.skip("these kernels are interpreted", allow_module_level=True)

from tests.kernels.ahead_of_time import Built, Launch, build, launches  # noqa: E402
from tests.kernels.plans import CASES, Case, Visual, case  # noqa: E402
from vidllava.kernels import rotate_triton, splice_triton  # noqa: E402

LOADS, STORES = r"ld\.global[.\w:]*\.v4\.b32", r"st\.global[.\w:]*\.v4\.b32"
# OneVision 0.5B and 7B: channels; heads of q and k, head size.
MODELS = {"0.5b": (896, 14, 2, 64), "7b": (3584, 28, 4, 128)}


def splice_launch(model: str, dtype: torch.dtype, mode: str = "bilinear") -> tuple[Launch, Launch]:
    """The launches of a splice and of its gradient, for frames of 27 x 27."""
    one = case((16, Visual((27, 27), mode, 2, count=2, newline="one")))
    return splice_launches(one, dtype, MODELS[model][0], half=MODELS[model][3] // 2)


def splice_launches(one: Case, dtype: torch.dtype, channels: int, half: int = 3) -> tuple[Launch, ...]:
    plan = one.plan
    features, embedding, newline, _ = one.inputs(dtype, channels=channels)
    tensors = (features, embedding, newline, torch.ones(half), plan.work)
    rows = torch.empty(plan.num_rows, channels, dtype=dtype)
    cells = features if plan.uses_max else None

    def call() -> None:
        splice_triton.splice(*tensors, factor=2.0, attention_scaling=1.0)
        splice_triton.splice_backward(rows, cells, plan.work, one.num_features, dtype)

    return tuple(launches(call))


def rotate_launch(model: str, dtype: torch.dtype) -> Launch:
    return heads_launch(*MODELS[model][1:], dtype)


def heads_launch(
    q_heads: int, k_heads: int, size: int, dtype: torch.dtype, rotated: int | None = None, length: int = 40
) -> Launch:
    q, k = (torch.empty(1, length, heads, size, dtype=dtype).transpose(1, 2) for heads in (q_heads, k_heads))
    table = torch.empty(1, length, rotated or size, dtype=dtype)
    (launch,) = launches(lambda: rotate_triton.rotate(q, k, table, table, False))
    return launch


HOT: dict[str, Callable[[], Launch]] = {
    "splice-0.5b": lambda: splice_launch("0.5b", torch.bfloat16)[0],
    "splice-7b": lambda: splice_launch("7b", torch.bfloat16)[0],
    "splice-backward-0.5b": lambda: splice_launch("0.5b", torch.bfloat16)[1],
    "splice-backward-7b": lambda: splice_launch("7b", torch.bfloat16)[1],
    "splice-backward-max": lambda: splice_launch("0.5b", torch.bfloat16, "max")[1],
    "splice-backward-fp32": lambda: splice_launch("0.5b", torch.float32)[1],
    "rotate-0.5b": lambda: rotate_launch("0.5b", torch.bfloat16),
    "rotate-7b": lambda: rotate_launch("7b", torch.bfloat16),
    "rotate-fp32": lambda: rotate_launch("0.5b", torch.float32),
}
# Sizes of one, which Triton takes for constants, and whatever else is out of the ordinary.
ODD: dict[str, Callable[[], Launch]] = {
    "decoding": lambda: heads_launch(14, 2, 64, torch.bfloat16, length=1),
    "one-head-of-each": lambda: heads_launch(1, 1, 64, torch.float16),
    "13-heads-of-80": lambda: heads_launch(13, 13, 80, torch.bfloat16),
    "partial": lambda: heads_launch(4, 1, 96, torch.bfloat16, rotated=40),
    "rotate-fp64": lambda: heads_launch(3, 1, 8, torch.float64),
    "text-only": lambda: splice_launches(case((5,)), torch.bfloat16, 80)[0],
    "one-row-of-a-block": lambda: splice_launches(case((Visual((2, 2), "bilinear", 2),)), torch.float16, 1)[
        0
    ],
    "slow-and-fast": lambda: splice_launches(CASES["slow-and-fast"], torch.float32, 80)[1],
    "splice-fp64": lambda: splice_launches(CASES["mixed-batch"], torch.float64, 8)[0],
    "splice-backward-fp64": lambda: splice_launches(CASES["slow-and-fast"], torch.float64, 8)[1],
}
# 16-byte loads and stores that a program needs at least: four neighbours, two of each; both halves.
FLOOR = {"splice": (8, 2), "splice-backward": (2, 2), "rotate": (4, 4)}


@pytest.fixture(scope="module")
def built() -> Callable[[str, int], Built]:
    done: dict[tuple[str, int], Built] = {}

    def get(name: str, capability: int) -> Built:
        if (name, capability) not in done:
            done[name, capability] = build(HOT[name](), capability)
        return done[name, capability]

    return get


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", HOT)
def test_the_hot_path_moves_16_bytes_at_a_time_and_spills_nothing(name: str, capability: int, built: Any):
    kernel = built(name, capability)
    loads, stores = FLOOR[name.rsplit("-", 1)[0]]
    assert kernel.count(LOADS) >= loads
    assert kernel.count(STORES) >= stores
    # Nothing else is read or written in pieces of 16 bits, but for the one newline vector.
    assert kernel.count(r"(ld|st)\.global[.\w:]*\.b16") <= (name in ("splice-0.5b", "splice-7b"))
    assert kernel.spill_bytes == 0
    assert kernel.registers <= 128


@pytest.mark.parametrize("name", ODD)
def test_odd_shapes_compile_without_spills(name: str):
    assert build(ODD[name](), 90).spill_bytes == 0


@pytest.mark.parametrize(
    "name", ["splice-0.5b", "splice-backward-0.5b", "splice-backward-max", "rotate-0.5b", "rotate-fp32"]
)
def test_offsets_have_64_bits(name: str, built: Any):
    # Every address of a vector of elements; tables of int32 are small.
    offsets = re.findall(
        r"tt\.addptr .*: tensor<[\dx]*!tt\.ptr<b?f\d+>>, tensor<[\dx]*x(i\d+)>", built(name, 90).ttir
    )
    assert len(offsets) >= 3
    assert set(offsets) == {"i64"}


@pytest.mark.parametrize("name", ["splice-0.5b", "rotate-0.5b"])
def test_bf16_is_rounded_to_nearest(name: str, built: Any):
    assert built(name, 90).count(r"cvt\.rn\.bf16x2\.f32") > 0
    assert built(name, 90).count(r"cvt\.rz\.bf16") == 0


def test_multiplications_and_additions_are_not_fused_behind_our_back(built: Any):
    # Rows agree with PyTorch's because each step rounds as written; the one fma is written.
    assert built("rotate-0.5b", 90).count(r"fma\.rn\.f32") == 0


def test_narrow_accesses_are_seen():
    launch = rotate_launch("0.5b", torch.bfloat16)
    strides = {name: 3 for name in launch.arguments if name.endswith("_s")}
    narrow = build(replace(launch, arguments=launch.arguments | strides), 90)
    assert narrow.count(LOADS) < FLOOR["rotate"][0]


def test_spills_are_seen():
    launch, _ = splice_launch("0.5b", torch.bfloat16)
    assert build(replace(launch, options=launch.options | {"maxnreg": 32}), 90).spill_bytes > 0


def test_tokens_are_on_the_axis_of_the_grid_that_has_room():
    q = torch.empty(1, 1, 1, 64, dtype=torch.bfloat16).expand(1, 2, 5_000_000, 64)
    table = torch.empty(1, 1, 64, dtype=torch.bfloat16).expand(1, 5_000_000, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty_like", lambda x: x)
        (launch,) = launches(lambda: rotate_triton.rotate(q, q, table, table, False))
    assert launch.grid[0] > 65_535
    assert all(size <= 65_535 for size in launch.grid[1:])


def test_splices_work_is_on_the_axis_of_the_grid_that_has_room():
    # 1,300 frames: over 2^31 elements of features; on the meta device they take no memory.
    one = case((16, Visual((27, 27), "bilinear", 2, count=1300, newline="one")))
    plan = one.plan
    features, rows = (
        torch.empty(count, 3584, dtype=torch.bfloat16, device="meta")
        for count in (one.num_features, plan.num_rows)
    )
    assert features.numel() > 2**31
    half = torch.ones(64)

    def call() -> None:
        splice_triton.splice(features, rows, rows[0], half, plan.work, factor=1.0, attention_scaling=1.0)
        splice_triton.splice_backward(rows, None, plan.work, one.num_features, torch.bfloat16)

    forward, backward = launches(call)
    slices = 3584 // 128
    assert backward.grid == (1300 * 27 * slices,)
    assert forward.grid[0] >= (1300 * 14 + 1) * slices
    assert len(forward.grid) == 1
