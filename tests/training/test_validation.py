"""The validation loss: right, told everywhere, and without any effect on the run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import EVERYTHING, Heard, Run, metrics, weights
from tests.worlds import World
from vidllava.backbone.load import load_backbone
from vidllava.backbone.splice import collate
from vidllava.cli.console import Console
from vidllava.cli.progress import TrainingProgress, validation_summary
from vidllava.data.encode import SampleEncoder
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import DatasetError, UsageError
from vidllava.training.report import draw, figure_of
from vidllava.training.together import StopRequest
from vidllava.training.validation import Validation

HELD_OUT = World(EVERYTHING, 2, name="held-out")
HELD = {
    "eval_data": ("held:",),
    "schemes": {"world": lambda _spec: World(EVERYTHING, 6), "held": lambda _spec: HELD_OUT},
}
TIMES = ("eval_seconds", "seconds", "samples_per_second", "data_wait_share", "visual_tokens_per_second")


def split(folder: Path) -> tuple[list[dict], list[dict]]:
    """Rows of training and of validation, without what hangs on the machine."""
    rows = [
        {name: value for name, value in row.items() if name not in (*TIMES, "text_tokens_per_second")}
        for row in metrics(folder)
    ]
    return [row for row in rows if "loss" in row], [row for row in rows if "eval_loss" in row]


@pytest.mark.parametrize("lora", [False, True])
def test_it_changes_no_bit_of_the_run(run: Run, tmp_path: Path, lora: bool):
    """With LoRA there is dropout, whose random numbers go on as if nothing had been between."""
    options = {"max_steps": 5, "logging_steps": 1, "save_steps": 2}
    options |= {"lora": True, "lora_dropout": 0.5, "lora_rank": 2} if lora else {}
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    run(tmp_path / "without", **options)
    run(tmp_path / "with", eval_steps=1, dataloader_num_workers=1, **options, **HELD)
    assert (tmp_path / "without" / name).read_bytes() == (tmp_path / "with" / name).read_bytes()
    assert split(tmp_path / "with")[0] == split(tmp_path / "without")[0]
    for step in (2, 4, 5):
        both = [tmp_path / one / f"checkpoint-{step}" for one in ("with", "without")]
        for part in ("optimizer.safetensors", "random.safetensors"):
            assert (both[0] / part).read_bytes() == (both[1] / part).read_bytes()


def test_random_numbers_that_it_draws_are_put_back(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sums = Validation._sums

    def drawing(self: Validation, step: int, stop: StopRequest):
        torch.rand(3)
        return sums(self, step, stop)

    monkeypatch.setattr(Validation, "_sums", drawing)
    options = {"max_steps": 2, "lora": True, "lora_dropout": 0.5, "lora_rank": 2}
    run(tmp_path / "without", **options)
    run(tmp_path / "with", eval_steps=1, **options, **HELD)
    adapters = [(tmp_path / one / "adapter_model.safetensors").read_bytes() for one in ("with", "without")]
    assert adapters[0] == adapters[1]


def test_it_is_the_mean_over_every_label_of_every_row(run: Run, tmp_path: Path):
    _, heard = run(tmp_path, max_steps=2, eval_steps=2, per_device_eval_batch_size=3, **HELD)
    model = load_backbone(str(tmp_path), device="cpu").eval()
    encoder = SampleEncoder(model.settings, model.codec, EncodeOptions())
    losses = []
    with torch.no_grad():
        for index in range(len(HELD_OUT)):
            batch = collate([encoder(HELD_OUT.sample(index), draw=index)])
            losses.append(model(batch).label_losses.double().numpy())
    (row,) = heard.validations
    assert (row["step"], row["eval_samples"], row["eval_bad_samples"]) == (2, 8, 0)
    assert row["eval_labels"] == sum(map(len, losses))
    assert row["eval_loss"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-5)
    videos = np.concatenate(
        [loss for loss, kind in zip(losses, HELD_OUT.modalities, strict=True) if kind == "video"]
    )
    assert row["eval_loss_video"] == pytest.approx(videos.mean(), rel=1e-5)
    assert heard.validatings == [(1, 3), (2, 3), (3, 3)]


def test_dropout_is_off_while_it_is_measured(run: Run, tmp_path: Path):
    options = {"lora": True, "lora_dropout": 0.5, "lora_rank": 2, "learning_rate": 0.0, "vision_lr": 0.0}
    _, heard = run(tmp_path, max_steps=3, eval_steps=1, projector_lr=0.0, **options, **HELD)
    assert len({row["eval_loss"] for row in heard.validations}) == 1
    assert len({row["loss"] for row in heard.rows}) > 1


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"eval_steps": 2}, [2, 4, 5]),
        ({"eval_steps": 0}, [5]),
        ({"save_steps": 3}, [3, 5]),
        ({"save_steps": 3, "eval_steps": 4}, [4, 5]),
    ],
)
def test_it_is_measured_when_it_is_due(run: Run, tmp_path: Path, options: dict[str, int], steps: list[int]):
    _, heard = run(tmp_path, max_steps=5, **options, **HELD)
    assert [row["step"] for row in heard.validations] == steps
    assert [row["step"] for row in split(tmp_path)[1]] == steps


def test_a_resumed_run_has_the_validations_of_the_whole_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed in the middle of a validation, and after a checkpoint whose validation is there already."""
    options = {
        "max_steps": 6,
        "save_steps": 2,
        "eval_steps": 1,
        "logging_steps": 1,
        "resume": "latest",
        **HELD,
    }
    run(tmp_path / "whole", **options)

    class Killed(BaseException):
        pass

    kills = [3, 4]

    def kill(self: Heard, row: dict) -> None:
        if kills and row["step"] == kills[0]:
            kills.pop(0)
            raise Killed

    monkeypatch.setattr(Heard, "validated", kill)
    for _ in range(2):
        with pytest.raises(Killed):
            run(tmp_path / "kept", **options)
    run(tmp_path / "kept", **options)
    assert weights(tmp_path / "kept") == weights(tmp_path / "whole")
    assert split(tmp_path / "kept") == split(tmp_path / "whole")


