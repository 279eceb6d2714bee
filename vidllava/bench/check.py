"""Judge a result in float64, on the very shape that will be timed, before any time is taken.

The operators run on the whole shape. Channels (splice) and heads (rotate) do not meet, so for a large shape
the float64 reference computes some of them, over every row: the result says how many. The rule is that of the
tests: at most twice the largest error of the plain chain in the same dtype, and 1.25 times its rms error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vidllava.bench.kernel_cases import Case
from vidllava.bench.operations import FACTOR, Constants, Inputs, Operation, gradients
from vidllava.kernels import BLOCK_FIELDS, rotary_tables
from vidllava.kernels.reference import rotate_reference, splice_reference

Chain = Callable[[Case, tuple[Tensor, ...], Constants], tuple[Tensor, ...]]
MAX_RATIO, RMS_RATIO = 2.0, 1.25
# What the reference may hold in float64; and how few channels are too few to tell.
REFERENCE_BYTES, LEAST_CHANNELS, LEAST_HEADS = 256 << 20, 32, 2
# How far another's rounding may lie from ours, in units of the dtype at the largest value.
OTHERS_EPS = 16


@dataclass(frozen=True)
class CheckResult:
    """``fault`` is None for a right result."""

    fault: str | None
    against: str
    max_error: float
    """Largest error over the largest value of the truth."""


def check(case: Case, operation: Operation, constants: Constants, inputs: Inputs) -> CheckResult:
    """Judge outputs and gradients of ``operation``: also twice the same, and no input changed."""
    before = [tensor.detach().clone() for tensor in (*inputs.leaves, *inputs.upstream)]
    outputs = operation(inputs.leaves)
    results = [tensor.detach() for tensor in (*outputs, *gradients(outputs, inputs))]
    again = operation(inputs.leaves)
    repeated = [tensor.detach() for tensor in (*again, *gradients(again, inputs))]
    names, pick, against = _sample(case, inputs)
    faults = [
        f"{name}: two runs differ"
        for name, a, b in zip(names, results, repeated, strict=True)
        if not torch.equal(a, b)
    ]
    del repeated, again
    if any(not torch.equal(a, b) for a, b in zip(before, (*inputs.leaves, *inputs.upstream), strict=True)):
        faults.append("an input was changed")
    truth = _results(case, constants, inputs, pick, torch.float64, definition)
    eager = _results(case, constants, inputs, pick, inputs.leaves[0].dtype, plain_chain)
    worst = 0.0
    for name, result, plain, true in zip(names, results, eager, truth, strict=True):
        if not bool(result.isfinite().all()):
            faults.append(f"{name}: not finite")
            continue
        part = pick(name, result).cpu()
        fault, error = _judge(part, plain, true)
        worst = max(worst, error)
        faults += [f"{name}: {fault}"] if fault else []
    return CheckResult("; ".join(faults) or None, against, worst)


def no_sync(operation: Operation, inputs: Inputs) -> str | None:
    """On CUDA: what of ``operation`` waits for the host; None if nothing does."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(operation(inputs.leaves), inputs)
    except RuntimeError as fault:
        return f"waits for the host: {str(fault).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def same_work(ours: Operation, theirs: Operation, inputs: Inputs) -> str | None:
    """What another operation computes otherwise, or None: a ratio to other work would mean nothing."""
    results = []
    for operation in (ours, theirs):
        leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in inputs.leaves)
        copy = Inputs(leaves, tuple(gradient.clone() for gradient in inputs.upstream))
        outputs = operation(leaves)
        for out, gradient in zip(outputs, inputs.upstream, strict=False):
            if out.shape != gradient.shape:
                return f"a result is {list(out.shape)}, ours {list(gradient.shape)}"
        found = (*outputs[: len(inputs.upstream)], *gradients(outputs, copy))
        results.append([tensor.detach() for tensor in found])
    for number, (a, b) in enumerate(zip(*results, strict=True)):
        apart, size = float((a - b).abs().max()), float(a.abs().max())
        if not apart <= OTHERS_EPS * torch.finfo(a.dtype).eps * size:
            return f"result {number} is {apart:.3g} from ours, of {size:.3g}"
    return None


def _judge(result: Tensor, eager: Tensor, truth: Tensor) -> tuple[str | None, float]:
    """(what is wrong, the largest error over the largest value)."""
    error, allowed, eps = result.double() - truth, eager.double() - truth, torch.finfo(result.dtype).eps
    size = float(truth.abs().max())
    worst, bound = float(error.abs().max()), max(MAX_RATIO * float(allowed.abs().max()), eps / 2 * size)
    relative = worst / size if size else worst
    if not worst <= bound:
        return f"max error {worst:.3g}, bound {bound:.3g}", relative
    spread = float(error.square().mean().sqrt())
    noise = max(float(allowed.square().mean().sqrt()), eps / 4 * float(truth.square().mean().sqrt()))
    if not spread <= RMS_RATIO * noise:
        return f"rms error {spread:.3g}, bound {RMS_RATIO * noise:.3g}", relative
    return None, relative


Pick = Callable[[str, Tensor], Tensor]
"""The part of a result, by its name, that the reference computes."""


