"""The prefill: a prompt enters the KV cache segment by segment; what is kept there is not read again.

    memory = PromptMemory(backbone)
    logits = memory.read(question.prompt, layouts, features, rope_factor=1.0)

A prompt is cut after its last visual and before each earlier answer. The pieces, and so the bits, are the
same whether a conversation is read from its start or continued: a later turn reads only the last answer, as
text, and what was asked since.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import pack
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.prompting.layout import VisualLayout

Segment = tuple[int, ...]


def segments(prompt: TokenizedPrompt) -> tuple[Segment, ...]:
    """The ids of ``prompt`` in pieces: up to the last visual, up to the first answer, up to the second, ...

    The segments of a conversation that waits for an answer are the first ones of its continuation.
    """
    ids, labels = prompt.ids, prompt.labels
    cuts = {number for number in range(1, len(ids)) if labels[number] != IGNORE == labels[number - 1]}
    if SLOT in ids:
        cuts.add(len(ids) - ids[::-1].index(SLOT))
    bounds = sorted({0, len(ids)} | cuts)
    return tuple(ids[start:end] for start, end in pairwise(bounds))


class PromptMemory:
    """Keys and values of the segments read last, for one conversation with one loaded model."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.forget()

    def forget(self) -> None:
        """Drop everything."""
        config = cast(PretrainedConfig, self._backbone.hf.config.text_config)
        self.cache = DynamicCache(config=config)
        self._read: list[tuple[Segment, int]] = []
        self._features: torch.Tensor | None = None
        self._rope_factor = 1.0

    @property
    def num_rows(self) -> int:
        """Rows of the language model's input that are kept."""
        return sum(rows for _, rows in self._read)

    @torch.inference_mode()
    def read(
        self,
        prompt: TokenizedPrompt,
        layouts: Sequence[VisualLayout],
        features: torch.Tensor,
        *,
        rope_factor: float,
    ) -> torch.Tensor:
        """[1, vocabulary]: what comes after ``prompt``, whose visuals all stand before its first answer.

        Segments that are kept are skipped, the last one never: its logits are wanted. Another factor moves
        every position and other ``features`` (compared by identity) every row: then nothing is kept.
        """
        wanted = segments(prompt)
        kept = self._num_common(wanted, features, rope_factor)
        self._keep(kept)
        self._features, self._rope_factor = features, rope_factor
        logits: torch.Tensor | None = None
        for segment in wanted[kept:]:
            start = self.num_rows
            if SLOT in segment:
                if start:
                    raise ValueError("a visual stands after the first segment")
                logits = self._read_visuals(segment, layouts)
                rows = len(segment) + sum(layout.num_tokens - 1 for layout in layouts)
            else:
                logits = self._read_text(segment, start)
                rows = len(segment)
            # Only now: an interrupted segment is in some layers and not in others.
            self._read.append((segment, rows))
        assert logits is not None  # at least one segment is read
        return logits

    def _num_common(self, wanted: Sequence[Segment], features: torch.Tensor, rope_factor: float) -> int:
        if self._features is not features or self._rope_factor != rope_factor:
            return 0
        # A sliding window has forgotten what a crop would need.
        if not all(type(layer) is DynamicLayer for layer in self.cache.layers):
            return 0
        common = 0
        for (segment, _), other in zip(self._read, wanted[:-1], strict=False):
            if segment != other:
                break
            common += 1
        return common

    def _keep(self, num_segments: int) -> None:
        """Crop keys and values to the first segments: generated tokens and an interrupted segment go too."""
        del self._read[num_segments:]
        if not self._read:
            self.forget()
            return
        for layer in self.cache.layers:
            assert isinstance(layer, DynamicLayer)  # others are never kept
            assert layer.keys is not None
            assert layer.values is not None
            layer.keys = layer.keys[..., : self.num_rows, :]
            layer.values = layer.values[..., : self.num_rows, :]

    def _read_visuals(self, segment: Segment, layouts: Sequence[VisualLayout]) -> torch.Tensor:
        part = TokenizedPrompt(segment, (IGNORE,) * len(segment))
        batch = pack([(part, layouts)], pool_first=self._backbone.pool_first)
        batch = batch.to(self._backbone.device)
        return self._backbone.next_token_logits(
            batch, rope_factor=self._rope_factor, features=self._features, cache=self.cache
        )

    def _read_text(self, segment: Segment, start: int) -> torch.Tensor:
        device = self._backbone.device
        tokens = torch.tensor([segment], device=device)
        positions = torch.arange(start, start + len(segment), device=device)[None]
        return self._backbone.step_logits(tokens, positions, rope_factor=self._rope_factor, cache=self.cache)
