"""What a run tells: rows of figures on disk and to whoever shows them, trackers, the plot of the loss."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vidllava.errors import UsageError
from vidllava.files.writing import append_lines, replacing, write_text
from vidllava.training.recipe import Row
from vidllava.training.settings import Tracker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS_FILE = "metrics.jsonl"
LEDGER_FILE = "ledger.jsonl"


@dataclass(frozen=True)
class RunEnd:
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


_PROJECT = "vidllava"
_PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
}


def check_trackers(names: Sequence[Tracker]) -> None:
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
        """The numbers of the row; a loss that is none (null) is not a number."""
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


PLOT_FILE = "loss.png"
_RATES = {"learning_rate": "language model", "projector_lr": "projector", "vision_lr": "vision tower"}
_LOSSES = {
    "loss_text": "text",
    "loss_picture": "one picture",
    "loss_pictures": "several pictures",
    "loss_video": "video",
}
_SMOOTHED_SHARE = 0.05
_RAW, _SMOOTH = "#9db8d2", "#12406b"


def draw(metrics: Path, picture: Path) -> bool:
    """Draw the rows of `metrics` to the PNG `picture`; False where there are too few for a line.

    Raises ResourceError.
    """
    rows = _rows(metrics)
    if sum(row.get("loss") is not None for row in rows) < 2:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(picture) as file:
        FigureCanvasAgg(figure_of(rows)).print_figure(file, format="png")
    return True


def figure_of(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss over learning rates, for rows of metrics."""
    from matplotlib.figure import Figure

    # Not pyplot: it would choose a backend for the whole process.
    figure = Figure(figsize=(8, 5.2), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_loss(upper, rows)
    _draw_rates(lower, rows)
    return figure


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of about `window` values around each; at both ends of those that there are."""
    half = window // 2
    around = (values[max(0, at - half) : at + half + 1] for at in range(len(values)))
    return [sum(part) / len(part) for part in around]


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the rows that have a finite number there."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    kept = [(step, float(value)) for step, value in found if math.isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _draw_loss(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    steps, losses = _column(rows, "loss")
    window = max(2, round(len(losses) * _SMOOTHED_SHARE))
    mean = f"mean of {window} rows"
    axes.plot(steps, losses, color=_RAW, linewidth=1, label="each row")
    axes.plot(steps, smoothed(losses, window), color=_SMOOTH, linewidth=2, label=mean)
    for number, (name, label) in enumerate(_LOSSES.items()):
        steps, losses = _column(rows, name)
        if len(losses) > 1:
            axes.plot(
                steps, smoothed(losses, window), color=f"C{number + 1}", linewidth=1, label=f"{label}, mean"
            )
    steps, losses = _column(rows, "eval_loss")
    if losses:
        axes.plot(steps, losses, "o-", color="black", markersize=4, linewidth=1.5, label="validation")
    axes.set_ylabel("loss (nats per token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _legend(axes)


def _draw_rates(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    drawn: list[list[float]] = []
    for number, (name, label) in enumerate(_RATES.items()):
        steps, rates = _column(rows, name)
        if not any(rates):
            continue  # frozen
        # Equal rates lie on one another: dashes let the lower one show.
        style = "--" if rates in drawn else "-"
        axes.plot(steps, rates, style, color=f"C{number}", linewidth=1.5, label=label)
        drawn.append(rates)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.grid(alpha=0.3)
    if drawn:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Above the axes, where no curve is; to the right of the power of ten of the ticks."""
    axes.legend(
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        ncols=4,
        fontsize="small",
    )
