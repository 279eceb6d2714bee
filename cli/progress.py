"""A training run on stderr: one line that is rewritten on a terminal, one line per log row elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vidllava.cli.console import Console

_BAR = 24


class TrainingProgress:
    """Implements `vidllava.training.report.Report`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = not console.quiet and sys.stderr is not None and sys.stderr.isatty()
        self._figures = ""
        self._width = 0
        self._total = self._first = 0
        self._begin = 0.0

    def begins(self, *, total_steps: int, done_steps: int, modules: Sequence[Mapping[str, Any]]) -> None:
        """Say what will learn, and from which step."""
        for row in modules:
            share = f"{row['trainable']:,} of {row['parameters']:,} parameters learn"
            rate = f" at {row['learning_rate']:g}" if row["trainable"] else ""
            self.console.note(f"{row['module']}: {share}{rate}")
        if done_steps:
            self.console.note(f"resuming after step {done_steps} of {total_steps}")
        self._total, self._first, self._begin = total_steps, done_steps, time.monotonic()

    def stepped(self, step: int) -> None:
        """Move the bar."""
        if not self._live:
            return
        full = _BAR * step // max(self._total, 1)
        self._draw(f"{step}/{self._total} [{'=' * full:<{_BAR}}] {self._figures} ETA {self._eta(step)}")

    def logged(self, row: Mapping[str, Any]) -> None:
        """Take over the new figures."""
        loss = "none" if row["loss"] is None else f"{row['loss']:.4f}"
        self._figures = (
            f"loss {loss} lr {row['learning_rate']:.2e} vision {row['vision_lr']:.2e} "
            f"{row['samples_per_second']:.1f} samples/s wait {row['data_wait_share']:.0%} "
            f"padding {row['padding_share']:.0%}"
        )
        if row["bad_samples"]:
            self._figures += f" bad {row['bad_samples']}"
        if not self._live:
            step = row["step"]
            self.console.note(f"step {step}/{self._total} {self._figures} ETA {self._eta(step)}")
        elif row["step"] == self._total:
            self._draw(f"{self._total}/{self._total} {self._figures}\n")

    def said(self, line: str) -> None:
        """Something that changed the result."""
        if self._live:
            self._draw("")
        self.console.warn(line)

    def _eta(self, step: int) -> str:
        done = step - self._first
        if done <= 0:
            return "-"
        seconds = round((time.monotonic() - self._begin) / done * (self._total - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def _draw(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = 0 if text.endswith("\n") else len(text)
