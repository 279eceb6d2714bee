"""The operators as a model calls them and the same work by others, on inputs made up for a case.

    inputs = make_inputs(case, dtype, device, seed=0)
    call = call_of(our_operation(case, dtype, device), "both", inputs)
    call()                                     # one forward and backward pass

An operation takes the tensors that need a gradient and returns its outputs, those that have one first.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
import torch._functorch.config
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, Qwen2Config
from transformers.models.llava_next_video.modeling_llava_next_video import LlavaNextVideoPooler
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding, apply_rotary_pos_emb

from vidllava.backbone.splice import pack
from vidllava.bench.kernel_cases import TEXT_AFTER, TEXT_BEFORE, VOCABULARY_ROWS, Case, Direction
from vidllava.kernels import SplicePlan, rotary_tables, rotate, splice
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt

Operation = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
BASELINES = ("transformers", "transformers_compiled", "liger", "flash_attn")
FACTOR = 2.0
PLAN_FIELDS = tuple(field.name for field in fields(SplicePlan))
DECODE_POSITION = 6337


class Inputs(NamedTuple):
    """leaves: features [N, D] and newline [D], or q and k; upstream: a gradient for each first output."""

    leaves: tuple[Tensor, ...]
    upstream: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Constants:
    """What every operation of a case reads and none trains."""

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


def our_operation(case: Case, constants: Constants, *, known_plan: bool = False) -> Operation:
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


def call_of(operation: Operation, direction: Direction, inputs: Inputs) -> Callable[[], object]:
    """One pass in that direction. For ``backward`` the forward pass is done here, once."""
    if direction == "forward":
        return lambda: _without_gradient(operation, inputs)
    if direction == "both":
        return lambda: gradients(operation(inputs.leaves), inputs)
    outputs = operation(inputs.leaves)
    return lambda: gradients(outputs, inputs, again=True)


def gradients(outputs: tuple[Tensor, ...], inputs: Inputs, *, again: bool = False) -> tuple[Tensor, ...]:
    """The gradients of the leaves; ``again``: the graph stays."""
    return torch.autograd.grad(
        outputs[: len(inputs.upstream)],
        inputs.leaves,
        inputs.upstream,
        retain_graph=again,
        allow_unused=True,  # a newline that stands nowhere
        materialize_grads=True,
    )


def _without_gradient(operation: Operation, inputs: Inputs) -> object:
    # As answers are generated here; under no_grad every view costs more, of both sides.
    with torch.inference_mode():
        return operation(inputs.leaves)


VIDEO_ID, IMAGE_ID = 3, 4


def why_not(case: Case) -> str | None:
    """What of a case transformers' own operation cannot do; None if it can."""
    if case.kernel == "rotate":
        return None if case.rotated == case.head_size else "Qwen2's rotation has no partial form"
    if case.newline_mode == "no_token" and (case.pool_mode == "average" or case.pool_stride == 1):
        return None  # LLaVA-NeXT-Video's pooler, and frames that are pictures
    if (case.pool_mode, case.pool_stride) != ("bilinear", 2):
        return "apply_pooling knows bilinear, stride 2, alone"
    if case.newline_mode != "one_token":
        return "get_video_features puts one newline at a clip's end, no other"
    return None


def transformers_operation(case: Case, constants: Constants) -> Operation:
    """The operation of a case that `why_not` lets pass."""
    if case.kernel == "rotate":
        return lambda leaves: apply_rotary_pos_emb(leaves[0], leaves[1], constants.cos, constants.sin)
    return _splice_operation(case, constants)


