"""A picture of how a run went: loss over the steps, and the learning rates under it.

    draw(output / "metrics.jsonl", output / "loss.png")

matplotlib is imported when there is something to draw, and draws without a screen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.files.writing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