def _sample(case: Case, inputs: Inputs) -> tuple[tuple[str, ...], Pick, str]:
    """(names of the results, what of them is compared, the words for it)."""
    rows = case.batch_size * case.length
    if case.kernel == "splice":
        # The reference copies all rows once for every block.
        copies = rows * case.batch_size * len(case.layout.blocks) * 8
        channels = _spread(case.channels, max(REFERENCE_BYTES // copies, LEAST_CHANNELS))
        words = f"{len(channels)} of {case.channels} channels"
        names: tuple[str, ...] = ("rows", "cos", "sin", "dfeatures", "dnewline")

        def pick_channels(name: str, tensor: Tensor) -> Tensor:
            return tensor if name in ("cos", "sin") else tensor[..., channels.to(tensor.device)]

        return names, pick_channels, f"float64, every row, {words}"
    most = max(REFERENCE_BYTES // (rows * case.head_size * 8 * 4), LEAST_HEADS)
    heads = {"q": _spread(case.q_heads, most), "k": _spread(case.k_heads, most)}
    words = f"{len(heads['q'])} of {case.q_heads} and {len(heads['k'])} of {case.k_heads} heads"

    def pick_heads(name: str, tensor: Tensor) -> Tensor:
        return tensor[:, heads[name.removeprefix("d")].to(tensor.device)]

    return ("q", "k", "dq", "dk"), pick_heads, f"float64, every token, {words}"


def _spread(number: int, most: int) -> Tensor:
    """At most ``most`` of ``number`` indices, evenly, the first and the last among them."""
    return torch.linspace(0, number - 1, min(number, most)).round().long().unique()


def _results(
    case: Case, constants: Constants, inputs: Inputs, pick: Pick, dtype: torch.dtype, chain: Chain
) -> list[Tensor]:
    """The picked part of every result, on the CPU, by ``chain`` in ``dtype``."""

    def part(name: str, tensor: Tensor) -> Tensor:
        return pick(name, tensor.detach()).cpu().to(dtype)

    splices = case.kernel == "splice"
    names = ("features", "newline") if splices else ("q", "k")
    leaves = tuple(part(name, leaf).requires_grad_() for name, leaf in zip(names, inputs.leaves, strict=True))
    embedding = part("embedding", constants.embedding) if splices else constants.embedding
    on_cpu = replace(
        constants,
        embedding=embedding,
        plan=None if constants.plan is None else constants.plan.to("cpu"),
        inv_freq=constants.inv_freq.cpu(),
        cos=constants.cos.cpu().to(dtype),
        sin=constants.sin.cpu().to(dtype),
    )
    outputs = chain(case, leaves, on_cpu)
    upstream = tuple(
        part("rows" if splices else name, gradient)
        for name, gradient in zip(names, inputs.upstream, strict=False)
    )
    found = gradients(outputs, Inputs(leaves, upstream))
    return [tensor.detach() for tensor in (*outputs, *found)]


def definition(case: Case, leaves: tuple[Tensor, ...], constants: Constants) -> tuple[Tensor, ...]:
    """What the kernels' own definition computes: the truth, in float64."""
    if case.kernel == "rotate":
        return rotate_reference(leaves[0], leaves[1], constants.cos, constants.sin)
    assert constants.plan is not None
    return splice_reference(
        leaves[0], constants.embedding, leaves[1], constants.plan, constants.inv_freq, factor=FACTOR
    )


def plain_chain(case: Case, leaves: tuple[Tensor, ...], constants: Constants) -> tuple[Tensor, ...]:
    """PyTorch's own pooling and placement: in the same dtype, it errs as much as may be."""
    if case.kernel == "rotate":
        return rotate_reference(leaves[0], leaves[1], constants.cos, constants.sin)
    features, newline = leaves
    plan, block = constants.plan, case.layout.blocks[0]
    assert plan is not None
    grids = features.unflatten(0, (-1, case.side, case.side)).permute(0, 3, 1, 2)
    if block.mode == "bilinear":
        pooled = F.interpolate(grids, size=[block.out_h, block.out_w], mode="bilinear")
    else:
        pooled = F.avg_pool2d(grids, block.stride) if block.mode == "average" else grids
    dst, pitch = (plan.blocks[:, BLOCK_FIELDS.index(name)].long() for name in ("dst_row", "dst_stride"))
    y, x = torch.arange(block.out_h)[:, None], torch.arange(block.out_w)[None]
    at = dst[:, None, None] + y * pitch[:, None, None] + x
    rows = constants.embedding.new_zeros(plan.num_rows, newline.shape[0])
    rows = rows.index_copy(0, plan.text[:, 0].long(), constants.embedding[plan.text[:, 1].long()])
    rows = rows.index_copy(0, plan.newlines.long(), newline.expand(len(plan.newlines), -1))
    rows = rows.index_copy(0, at.flatten(), pooled.permute(0, 2, 3, 1).flatten(0, 2))
    cos, sin = rotary_tables(
        plan.positions, constants.inv_freq, factor=FACTOR, attention_scaling=1.0, dtype=rows.dtype
    )
    return rows, cos, sin
