"""Compiled for sm_80 and sm_90 without a device: wide memory accesses, no spills, rounding to nearest."""

from __future__ import annotations

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
from tests.kernels.plans import Visual, case  # noqa: E402
from vidllava.kernels import rotate_triton, splice_triton  # noqa: E402

LOADS, STORES = r"ld\.global[.\w:]*\.v4\.b32", r"st\.global[.\w:]*\.v4\.b32"
# OneVision 0.5B and 7B: channels; heads of q and k, head size.
MODELS = {"0.5b": (896, 14, 2, 64), "7b": (3584, 28, 4, 128)}


def splice_launch(model: str, dtype: torch.dtype, mode: str = "bilinear") -> tuple[Launch, Launch]:
    """The launches of a splice and of its gradient, for frames of 27 x 27."""
    one = case((16, Visual((27, 27), mode, 2, count=2, newline="one")))
    features, embedding, newline, _ = one.inputs(dtype, channels=MODELS[model][0])
    plain = {"num_text": 16, "num_newlines": 1, "factor": 2.0, "attention_scaling": 1.0}
    tensors = (features, embedding, newline, torch.ones(MODELS[model][3] // 2), one.plan.operands)
    (forward,) = launches(lambda: splice_triton.splice(*tensors, **plain))
    rows = torch.empty(one.plan.num_rows, MODELS[model][0], dtype=dtype)
    cells = features if one.plan.uses_max else None
    (backward,) = launches(
        lambda: splice_triton.splice_backward(
            rows, cells, one.plan.operands, one.num_features, one.plan.num_tile_cells, dtype
        )
    )
    return forward, backward


def rotate_launch(model: str, dtype: torch.dtype) -> Launch:
    _, q_heads, k_heads, size = MODELS[model]
    q, k = (torch.empty(1, 40, heads, size, dtype=dtype).transpose(1, 2) for heads in (q_heads, k_heads))
    table = torch.empty(1, 40, size, dtype=dtype)
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
