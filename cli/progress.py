"""A training run or a batch on stderr: one line rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vidllava.cli.console import Console

_BAR = 20
_SILENT_SECONDS = 10.0


class TrainingProgress:
    """Implements `vidllava.training.report.Report`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = not console.quiet and sys.stderr is not None and sys.stderr.isatty()
        self._figures: tuple[str, ...] = ()
        self._width = 0
        self._total = self._first = 0
        self._begin = 0.0

    def resolved(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """With -v: every setting that a stage or recipe can decide, and where its value comes from."""
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, value, origin in rows:
            self.console.detail(f"{name.replace('_', '-'):<{widths[0]}}  {value:<{widths[1]}}  {origin}")

    def measured(self, done: int, total: int) -> None:
        """Rows whose length is known: a line where nothing else would be said for long."""
        now = time.monotonic()
        self._begin = self._begin or now
        line = f"lengths of samples: {done}/{total}"
        if self._live:
            self._draw("" if done == total else line)
        elif now - self._begin >= _SILENT_SECONDS and done < total:
            self.console.note(line)
            self._begin = now

    def begins(self, *, total_steps: int, done_steps: int, modules: Sequence[Mapping[str, Any]]) -> None:
        """Say what will learn, and from which step."""
        for line in module_table(modules):
            self.console.note(line)
        if done_steps:
            self.console.note(f"resuming after step {done_steps} of {total_steps}")
        self._total, self._first, self._begin = total_steps, done_steps, time.monotonic()

    def stepped(self, step: int) -> None:
        """Move the bar."""
        if not self._live:
            return
        full = _BAR * step // max(self._total, 1)
        self._draw(self._line(f"{step}/{self._total} [{'=' * full:<{_BAR}}]", step))

    def logged(self, row: Mapping[str, Any]) -> None:
        """Take over the new figures."""
        self._figures = figures(row)
        step = row["step"]
        if not self._live:
            self.console.note(
                ", ".join((f"step {step}/{self._total}", *self._figures, f"ETA {self._eta(step)}"))
            )
        elif step == self._total:
            self._draw(self._line(f"{self._total}/{self._total}", step) + "\n")

    def validating(self, done: int, total: int) -> None:
        """Batches of the validation data that are done: nothing else moves meanwhile."""
        if self._live:
            self._draw("" if done == total else f"validation: batch {done}/{total}")

    def validated(self, row: Mapping[str, Any]) -> None:
        """A line of its own, which stays."""
        if self._live:
            self._draw("")
        self.console.note(f"step {row['step']}/{self._total}, {', '.join(validation_figures(row))}")

    def said(self, line: str) -> None:
        """Something that changed the result."""
        if self._live:
            self._draw("")
        self.console.warn(line)

    def noted(self, line: str) -> None:
        """Something worth knowing."""
        if self._live:
            self._draw("")
        self.console.note(line)

    def _line(self, bar: str, step: int) -> str:
        """As many figures as the terminal is wide for: a line that is folded cannot be rewritten."""
        room = shutil.get_terminal_size().columns - 1
        line = f"{bar} ETA {self._eta(step)}"
        for figure in self._figures:
            if len(line) + 2 + len(figure) > room:
                break
            line += f", {figure}"
        return line[:room]

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


def figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row of metrics says, the most wanted first."""
    loss = "none" if row["loss"] is None else f"{row['loss']:.4f}"
    visual, text = (_short(row[f"{kind}_tokens_per_second"]) for kind in ("visual", "text"))
    rates = [("lr", "learning_rate"), ("vision", "vision_lr"), ("projector", "projector_lr")]
    shown = (
        f"loss {loss}",
        " ".join(f"{name} {row[key]:.2e}" for name, key in rates if row[key]) or "lr 0",
        f"{visual} visual + {text} text tokens/s",
        f"wait {row['data_wait_share']:.0%}",
        f"padding {row['padding_share']:.0%}",
        f"{row['samples_per_second']:.1f} samples/s",
    )
    return (*shown[:1], f"bad {row['bad_samples']}", *shown[1:]) if row["bad_samples"] else shown


def validation_figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row of validation says."""
    loss = "none" if row["eval_loss"] is None else f"{row['eval_loss']:.4f}"
    return (f"validation loss {loss}", f"{row['eval_samples']} samples", f"{row['eval_seconds']:.1f} s")


def validation_summary(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The last validation loss of a run and its lowest; nothing where none was measured."""
    found = [(row["step"], row["eval_loss"]) for row in rows if row["eval_loss"] is not None]
    if not found:
        return ()
    step, loss = found[-1]
    best, lowest = min(found, key=lambda one: one[1])
    return (f"validation loss {loss:.4f} after step {step}; the lowest, {lowest:.4f}, after step {best}",)


def _short(number: float) -> str:
    """1234567 as 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"


def module_table(modules: Sequence[Mapping[str, Any]]) -> list[str]:
    """What learns, one line per module, its columns under one another."""
    rows = [("module", "parameters", "learning", "rate")]
    for module in modules:
        rate = f"{module['learning_rate']:g}" if module["trainable"] else "frozen"
        rows.append((module["module"], f"{module['parameters']:,}", f"{module['trainable']:,}", rate))
    total, learning = (sum(module[name] for module in modules) for name in ("parameters", "trainable"))
    share = f"{learning / max(total, 1):.1%}"
    rows.append(("together", f"{total:,}", f"{learning:,}", share))
    first, *others = ([max(len(row[n]) for row in rows)] for n in range(4))
    lines = []
    for row in rows:
        cells = [f"{cell:>{width[0]}}" for cell, width in zip(row[1:], others, strict=True)]
        lines.append("  ".join([f"{row[0]:<{first[0]}}", *cells]))
    return lines


_BATCH_BAR = 24


class BatchProgress:
    """Counts answers and failures, and says how long the rest may take."""

    def __init__(self, console: Console, total: int, *, pause_seconds: float = 0.0) -> None:
        """``pause_seconds``: at least so long between two lines where there is no terminal."""
        self.num_failed = 0
        self._console = console
        self._total, self._done, self._told = total, 0, 0
        self._begin = self._told_at = time.monotonic()
        self._pause_seconds = pause_seconds
        self._live = not console.quiet and sys.stderr is not None and sys.stderr.isatty()

    def done(self, status: str) -> None:
        """One more row is on disk."""
        self._done += 1
        self.num_failed += status != "ok"
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        line = f"{self._done}/{self._total} done{failed}, ETA {self._eta()}"
        if self._live:
            full = _BATCH_BAR * self._done // self._total
            end = "\n" if self._done == self._total else ""
            sys.stderr.write(f"\r[{'=' * full:<{_BATCH_BAR}}] {line}    {end}")
            sys.stderr.flush()
        elif (tenth := 10 * self._done // self._total) > self._told:
            now = time.monotonic()
            if now - self._told_at < self._pause_seconds:
                return
            self._told, self._told_at = tenth, now
            self._console.note(line)

    def _eta(self) -> str:
        seconds = round((time.monotonic() - self._begin) / self._done * (self._total - self._done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
