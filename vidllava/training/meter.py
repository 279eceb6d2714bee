"""Figures between two log lines: what was learned, how fast, and what time and padding were lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from vidllava.backbone.splice import PackedBatch
from vidllava.data.batches import StepBatch
from vidllava.data.source import MODALITIES


class Meter:
    """Sums over the steps since the last row. Token and row counts are those of this process, scaled."""

    def __init__(
        self, *, world_size: int, losses: Sequence[float] = (), by_modality: Sequence[float] = ()
    ) -> None:
        self.world_size = world_size
        self.begin = time.perf_counter()
        self.nonfinite_steps = 0
        self.by_modality: list[float] = []
        self._reset()
        self.losses += losses
        if by_modality:
            self.by_modality = list(by_modality)

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0
        self.losses: list[float] = []
        """Since the last row; a checkpoint keeps them, so that a resumed run logs the same means."""
        self.by_modality = [0.0] * (2 * len(MODALITIES))
        """The same, of all processes: the labels' losses by modality, then the numbers of labels."""
        self._samples = self._visual = self._text = self._rows = 0

    def waited(self, seconds: float) -> None:
        """Time in which the model had no data to work on."""
        self._waited += seconds

    def paused(self, seconds: float) -> None:
        """Time that was not spent on training: it does not count in the rates of the next row."""
        self._since += seconds

    def stepped(self, data: StepBatch, loss: float | None, by_modality: Sequence[float]) -> None:
        """Count one step; a loss of None is a step that was not applied. `by_modality` as the sums here."""
        if loss is None:
            self.nonfinite_steps += 1
        else:
            self.losses.append(loss)
            self.by_modality = [a + b for a, b in zip(self.by_modality, by_modality, strict=True)]
        self._samples += len(data.ids)
        self._visual += data.visual_tokens
        self._text += data.text_tokens
        self._rows += data.num_rows

    def _modality_losses(self) -> dict[str, float]:
        """The mean over the labels of each modality that was there."""
        sums, counts = self.by_modality[: len(MODALITIES)], self.by_modality[len(MODALITIES) :]
        pairs = zip(MODALITIES, sums, counts, strict=True)
        return {f"loss_{name}": total / count for name, total, count in pairs if count}

    def row(self) -> dict[str, Any]:
        """The figures since the last row; starts anew."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        row = {
            # Mean over the steps; None (null) if none of them was finite.
            "loss": sum(self.losses) / len(self.losses) if self.losses else None,
            **self._modality_losses(),
            "samples_per_second": round(self._samples * self.world_size / seconds, 3),
            "visual_tokens_per_second": round(self._visual * self.world_size / seconds, 1),
            "text_tokens_per_second": round(self._text * self.world_size / seconds, 1),
            "padding_share": round(1 - (self._visual + self._text) / max(self._rows, 1), 4),
            "data_wait_share": round(self._waited / seconds, 4),
            "nonfinite_steps": self.nonfinite_steps,
            "seconds": round(time.perf_counter() - self.begin, 3),
        }
        self._reset()
        return row


def sums_by_modality(losses: torch.Tensor, batch: PackedBatch, modalities: Sequence[int]) -> torch.Tensor:
    """float64 [2, modalities]: the labels' `losses` [L] by the modality of their sample, and how many."""
    places = torch.tensor(modalities, device=losses.device)[batch.label_rows // batch.length]
    found = torch.zeros(2, len(MODALITIES), dtype=torch.float64, device=losses.device)
    found[0].index_add_(0, places, losses.double())
    found[1].index_add_(0, places, torch.ones_like(losses, dtype=torch.float64))
    return found
