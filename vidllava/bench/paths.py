"""The operators as they are called in a model, on inputs made up for a case.

    inputs = make_inputs(case, dtype, device, seed=0)
    call = call_of(our_path(case, dtype, device), "both", inputs)
    call()                                     # one forward and backward pass

A path takes the tensors that need a gradient and returns its outputs, those that have one first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from vidllava.backbone.splice import pack
from vidllava.bench.kernel_request import Direction
from vidllava.bench.shapes import TEXT_AFTER, TEXT_BEFORE, VOCABULARY_ROWS, Case
from vidllava.kernels import SplicePlan, rotary_tables, rotate, splice
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt

Path = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
FACTOR = 2.0
PLAN_FIELDS = tuple(field.name for field in fields(SplicePlan))
DECODE_POSITION = 6337


class Inputs(NamedTuple):
    """leaves: features [N, D] and newline [D], or q and k; upstream: a gradient for each first output."""

    leaves: tuple[Tensor, ...]
    upstream: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Constants:
    """What every path of a case reads and none trains."""

    embedding: Tensor
    """[V, D]; one row is what transformers puts where visual rows will be."""
    plan: SplicePlan | None
    plan_ms: float | None
    """Processor time of building the plan on the CPU."""
    inv_freq: Tensor
    cos: Tensor
    sin: Tensor
    """The tables that `rotate` reads, [1, S, R]."""
    text_ids: tuple[int, ...]
    """The ids of the text of every sample, TEXT_BEFORE of them before the clip."""


def make_constants(case: Case, dtype: torch.dtype, device: torch.device) -> Constants:
    """The plan, the tables and the embeddings of a case."""
    half = case.rotated // 2
    inv_freq = case.rope_theta ** -(torch.arange(half, dtype=torch.float32) / half)
    # A table of position 0 turns nothing: a decode step stands behind its prompt.
    first = DECODE_POSITION if case.length == 1 else 0
    cos, sin = rotary_tables(
        torch.arange(first, first + case.length)[None],
        inv_freq,
        factor=FACTOR,
        attention_scaling=1.0,
        dtype=dtype,
    )
    ids = tuple(range(10, 10 + TEXT_BEFORE + TEXT_AFTER))
    plan, plan_ms, embedding = None, None, torch.empty(0)
    if case.kernel == "splice":
        begin = time.process_time()
        plan = _plan(case, ids)
        plan_ms = 1e3 * (time.process_time() - begin)
        generator = torch.Generator().manual_seed(7)
        embedding = torch.randn(VOCABULARY_ROWS, case.channels, generator=generator)
    return Constants(
        embedding=embedding.to(device, dtype),
        plan=None if plan is None else plan.to(device),
        plan_ms=plan_ms,
        inv_freq=inv_freq.to(device),
        cos=cos.to(device),
        sin=sin.to(device),
        text_ids=ids,
    )


def _plan(case: Case, ids: tuple[int, ...]) -> SplicePlan:
    """As a batch of questions gives it."""
    words = [*ids[:TEXT_BEFORE], SLOT, *ids[TEXT_BEFORE:]]
    prompt = TokenizedPrompt(tuple(words), (IGNORE,) * len(words))
    plan = pack([(prompt, (case.layout,))] * case.batch_size).plan
    assert plan.num_rows == case.batch_size * case.length
    return plan


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, *, seed: int) -> Inputs:
    """Normal numbers, and gradients for them. q and k have the strides that a projection leaves."""
    # A generator of its own: PyTorch's is not to be used after a graph could not be captured.
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    def heads(number: int) -> Tensor:
        return normal(case.batch_size, case.length, number, case.head_size).transpose(1, 2)

    if case.kernel == "rotate":
        q, k = heads(case.q_heads).requires_grad_(), heads(case.k_heads).requires_grad_()
        return Inputs((q, k), (heads(case.q_heads), heads(case.k_heads)))
    num_features = case.batch_size * case.layout.num_grids * case.side**2
    features, newline = normal(num_features, case.channels), normal(case.channels)
    upstream = normal(case.batch_size * case.length, case.channels)
    return Inputs((features.requires_grad_(), newline.requires_grad_()), (upstream,))


def our_path(case: Case, constants: Constants, *, known_plan: bool = False) -> Path:
    """vidllava.kernels, by the door that the backbone uses.

    Each call of splice gets a plan that no call has seen, since each prompt has its own: what is found out
    about a plan on its first use is a part of the cost. Not with ``known_plan``.
    """
    if case.kernel == "rotate":
        return lambda leaves: rotate(leaves[0], leaves[1], constants.cos, constants.sin)
    plan = constants.plan
    assert plan is not None
    return lambda leaves: splice(
        leaves[0],
        constants.embedding,
        leaves[1],
        plan if known_plan else unused(plan),
        constants.inv_freq,
        factor=FACTOR,
    )


def unused(plan: SplicePlan) -> SplicePlan:
    """The same plan as it was when it was built, without what calls have kept in it."""
    fresh = object.__new__(SplicePlan)
    vars(fresh).update({name: vars(plan)[name] for name in PLAN_FIELDS})
    return fresh


def call_of(path: Path, direction: Direction, inputs: Inputs) -> Callable[[], object]:
    """One pass in that direction. For ``backward`` the forward pass is done here, once."""
    if direction == "forward":
        return lambda: _without_gradient(path, inputs)
    if direction == "both":
        return lambda: gradients(path(inputs.leaves), inputs)
    outputs = path(inputs.leaves)
    return lambda: gradients(outputs, inputs, again=True)


def gradients(outputs: tuple[Tensor, ...], inputs: Inputs, *, again: bool = False) -> tuple[Tensor, ...]:
    """The gradients of the leaves; ``again``: the graph stays."""
    return torch.autograd.grad(
        outputs[: len(inputs.upstream)], inputs.leaves, inputs.upstream, retain_graph=again
    )


def _without_gradient(path: Path, inputs: Inputs) -> object:
    # As answers are generated here; under no_grad every view costs more, of both sides.
    with torch.inference_mode():
        return path(inputs.leaves)