def test_a_signal_ends_it_and_the_run_that_goes_on_does_it_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = {"max_steps": 4, "save_steps": 0, "eval_steps": 2, "per_device_eval_batch_size": 1, **HELD}
    run(tmp_path / "whole", **options)

    def stop(self: Heard, done: int, total: int) -> None:
        self.validatings.append((done, total))
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Heard, "validating", stop)
        outcome, heard = run(tmp_path / "kept", **options)
    assert (outcome.step, outcome.signal, heard.validations) == (2, signal.SIGTERM, [])
    assert heard.validatings[-1] == (3, 8)
    outcome, heard = run(tmp_path / "kept", resume="latest", **options)
    assert [row["step"] for row in heard.validations] == [2, 4]
    assert split(tmp_path / "kept")[1] == split(tmp_path / "whole")[1]
    assert weights(tmp_path / "kept") == weights(tmp_path / "whole")


def test_rows_that_cannot_be_used_are_left_out_and_told_once(run: Run, tmp_path: Path):
    bad = World(EVERYTHING, 2, bad={1, 4}, name="held-out")
    held = HELD | {"schemes": HELD["schemes"] | {"held": lambda _spec: bad}}
    _, heard = run(tmp_path, max_steps=2, eval_steps=1, max_bad_fraction=0.0, **held)
    assert [(row["eval_samples"], row["eval_bad_samples"]) for row in heard.validations] == [(6, 2), (6, 2)]
    what = "2 of 8 validation samples cannot be used and are left out"
    assert heard.lines == [f"{what}; the first: held-out, 1: sample 1: is broken"]
    assert not (tmp_path / "ledger.jsonl").exists()


