"""What a run tells: rows of figures on disk, and the same rows to whoever shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vidllava.files.writing import append_lines, write_text

METRICS_FILE = "metrics.jsonl"
LEDGER_FILE = "ledger.jsonl"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after which step, and by which signal if one came.

    `was_finished`: an earlier start had finished this run already, and nothing was done.
    """

    step: int
    signal: int | None = None
    was_finished: bool = False


class Report(Protocol):
    """Somebody who watches a run. The command line draws a progress bar; `Silent` says nothing."""

    def resolved(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Before anything is loaded: (setting, value, where it comes from)."""
        ...

    def measured(self, done: int, total: int) -> None:
        """Now and then while the lengths of samples are looked up, and once all of them are."""
        ...

    def begins(self, *, total_steps: int, done_steps: int, modules: Sequence[Mapping[str, Any]]) -> None:
        """Before the first step; `modules` is the table of trainable parameters."""
        ...

    def stepped(self, step: int) -> None:
        """After every step."""
        ...

    def logged(self, row: Mapping[str, Any]) -> None:
        """With every row of metrics."""
        ...

    def validating(self, done: int, total: int) -> None:
        """After every batch of a measurement of the validation loss."""
        ...

    def validated(self, row: Mapping[str, Any]) -> None:
        """With every row of validation figures."""
        ...

    def said(self, line: str) -> None:
        """Something that changed the result: a skipped checkpoint, a step that was not applied."""
        ...

    def noted(self, line: str) -> None:
        """Something worth knowing that is as it should be: that a run starts from the beginning."""
        ...


class Silent:
    """A report that says nothing."""

    def resolved(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Nothing."""

    def measured(self, done: int, total: int) -> None:
        """Nothing."""

    def begins(self, *, total_steps: int, done_steps: int, modules: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def stepped(self, step: int) -> None:
        """Nothing."""

    def logged(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def validating(self, done: int, total: int) -> None:
        """Nothing."""

    def validated(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def said(self, line: str) -> None:
        """Nothing."""

    def noted(self, line: str) -> None:
        """Nothing."""


def validations(path: Path) -> list[dict[str, Any]]:
    """The rows of validation figures in the metrics file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "eval_loss" in row]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line and hand it to the operating system. Raises ResourceError."""
    append_lines(path, [row])


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and a torn last one: a resumed run writes them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))
