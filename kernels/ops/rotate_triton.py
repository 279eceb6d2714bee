"""Rotate in Triton: q and k in one launch; the same kernel with the sine negated is the backward pass.

A program loads the tables of BLOCK_T tokens once, and turns up to HEADS_PER_PROGRAM heads with them. Heads
count through q, then k, so any ratio of the two works and no count is padded. Tokens are on the first axis
of the grid, the only one that may exceed 65,535. Strides are passed, so transposed views are read as they
are; all offsets are 64-bit. Legend as in `reference.py`.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

# Bytes of each half of a head that a program turns at a time: a 16-byte vector for each thread of four warps.
BLOCK_BYTES = 2048
HEADS_PER_PROGRAM = 4


@triton.jit
def _turn_head(
    source, target, s, t, batch, head, token, c, z, live,
    HALF: tl.constexpr, HALF_PAD: tl.constexpr, CHANNELS: tl.constexpr, REST_PAD: tl.constexpr,
):  # fmt: skip
    """Turn one head of BLOCK_T tokens; s and t are the four strides of `source` and `target`."""
    i = tl.arange(0, HALF_PAD).to(tl.int64)
    mask = live[:, None] & (i < HALF)[None, :]
    read = source + (batch * s[0] + head * s[1] + token * s[2])[:, None]
    write = target + (batch * t[0] + head * t[1] + token * t[2])[:, None]
    a = tl.load(read + i[None, :] * s[3], mask=mask, other=0.0).to(c.dtype)
    b = tl.load(read + (i + HALF)[None, :] * s[3], mask=mask, other=0.0).to(c.dtype)
    kind = target.dtype.element_ty
    tl.store(write + i[None, :] * t[3], (a * c - b * z).to(kind), mask=mask)
    tl.store(write + (i + HALF)[None, :] * t[3], (b * c + a * z).to(kind), mask=mask)
    if REST_PAD > 0:
        r = 2 * HALF + tl.arange(0, REST_PAD).to(tl.int64)
        mask = live[:, None] & (r < CHANNELS)[None, :]
        rest = tl.load(read + r[None, :] * s[3], mask=mask, other=0.0)
        tl.store(write + r[None, :] * t[3], rest, mask=mask)


@triton.jit
def rotate_kernel(
    # Outputs, inputs, tables
    out_q, out_k, q, k, cos, sin,
    # Sizes
    num_tokens, length, q_heads, k_heads,
    # Strides over batch, heads, tokens, channels; over batch, tokens, channels
    out_q_b, out_q_h, out_q_s, out_q_d, out_k_b, out_k_h, out_k_s, out_k_d,
    q_b, q_h, q_s, q_d, k_b, k_h, k_s, k_d,
    cos_b, cos_s, cos_d, sin_b, sin_s, sin_d,
    # Meta-parameters
    INVERSE: tl.constexpr, HALF: tl.constexpr, HALF_PAD: tl.constexpr,
    CHANNELS: tl.constexpr, REST_PAD: tl.constexpr,
    BLOCK_T: tl.constexpr, HEADS_PER_PROGRAM: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Programs: [block of tokens, all samples'][group of heads, q's then k's]."""
    flat = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    live = flat < num_tokens
    batch, token = flat // length, flat % length
    i = tl.arange(0, HALF_PAD).to(tl.int64)
    mask = live[:, None] & (i < HALF)[None, :]
    c = tl.load(cos + (batch * cos_b + token * cos_s)[:, None] + i[None, :] * cos_d, mask=mask, other=0.0)
    z = tl.load(sin + (batch * sin_b + token * sin_s)[:, None] + i[None, :] * sin_d, mask=mask, other=0.0)
    c, z = c.to(DTYPE), z.to(DTYPE)
    if INVERSE:
        z = -z
    first = tl.program_id(1).to(tl.int64) * HEADS_PER_PROGRAM
    last = tl.minimum(first + HEADS_PER_PROGRAM, q_heads + k_heads)
    for head in range(first, tl.minimum(last, q_heads)):
        _turn_head(
            q, out_q, (q_b, q_h, q_s, q_d), (out_q_b, out_q_h, out_q_s, out_q_d),
            batch, head, token, c, z, live, HALF, HALF_PAD, CHANNELS, REST_PAD,
        )  # fmt: skip
    for head in range(tl.maximum(first, q_heads) - q_heads, last - q_heads):
        _turn_head(
            k, out_k, (k_b, k_h, k_s, k_d), (out_k_b, out_k_h, out_k_s, out_k_d),
            batch, head, token, c, z, live, HALF, HALF_PAD, CHANNELS, REST_PAD,
        )  # fmt: skip


def rotate(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    inverse: bool,
    overwrite: bool = False,
    apart: bool = False,
) -> tuple[Tensor, Tensor]:
    """q and k rotated, by minus the angle where `inverse`; results have their inputs' strides.

    `overwrite`: they take their inputs' memory. A program reads a head whole before it writes it. `apart` is
    for the PyTorch path: here they always are.
    """
    batch, q_heads, length, channels = q.shape
    out_q, out_k = (q, k) if overwrite else (torch.empty_like(q), torch.empty_like(k))
    half = cos.shape[-1] // 2
    half_pad = triton.next_power_of_2(half)
    rest = channels - 2 * half
    block_t = max(BLOCK_BYTES // (half_pad * q.element_size()), 1)
    # Tables of one sample serve every sample: they do not move with it.
    cos, sin = (table.expand(batch, -1, -1) for table in (cos, sin))
    grid = (triton.cdiv(batch * length, block_t), triton.cdiv(q_heads + k.shape[1], HEADS_PER_PROGRAM))
    wide = torch.float64 in (q.dtype, k.dtype)
    if batch * length == 0:
        return out_q, out_k
    with torch.cuda.device(q.device) if q.is_cuda else contextlib.nullcontext():
        rotate_kernel[grid](
            out_q, out_k, q, k, cos, sin,
            batch * length, length, q_heads, k.shape[1],
            *out_q.stride(), *out_k.stride(), *q.stride(), *k.stride(), *cos.stride(), *sin.stride(),
            INVERSE=inverse, HALF=half, HALF_PAD=half_pad,
            CHANNELS=channels, REST_PAD=triton.next_power_of_2(rest) if rest else 0,
            BLOCK_T=block_t, HEADS_PER_PROGRAM=HEADS_PER_PROGRAM, DTYPE=tl.float64 if wide else tl.float32,
            enable_fp_fusion=False,
        )  # fmt: skip
    if overwrite and not q.is_inference():
        # Whoever kept q or k for a backward pass is told, as PyTorch's own operations would.
        torch.autograd.graph.increment_version((out_q, out_k))
    return out_q, out_k