def test_held_out_rows_are_read_before_anything_is_done(run: Run, tmp_path: Path):
    with pytest.raises(DatasetError, match=r"nothing\.json: no such file"):
        run(tmp_path, max_steps=1, eval_data=("nothing.json",), model="no/such/model")
    for flag in ("eval_steps", "per_device_eval_batch_size"):
        with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')}: is for --eval-data"):
            run(tmp_path, max_steps=1, **{flag: 2})


def test_it_is_told_in_a_line_of_its_own_and_summed_up_at_the_end(capsys: pytest.CaptureFixture[str]):
    progress = TrainingProgress(Console())
    progress.begins(total_steps=9, done_steps=0, modules=[])
    progress.validated({"step": 3, "eval_loss": 1.25, "eval_samples": 8, "eval_seconds": 0.5})
    progress.validated({"step": 4, "eval_loss": None, "eval_samples": 0, "eval_seconds": 0.0})
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "note: step 3/9, validation loss 1.2500, 8 samples, 0.5 s"
    assert lines[-1].startswith("note: step 4/9, validation loss none, 0 samples")
    found = [{"step": step, "eval_loss": loss} for step, loss in ((2, 1.5), (4, 1.25), (6, 1.75), (7, None))]
    assert validation_summary(found[3:]) == ()
    assert validation_summary(found) == (
        "validation loss 1.7500 after step 6; the lowest, 1.2500, after step 4",
    )


def test_it_is_in_the_plot(tmp_path: Path):
    """Two rows of training, with and without validation: the pictures differ."""
    rows = [{"step": step, "loss": 2.0 / step, "learning_rate": 1e-5} for step in range(1, 9)]
    held_out = [{"step": step, "eval_loss": 2.5 / step} for step in (4, 8)]
    pictures = []
    for name, content in (("without", rows), ("with", rows + held_out)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
        assert draw(tmp_path / name, tmp_path / f"{name}.png")
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_no_legend_covers_a_curve_or_a_number():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kinds = {f"loss_{name}": 1.0 for name in ("text", "picture", "pictures", "video")}
    rates = {"learning_rate": 1e-5, "projector_lr": 2e-5, "vision_lr": 2e-6}
    rows = [{"step": step, "loss": 2.0 + step % 3, **kinds, **rates} for step in range(1, 30)]
    figure = figure_of([*rows, {"step": 20, "eval_loss": 1.0}])
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        assert not legend.overlaps(axes.get_window_extent())
        assert legend.x0 >= 0
        assert not legend.overlaps(axes.yaxis.get_offset_text().get_window_extent())
    assert len(figure.axes[0].get_legend().get_texts()) == 7


@pytest.mark.parametrize(
    ("mix", "size", "lines"),
    [
        ("in-batch", 6, []),
        (
            "in-batch",
            7,
            ["a batch of 7 samples cannot be filled: an epoch has 6, so that samples are repeated within it"],
        ),
        ("separate", 2, []),
        (
            "separate",
            4,
            ["text: 2 samples do not fill batches of 4: 2 of them are shown once more in each epoch"],
        ),
        (
            "separate",
            3,
            [
                "text: 2 samples do not fill batches of 3: 1 of them are shown once more in each epoch",
                "video: 4 samples do not fill batches of 3: 2 of them are shown once more in each epoch",
            ],
        ),
    ],
)
def test_a_batch_that_cannot_be_filled_is_told(mix, size: int, lines: list[str]):
    mixture = Mixture((World(("text", "video", "video"), 2),))
    assert BatchOrder(mixture, mix=mix, batch_size=size, seed=0).repeated() == lines


def test_the_run_tells_of_a_batch_that_cannot_be_filled(run: Run, tmp_path: Path):
    _, heard = run(tmp_path, max_steps=1, world=World(("text",), 3))
    assert heard.lines == [
        "a batch of 4 samples cannot be filled: an epoch has 3, so that samples are repeated within it"
    ]
