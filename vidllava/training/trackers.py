"""Rows of metrics for TensorBoard or Weights & Biases too, through accelerate's trackers.

    check(("tensorboard",))                          # before any work: is the package here?
    report = Tracked(report, ("tensorboard",), output, config)
    report.close()

metrics.jsonl is written whatever else is asked for; a tracker is told the same rows.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidllava.errors import UsageError
from vidllava.training.recipe import Row
from vidllava.training.report import Report
from vidllava.training.settings import Tracker

_PROJECT = "vidllava"
_PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
}


def check(names: Sequence[Tracker]) -> None:
    """Raises UsageError for a tracker whose package is not installed."""
    for name in names:
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            raise UsageError(f"--report-to {name}", "its package is not installed", f"pip install {name}")


class Tracked:
    """A report that tells trackers every row, and everything to the report it stands before."""

    def __init__(
        self, report: Report, names: Sequence[Tracker], output: Path, config: Mapping[str, Any]
    ) -> None:
        self.report, self.names, self.output, self.config = report, tuple(names), output, config
        self._trackers: list[Any] = []

    def resolved(self, rows: Sequence[Row]) -> None:
        """Passed on."""
        self.report.resolved(rows)

    def measured(self, done: int, total: int) -> None:
        """Passed on."""
        self.report.measured(done, total)

    def begins(self, *, total_steps: int, done_steps: int, modules: Sequence[Mapping[str, Any]]) -> None:
        """Start the trackers: the processes are known now."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        for name in self.names:
            if name == "tensorboard":  # what it calls a run is a folder
                tracker = LOGGER_TYPE_TO_CLASS[name](name, logging_dir=str(self.output))
            else:
                tracker = LOGGER_TYPE_TO_CLASS[name](_PROJECT, dir=str(self.output))
            tracker.start()
            tracker.store_init_configuration(dict(_flat(self.config)))
            self._trackers.append(tracker)
        self.report.begins(total_steps=total_steps, done_steps=done_steps, modules=modules)

    def stepped(self, step: int) -> None:
        """Passed on."""
        self.report.stepped(step)

    def logged(self, row: Mapping[str, Any]) -> None:
        """The numbers of the row; a loss that is none (null) is no number."""
        self._log(row)
        self.report.logged(row)

    def validating(self, done: int, total: int) -> None:
        """Passed on."""
        self.report.validating(done, total)

    def validated(self, row: Mapping[str, Any]) -> None:
        """The numbers of the row."""
        self._log(row)
        self.report.validated(row)

    def _log(self, row: Mapping[str, Any]) -> None:
        values = {name: value for name, value in row.items() if name != "step" and value is not None}
        for tracker in self._trackers:
            tracker.log(values, step=row["step"])

    def said(self, line: str) -> None:
        """Passed on."""
        self.report.said(line)

    def noted(self, line: str) -> None:
        """Passed on."""
        self.report.noted(line)

    def close(self) -> None:
        """Let the trackers write what they hold."""
        for tracker in self._trackers:
            tracker.finish()


def _flat(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Values that a tracker's table of settings takes: words and numbers."""
    return [
        (name, value if isinstance(value, bool | int | float | str) else str(value))
        for name, value in config.items()
        if value is not None
    ]
