"""The decode loop: one prefill, then a token at a time from the KV cache.

    for token in generate(backbone, batch, rope_factor=1.0, options=GenerateOptions()):
        ...

Ours rather than transformers' ``generate``: that one cannot start from spliced rows with a RoPE factor per
call and hand out tokens as they come without a second thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache

from vidllava.backbone.generate_options import GenerateOptions
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import PackedBatch
from vidllava.errors import ModelError


def stop_ids(backbone: Backbone) -> frozenset[int]:
    """Tokens that end an answer: the checkpoint's own, and the end of a ChatML turn where it exists."""
    listed = backbone.hf.generation_config.eos_token_id
    ids = set(listed if isinstance(listed, list) else [] if listed is None else [listed])
    return frozenset(ids | {backbone.codec.special("<|im_end|>")})


@torch.inference_mode()
def generate_batch(
    backbone: Backbone,
    batch: PackedBatch,
    *,
    rope_factor: float,
    options: GenerateOptions,
    features: torch.Tensor | None = None,
) -> Iterator[list[int | None]]:
    """Yield one token per sample and step; None for a sample that has ended. Stops when all have.

    Samples of different lengths are right-padded; each continues at its own position, and attends to its own
    rows only.
    """
    cache = DynamicCache(config=cast(PretrainedConfig, backbone.hf.config.text_config))
    logits = backbone.next_token_logits(batch, rope_factor=rope_factor, features=features, cache=cache)
    lengths = torch.tensor(batch.lengths, device=logits.device)
    mask = _prefix_mask(lengths, batch.length)
    yield from _steps(backbone, logits, cache, lengths, rope_factor=rope_factor, options=options, mask=mask)


@torch.inference_mode()
def generate_after(
    backbone: Backbone,
    logits: torch.Tensor,
    cache: Cache,
    num_rows: int,
    *,
    rope_factor: float,
    options: GenerateOptions,
) -> Iterator[int]:
    """Yield the tokens of one answer to a prompt of ``num_rows`` rows that ``cache`` holds; ``logits`` [1, V]
    are those after it. ``cache`` holds the answer too, afterwards, but for its last token."""
    lengths = torch.tensor([num_rows], device=logits.device)
    for (token,) in _steps(backbone, logits, cache, lengths, rope_factor=rope_factor, options=options):
        if token is not None:
            yield token


def _steps(
    backbone: Backbone,
    logits: torch.Tensor,
    cache: Cache,
    lengths: torch.Tensor,
    *,
    rope_factor: float,
    options: GenerateOptions,
    mask: torch.Tensor | None = None,
) -> Iterator[list[int | None]]:
    """One token per sample and step; int64 [B] ``lengths`` are the samples' rows in ``cache``."""
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            backbone.settings.name, "computes NaN or Inf", "its training diverged, or --dtype float32"
        )
    generator = torch.Generator(device=backbone.device).manual_seed(options.seed)
    stops = stop_ids(backbone)
    alive = [True] * len(lengths)
    for step in range(options.max_new_tokens):
        tokens = choose_token(logits, options, generator)
        chosen = tokens.tolist()
        alive = [was and token not in stops for was, token in zip(alive, chosen, strict=True)]
        if not any(alive):
            return
        yield [token if lives else None for token, lives in zip(chosen, alive, strict=True)]
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        logits = backbone.step_logits(
            tokens[:, None],
            (lengths + step)[:, None],
            rope_factor=rope_factor,
            cache=cache,
            attention_mask=mask,
        )


def generate(
    backbone: Backbone,
    batch: PackedBatch,
    *,
    rope_factor: float,
    options: GenerateOptions,
    features: torch.Tensor | None = None,
) -> Iterator[int]:
    """Yield the tokens of the answer to a batch of one."""
    if len(batch.lengths) != 1:
        raise ValueError(f"a batch of one was expected, not {len(batch.lengths)}")
    steps = generate_batch(backbone, batch, rope_factor=rope_factor, options=options, features=features)
    for (token,) in steps:
        if token is not None:
            yield token


def _prefix_mask(lengths: torch.Tensor, length: int) -> torch.Tensor | None:
    """int64 [B, S], 1 on real rows; None where there is no padding to hide."""
    if bool((lengths == length).all()):
        return None
    return (torch.arange(length, device=lengths.device)[None] < lengths[:, None]).long()


def choose_token(logits: torch.Tensor, options: GenerateOptions, generator: torch.Generator) -> torch.Tensor:
    """int64 [B]: the likeliest token, or one drawn from the smallest set that holds ``top_p``."""
    if options.temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities = (logits.float() / options.temperature).softmax(dim=-1)
    if options.top_p < 1.0:
        ranked, order = probabilities.sort(dim=-1, descending=True)
        # A token stays if the ones before it hold less than top_p: the first always does.
        ranked[ranked.cumsum(dim=-1) - ranked >= options.top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