def _splice_operation(case: Case, constants: Constants) -> Operation:
    size = 14 * case.side
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": size, "patch_size": 14},
        text_config={"model_type": "qwen2"},
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
    )
    # As much of a model as these methods read; their class would allocate a whole one.
    stand_in = cast(Any, SimpleNamespace(config=config, get_input_embeddings=lambda: constants.embedding))
    assert case.num_frames is not None
    device, text = constants.embedding.device, list(constants.text_ids)
    ids = [*text[:TEXT_BEFORE], *[VIDEO_ID] * case.layout.num_tokens, *text[TEXT_BEFORE:]]
    input_ids = cast(torch.LongTensor, torch.tensor([ids] * case.batch_size, device=device))
    position_ids = torch.arange(case.length, device=device)[None]
    rotary = _rotary(case).to(device)
    frames, batch = case.batch_size * case.num_frames, case.batch_size

    pool = _pooler(case, stand_in)

    def run(leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features, newline = leaves
        embeds = F.embedding(input_ids, constants.embedding)
        # get_video_features, from its projector on; LLaVA-NeXT-Video's up to it
        pooled = pool(features.view(frames, -1, features.shape[-1]))
        pooled = pooled.reshape(batch, -1, pooled.shape[-1])
        if case.newline_mode == "one_token":
            pooled = torch.cat((pooled, newline[None, None, :].repeat(batch, 1, 1)), dim=1)
        # forward, up to the language model
        pooled = pooled.flatten(0, 1).to(embeds.device, embeds.dtype)
        _, mask = LlavaOnevisionModel.get_placeholder_mask(
            stand_in, input_ids, inputs_embeds=embeds, video_features=pooled
        )
        rows = embeds.masked_scatter(mask, pooled)
        cos, sin = rotary(rows, position_ids)
        return rows.flatten(0, 1), cos, sin

    return run


def _pooler(case: Case, stand_in: Any) -> Callable[[Tensor], Tensor]:
    """[frames, cells, channels] to fewer cells, as transformers' class of the family does it."""
    if case.pool_stride == 1:
        return lambda features: features
    if case.pool_mode == "average":
        vision = SimpleNamespace(image_size=14 * case.side, patch_size=14, hidden_size=case.channels)
        config = SimpleNamespace(
            spatial_pool_mode="average", spatial_pool_stride=case.pool_stride, vision_config=vision
        )
        return LlavaNextVideoPooler(config)
    return lambda features: LlavaOnevisionModel.apply_pooling(stand_in, features)


def _rotary(case: Case) -> nn.Module:
    return Qwen2RotaryEmbedding(
        Qwen2Config(
            hidden_size=case.head_size,
            num_attention_heads=1,
            num_key_value_heads=1,
            vocab_size=VOCABULARY_ROWS,
            rope_parameters={"rope_type": "linear", "factor": FACTOR, "rope_theta": case.rope_theta},
        )
    )


@dataclass(frozen=True, eq=False)
class Baseline:
    """An operation, or why there is none. ``captures``: it may stand in a CUDA graph (no host sync)."""

    name: str
    operation: Operation | None
    reason: str | None = None
    captures: bool = True


def baselines(case: Case, constants: Constants, inputs: Inputs, *, compiled: bool) -> list[Baseline]:
    """One entry for each of BASELINES."""
    reason = why_not(case)
    # The count of placeholders is read back to the host, and so is what masked_scatter's backward needs.
    captures = case.kernel == "rotate"
    plain = None if reason else transformers_operation(case, constants)
    found = [Baseline("transformers", plain, reason, captures)]
    if plain is None or not compiled:
        found.append(Baseline("transformers_compiled", None, reason or "not asked for (--compile)"))
    else:
        found.append(_compiled(plain, inputs, captures))
    return [*found, *(_fused(name, case, constants, inputs) for name in ("liger", "flash_attn"))]


def _compiled(plain: Operation, inputs: Inputs, captures: bool) -> Baseline:
    """Compiled now, in both directions, so that no sample is a compilation."""
    name = "transformers_compiled"
    torch.compiler.reset()
    # A backward pass that is timed alone keeps its graph, which donated buffers do not allow.
    torch._functorch.config.donated_buffer = False
    # transformers' check of the placeholder count breaks the graph, as it does in a model: no news.
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    operation: Operation = torch.compile(plain, dynamic=False)
    try:
        with torch.no_grad():
            operation(inputs.leaves)
        gradients(operation(inputs.leaves), inputs)
    except Exception as fault:
        # Whatever a compiler, a missing C++ compiler or a driver raises: it is this cell's reason.
        return Baseline(name, None, f"failed: {_first_line(fault)}")
    return Baseline(name, operation, captures=captures)


def _fused(name: str, case: Case, constants: Constants, inputs: Inputs) -> Baseline:
    if case.kernel != "rotate":
        return Baseline(name, None, "has no such operation")
    device = inputs.leaves[0].device
    try:
        operation = _liger(constants) if name == "liger" else _flash_attn(case, constants)
    except ImportError:
        return Baseline(name, None, "not installed")
    if device.type != "cuda":
        return Baseline(name, None, f"runs on CUDA, device is {device.type}")
    if case.rotated != case.head_size and name == "liger":
        return Baseline(name, None, "has no partial rotation")
    try:
        # Liger turns its inputs in place: timing bears that, the numbers of a check would not.
        leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in inputs.leaves)
        upstream = tuple(gradient.clone() for gradient in inputs.upstream)
        gradients(operation(leaves), Inputs(leaves, upstream))
    except Exception as fault:
        return Baseline(name, None, f"failed: {_first_line(fault)}")
    return Baseline(name, operation)


def _liger(constants: Constants) -> Operation:
    rope = importlib.import_module("liger_kernel.transformers.rope").liger_rotary_pos_emb
    return lambda leaves: rope(leaves[0], leaves[1], constants.cos, constants.sin)


def _flash_attn(case: Case, constants: Constants) -> Operation:
    """One call for each of q and k, in its layout [B, S, H, D], with tables of half the width."""
    apply = importlib.import_module("flash_attn.layers.rotary").apply_rotary_emb
    half = case.rotated // 2
    cos, sin = (table[0, :, :half].contiguous() for table in (constants.cos, constants.sin))
    return lambda leaves: tuple(apply(x.transpose(1, 2), cos, sin).transpose(1, 2) for x in leaves)


def _first_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return (lines[0] if lines else type(fault).__name__)[:200]
