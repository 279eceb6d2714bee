"""The decode loop: after a prefill, a token at a time from the KV cache, for one prompt or several.

    for token in generate_after(backbone, logits, cache, num_rows, rope_factor=1.0, options=options):
        ...

Ours rather than transformers' ``generate``: that one cannot start from spliced rows with a RoPE factor per
call and hand out tokens as they come without a second thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from vidllava.backbone.model import Backbone
from vidllava.errors import ModelError
from vidllava.prompting.template import TEMPLATES, Control
from vidllava.visuals.options import GenerateOptions


def stop_ids(backbone: Backbone) -> frozenset[int]:
    """Tokens that end an answer: those of generation settings, tokenizer and templates."""
    listed = backbone.hf.generation_config.eos_token_id
    ids = set(listed if isinstance(listed, list) else [] if listed is None else [listed])
    ends = [piece.after["assistant"][0] for piece in (backbone.settings.template, *TEMPLATES.values())]
    known = backbone.codec.controls()
    named = {
        backbone.codec.special(end.name) for end in ends if isinstance(end, Control) and end.name in known
    }
    return frozenset(ids | named | {backbone.codec.eos()})


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


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """A prompt of ``num_rows`` rows that ``cache`` holds; ``logits`` [1, V] are those after it."""

    logits: torch.Tensor
    cache: DynamicCache
    num_rows: int

    @property
    def can_be_padded(self) -> bool:
        """Whether all rows are kept: a sliding window has forgotten some."""
        return all(type(layer) is DynamicLayer for layer in self.cache.layers)


@torch.inference_mode()
def generate_together(
    backbone: Backbone, prompts: Sequence[ReadPrompt], *, rope_factor: float, options: GenerateOptions
) -> Iterator[list[int | None]]:
    """Yield one token per prompt and step; None for one whose answer has ended. Stops when all have.

    The prompts were read one by one, so that their first tokens do not depend on the batch. Each continues at
    its own position and attends to its own rows only. Uses the caches up.
    """
    lengths = [prompt.num_rows for prompt in prompts]
    rows = torch.tensor(lengths, device=prompts[0].logits.device)
    logits = torch.cat([prompt.logits for prompt in prompts])
    cache = prompts[0].cache if len(prompts) == 1 else _side_by_side(backbone, prompts)
    mask = _prefix_mask(rows, max(lengths))
    yield from _steps(backbone, logits, cache, rows, rope_factor=rope_factor, options=options, mask=mask)


def _side_by_side(backbone: Backbone, prompts: Sequence[ReadPrompt]) -> DynamicCache:
    """One cache with the rows of each prompt, padded at the end; layer by layer, so that one exists twice."""
    longest = max(prompt.num_rows for prompt in prompts)
    merged = DynamicCache(config=cast(PretrainedConfig, backbone.hf.config.text_config))
    for number, layers in enumerate(zip(*(prompt.cache.layers for prompt in prompts), strict=True)):
        keys, values = [], []
        for layer in layers:
            assert layer.keys is not None
            assert layer.values is not None
            padding = (0, 0, 0, longest - layer.keys.shape[-2])
            keys.append(F.pad(layer.keys, padding))
            values.append(F.pad(layer.values, padding))
            layer.keys = layer.values = None
        merged.update(torch.cat(keys), torch.cat(values), number)
    return merged


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
    """One token per sample and step; int64 [B] ``lengths`` are the samples' rows in ``cache``.

    The model is run for a further token only where one is wanted. Raises ModelError where the logits of a
    sample that has not ended are not finite.
    """
    generator = torch.Generator(device=backbone.device).manual_seed(options.seed)
    stops = stop_ids(backbone)
    alive = [True] * len(lengths)
    tokens = lengths.new_zeros(len(lengths))
    for step in range(options.max_new_tokens):
        if step:
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            logits = backbone.step_logits(
                tokens[:, None],
                (lengths + step - 1)[:, None],
                rope_factor=rope_factor,
                cache=cache,
                attention_mask=mask,
            )
        if not all(alive):
            logits[[not lives for lives in alive]] = 0.0  # whatever an ended sample computes is not read
        if not bool(torch.isfinite(logits).all()):
            what = f"computes NaN or Inf at token {step + 1} of the answer"
            raise ModelError(backbone.settings.name, what, "its training diverged, or --dtype float32")
        tokens = choose_token(logits, options, generator)
        chosen = tokens.tolist()
        alive = [was and token not in stops for was, token in zip(alive, chosen, strict=True)]
        if not any(alive):
            return
        yield [token if lives else None for token, lives in zip(chosen, alive, strict=True)]


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
