"""Figures between two log lines: what was learned, how fast, and what time and padding were lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from vidllava.data.batches import StepBatch


class Meter:
    """Sums over the steps since the last row. Token and row counts are those of this process, scaled."""

    def __init__(self, *, world_size: int, losses: Sequence[float] = ()) -> None:
        self.world_size = world_size
        self.begin = time.perf_counter()
        self.nonfinite_steps = 0
        self._reset()
        self.losses += losses

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0
        self.losses: list[float] = []
        """Since the last row; a checkpoint keeps them, so that a resumed run logs the same means."""
        self._samples = self._visual = self._text = self._rows = 0

    def waited(self, seconds: float) -> None:
        """Time in which the model had no data to work on."""
        self._waited += seconds

    def stepped(self, data: StepBatch, loss: float | None) -> None:
        """Count one step; a loss of None is a step that was not applied."""
        if loss is None:
            self.nonfinite_steps += 1
        else:
            self.losses.append(loss)
        self._samples += len(data.ids)
        self._visual += data.visual_tokens
        self._text += data.text_tokens
        self._rows += data.num_rows

    def row(self) -> dict[str, Any]:
        """The figures since the last row; starts anew."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        row = {
            # Mean over the steps; None (null) if none of them was finite.
            "loss": sum(self.losses) / len(self.losses) if self.losses else None,
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
