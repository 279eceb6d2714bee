"""A wrong result has no time: the check passes ours and sees each planted fault, on outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidllava.bench.check import _judge, _spread, check, same_work
from vidllava.bench.kernel_cases import (
    MODELS,
    Case,
    KernelRequest,
    cases,
    family_cases,
    rotate_case,
    splice_case,
)
from vidllava.bench.operations import (
    BASELINES,
    Operation,
    baselines,
    call_of,
    make_constants,
    make_inputs,
    our_operation,
    transformers_operation,
    unused,
    why_not,
)

CPU = torch.device("cpu")
SPLICE, ROTATE = splice_case(MODELS["nano"], 3), rotate_case(MODELS["nano"], 3)
ODD = tuple(case for case in cases(KernelRequest(models=("nano",), num_frames=(3,)), on_cuda=False))
GRID = splice_case(MODELS["nano"], 3, newline_mode="grid")


def parts(case: Case, dtype: torch.dtype = torch.float32):
    constants = make_constants(case, dtype, CPU)
    return constants, make_inputs(case, dtype, CPU, seed=1), our_operation(case, constants)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [*ODD, GRID], ids=lambda case: f"{case.kernel} {case.name}")
def test_ours_is_right(case: Case, dtype: torch.dtype):
    constants, inputs, path = parts(case, dtype)
    checked = check(case, path, constants, inputs)
    assert checked.fault is None
    assert "float64" in checked.against
    assert 0 < checked.max_error < torch.finfo(dtype).eps * 40


class Wrong(torch.autograd.Function):
    """The identity, with a gradient that is too large."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 1.001


def one_element(out: Tensor) -> Tensor:
    change = torch.zeros_like(out)
    change[(0,) * (out.ndim - 1)][3] = 1e-3
    return out + change


def not_a_number(out: Tensor) -> Tensor:
    return torch.where(torch.arange(out.numel()).view(out.shape) == 5, torch.nan, out)


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one element": (one_element, "max error"),
    "a small scale": (lambda out: out * (1 + 1e-6), "error"),
    "not a number": (not_a_number, "not finite"),
    "a gradient": (Wrong.apply, "d"),
    "another at each run": (lambda out: out + 1e-9 * torch.rand(()) * out.detach() * 1e4, "two runs differ"),
}


@pytest.mark.parametrize("case", [SPLICE, ROTATE], ids=lambda case: case.kernel)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(case: Case, name: str):
    plant, word = FAULTS[name]
    constants, inputs, path = parts(case)
    wrong: Operation = lambda leaves: (plant(path(leaves)[0]), *path(leaves)[1:])  # noqa: E731
    fault = check(case, wrong, constants, inputs).fault
    assert fault is not None
    assert word in fault


def test_an_input_that_is_changed_is_seen():
    constants, inputs, path = parts(ROTATE)

    def wrong(leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        out = path(leaves)
        leaves[0].detach()[0, 0, 0, 0] += 1
        return out

    fault = check(ROTATE, wrong, constants, inputs).fault
    assert fault is not None
    assert "an input was changed" in fault


@pytest.mark.parametrize(("number", "most"), [(896, 165), (14, 2), (2, 2), (7, 100), (3584, 32)])
def test_a_sample_of_channels_is_spread_over_all(number: int, most: int):
    found = _spread(number, most)
    assert len(found) == min(number, most)
    assert (int(found[0]), int(found[-1])) == (0, number - 1)
    assert len(found.unique()) == len(found)


@pytest.mark.parametrize(
    "case",
    [
        SPLICE,
        ROTATE,
        splice_case(MODELS["nano"], 2, batch_size=3),
        rotate_case(MODELS["nano"], 2, batch_size=3),
        splice_case(replace(MODELS["0.5b"], width=64, q_heads=1), 1),
        *(replace(case, channels=8) for case in family_cases("next-video-7b", 1) if case.kernel == "splice"),
        *(
            replace(case, channels=8)
            for case in family_cases("interleave-0.5b", 1)
            if case.kernel == "splice"
        ),
        *(case for case in family_cases("next-video-34b", 1) if case.kernel == "rotate"),
    ],
    ids=lambda case: f"{case.kernel} {case.name}",
)
def test_transformers_does_the_same_work(case: Case):
    constants, inputs, path = parts(case)
    assert why_not(case) is None
    theirs = transformers_operation(case, constants)
    assert same_work(path, theirs, inputs) is None
    for a, b in zip(path(inputs.leaves), theirs(inputs.leaves), strict=True):
        # One table serves all of transformers' samples.
        same = b.expand(case.batch_size, -1, -1).reshape(a.shape) if b.ndim == 3 else b
        torch.testing.assert_close(a, same, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", [SPLICE, ROTATE], ids=lambda case: case.kernel)
def test_other_work_is_seen(case: Case):
    _, inputs, path = parts(case)
    assert "from ours" in str(same_work(path, lambda x: (1.01 * path(x)[0], *path(x)[1:]), inputs))
    other = Wrong.apply
    assert same_work(path, lambda x: (other(path(x)[0]), *path(x)[1:]), inputs) is not None
    shorter = lambda x: (path(x)[0][..., :-1], *path(x)[1:])  # noqa: E731
    assert str(same_work(path, shorter, inputs)).startswith("a result is [")


def test_what_transformers_cannot_do_is_said():
    constants, inputs, _ = parts(GRID)
    found = baselines(GRID, constants, inputs, compiled=False)
    assert [one.name for one in found] == list(BASELINES)
    assert all(one.operation is None and one.reason for one in found)
    assert "one newline" in str(found[0].reason)


def test_whom_we_have_not_is_said():
    constants, inputs, _ = parts(ROTATE)
    reasons = {one.name: one.reason for one in baselines(ROTATE, constants, inputs, compiled=False)}
    assert reasons["transformers"] is None
    assert "--compile" in str(reasons["transformers_compiled"])
    assert reasons["liger"] in ("not installed", "runs on CUDA, device is cpu")


@pytest.mark.parametrize("case", [SPLICE, ROTATE], ids=lambda case: case.kernel)
def test_each_direction_is_what_it_says(case: Case):
    _, inputs, path = parts(case)
    number = len(inputs.upstream)
    with torch.no_grad():
        outputs = path(inputs.leaves)
    forward = call_of(path, "forward", inputs)()
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(forward, outputs, strict=True))
    expected = torch.autograd.grad(path(inputs.leaves)[:number], inputs.leaves, inputs.upstream)
    backward = call_of(path, "backward", inputs)
    for found in (call_of(path, "both", inputs)(), backward(), backward()):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_plan_that_is_timed_was_never_used():
    constants, inputs, path = parts(SPLICE)
    assert constants.plan is not None
    before = set(vars(constants.plan))
    path(inputs.leaves)
    assert set(vars(constants.plan)) == before
    constants.plan.__dict__["kept"] = 1
    fresh = unused(constants.plan)
    assert "kept" not in vars(fresh)
    assert set(vars(fresh)) == before
    assert all(vars(fresh)[name] is vars(constants.plan)[name] for name in before)


def test_many_small_errors_are_seen_where_the_largest_is_allowed():
    truth = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eager = truth.float()
    eager[7] += 1e-3
    assert _judge(truth.float(), eager, truth)[0] is None
    fault, _ = _judge((truth + 5e-4).float(), eager, truth)
    assert str(fault).startswith("rms error")
