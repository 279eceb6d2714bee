"""What a run shows: trackers get the rows, the plot is drawn however the run ended, the line fits."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import Heard, Run, metrics
from tests.worlds import World
from vidllava.backbone.load import load_backbone
from vidllava.backbone.splice import collate
from vidllava.cli import progress
from vidllava.cli.console import Console
from vidllava.cli.progress import TrainingProgress, figures, module_table
from vidllava.data.encode import SampleEncoder
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import DivergedError, UsageError
from vidllava.training import report
from vidllava.training.meter import sums_by_modality
from vidllava.training.report import draw, smoothed

ROW: dict[str, Any] = {
    "step": 7,
    "loss": 1.25,
    "learning_rate": 1e-5,
    "vision_lr": 2e-6,
    "projector_lr": 0.0,
    "samples_per_second": 12.5,
    "visual_tokens_per_second": 81_234.0,
    "text_tokens_per_second": 950.0,
    "padding_share": 0.08,
    "data_wait_share": 0.31,
    "bad_samples": 0,
}


def test_tensorboard_gets_every_row(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=4, report_to=("tensorboard",), logging_steps=2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = sorted({path.parent for path in tmp_path.rglob("events.out.tfevents*")})
    found: dict[str, list[tuple[int, float]]] = {}
    for folder in folders:
        events = EventAccumulator(str(folder))
        events.Reload()
        for name in events.Tags()["scalars"]:
            found[name] = [(event.step, event.value) for event in events.Scalars(name)]
    rows = metrics(tmp_path)
    assert [step for step, _ in found["loss"]] == [row["step"] for row in rows]
    assert [value for _, value in found["loss"]] == pytest.approx([row["loss"] for row in rows])
    assert "learning_rate" in found


def test_any_tracker_of_accelerate_is_started_told_and_ended(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from accelerate import tracking

    told: list[Any] = []

    class Fake:
        def __init__(self, project: str, **places: str) -> None:
            told.append(("made", project, places))

        def start(self) -> None:
            told.append("started")

        def store_init_configuration(self, values: Mapping[str, Any]) -> None:
            told.append(values["learning_rate"])

        def log(self, values: Mapping[str, Any], step: int) -> None:
            told.append((step, values["loss"]))

        def finish(self) -> None:
            told.append("ended")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: object())
    run(tmp_path, max_steps=2, report_to=("wandb",))
    rows = [(row["step"], row["loss"]) for row in metrics(tmp_path)]
    assert told == [("made", "vidllava", {"dir": str(tmp_path)}), "started", 1e-3, *rows, "ended"]


def test_a_tracker_that_is_not_installed_is_told_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--report-to wandb: its package is not installed \(pip install wandb"
    ):
        run(tmp_path / "out", max_steps=1, report_to=("wandb",), data=("nothing.json",))
    assert not (tmp_path / "out").exists()


def ink(picture: Path) -> np.ndarray:
    return np.asarray(Image.open(picture).convert("RGB"))


def test_the_plot_is_drawn_at_the_end(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=6, logging_steps=1)
    pixels = ink(tmp_path / "loss.png")
    assert pixels.shape[0] > 400
    assert (pixels != 255).any()
    assert "matplotlib.pyplot" not in sys.modules, "it would choose a backend for the whole process"


def test_the_plot_is_drawn_after_a_signal_and_after_a_divergence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stepped = Heard.stepped

    def interrupt(self: Heard, step: int) -> None:
        stepped(self, step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Heard, "stepped", interrupt)
        run(tmp_path / "signal", max_steps=5, logging_steps=1)
    assert (tmp_path / "signal" / "loss.png").is_file()
    with pytest.raises(DivergedError):
        run(tmp_path / "nan", max_steps=8, logging_steps=1, learning_rate=1e30, max_nonfinite_steps=2)
    assert (tmp_path / "nan" / "metrics.jsonl").is_file()


def test_a_plot_that_fails_does_not_hide_the_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_arguments: object) -> bool:
        raise OSError("no font")

    monkeypatch.setattr("vidllava.training.run.draw", fail)
    outcome, heard = run(tmp_path, max_steps=2)
    assert outcome.step == 2
    assert heard.lines == ["loss.png could not be drawn: no font"]


def test_too_few_rows_are_no_plot(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert not draw(path, tmp_path / "loss.png")
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": null}\n')
    assert not draw(path, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_rows_without_a_loss_leave_a_gap_and_no_fault(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": n, "loss": None if n == 3 else 1 / n, "learning_rate": 1e-5} for n in range(1, 9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert draw(path, tmp_path / "loss.png")
    assert report._column(rows, "loss")[0] == [1, 2, 4, 5, 6, 7, 8]


def test_the_smoothed_line_is_the_mean_of_the_neighbours():
    assert smoothed([4, 2, 6, 8], 2) == [3, 4, pytest.approx(16 / 3), 7]
    assert smoothed([1.0], 5) == [1.0]


def test_the_line_says_what_matters_first():
    said = figures(ROW)
    assert said[0] == "loss 1.2500"
    assert "lr 1.00e-05 vision 2.00e-06" in said
    assert "81.2k visual + 950 text tokens/s" in said
    assert {"wait 31%", "padding 8%", "12.5 samples/s"} <= set(said)
    assert not any("bad" in figure for figure in said)
    bad = figures(ROW | {"bad_samples": 3, "loss": None})
    assert bad[:2] == ("loss none", "bad 3")


class Terminal:
    """A stderr that says it is one."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_on_a_terminal_the_line_never_folds(monkeypatch: pytest.MonkeyPatch, columns: int):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    bar = TrainingProgress(Console())
    bar.begins(total_steps=9, done_steps=0, modules=[])
    terminal.text = ""
    for step in range(1, 10):
        bar.stepped(step)
        bar.logged(ROW | {"step": step})
    lines = re.split(r"[\r\n]", terminal.text)
    assert max(map(len, lines)) < columns
    whole = set(figures(ROW))
    assert all(figure in whole for line in lines for figure in line.strip().split(", ")[1:]), "none is cut"
    assert any("9/9" in line for line in lines)
    assert any("ETA" in line for line in lines)
    assert ("padding 8%" in terminal.text) == (columns == 200)


def test_the_table_of_modules_lines_up():
    rows = [
        {"module": "vision", "parameters": 1_000_000, "trainable": 0, "learning_rate": 0.0},
        {"module": "llm", "parameters": 20, "trainable": 20, "learning_rate": 1e-5},
    ]
    lines = module_table(rows)
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["module", "parameters", "learning", "rate"]
    assert lines[1].split() == ["vision", "1,000,000", "0", "frozen"]
    assert lines[2].split() == ["llm", "20", "20", "1e-05"]
    assert lines[3].split() == ["together", "1,000,020", "20", "0.0%"]


def test_each_modality_has_its_own_loss_and_they_add_up(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=4, save_steps=2, logging_steps=3)
    rows = metrics(tmp_path)
    names = {name for row in rows for name in row if name.startswith("loss_")}
    assert names == {"loss_text", "loss_picture", "loss_pictures", "loss_video"}
    for row in rows:
        own = [value for name, value in row.items() if name.startswith("loss_")]
        assert min(own) - 1e-6 <= row["loss"] <= max(own) + 1e-6
    kept = tmp_path / "checkpoint-2" / "trainer_state.json"
    assert sum(json.loads(kept.read_text())["pending_by_modality"]) > 0


def test_a_modality_s_loss_is_that_of_its_samples(checkpoint: Path):
    backbone = load_backbone(str(checkpoint), device="cpu")
    encoder = SampleEncoder(backbone.settings, backbone.codec, EncodeOptions())
    world = World(("video", "text", "picture"))
    encoded = [encoder(world.sample(index)) for index in range(3)]
    batch = collate(encoded)
    sums = sums_by_modality(backbone(batch).label_losses, batch, [3, 0, 1])
    for sample, code in zip(encoded, (3, 0, 1), strict=True):
        alone = backbone(collate([sample]))
        assert sums[1, code] == alone.num_labels
        assert float(sums[0, code] / sums[1, code]) == pytest.approx(float(alone.loss.detach()), rel=1e-4)
    assert sums[1, 2] == 0


def test_a_tracker_is_told_numbers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[Mapping[str, Any]] = []

    class Fake:
        def log(self, values: Mapping[str, Any], step: int) -> None:
            told.append(values)

    tracked = report.Tracked(Heard(), (), tmp_path, {})
    monkeypatch.setattr(tracked, "_trackers", [Fake()])
    tracked.logged({"step": 3, "loss": None, "learning_rate": 1e-5})
    assert told == [{"learning_rate": 1e-5}]
