"""A run from data to a folder: it learns, says what it did, and goes on where it stopped, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from tests.training.conftest import EVERYTHING, Heard, Run, metrics, weights
from tests.worlds import World
from vidllava.backbone.load import load_backbone
from vidllava.errors import DatasetError, DivergedError, ModelError, UsageError
from vidllava.training import job as job_module
from vidllava.training import loop

DETERMINISTIC = ("step", "epoch", "loss", "learning_rate", "vision_lr", "projector_lr", "grad_norm")


def test_it_learns_what_it_is_shown(run: Run, tmp_path: Path):
    _, heard = run(tmp_path, world=World(EVERYTHING, 1), max_steps=40, learning_rate=3e-3, logging_steps=10)
    losses = [row["loss"] for row in heard.rows]
    assert losses[-1] < 0.2 * losses[0]


def test_metrics_say_what_happened(run: Run, tmp_path: Path):
    outcome, heard = run(tmp_path, max_steps=5, warmup_steps=2, vision_lr=5e-4)
    rows = metrics(tmp_path)
    assert rows == heard.rows
    assert [row["step"] for row in rows] == [1, 2, 4, 5]
    assert heard.steps == [1, 2, 3, 4, 5]
    assert (outcome.step, outcome.signal) == (5, None)
    first, second = rows[0], rows[1]
    assert (first["learning_rate"], first["vision_lr"], first["projector_lr"]) == (5e-4, 2.5e-4, 5e-4)
    assert (second["learning_rate"], second["vision_lr"]) == (1e-3, 5e-4)
    for row in rows:
        assert row["loss"] > 0
        assert row["grad_norm"] > 0
        assert row["samples_per_second"] > 0
        assert row["visual_tokens_per_second"] > 0
        assert 0 <= row["padding_share"] < 1
        assert 0 <= row["data_wait_share"] <= 1
        assert row["bad_samples"] == row["nonfinite_steps"] == 0
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["vision_lr"] == 5e-4
    assert settings["projector_lr"] == settings["learning_rate"] == 1e-3


def test_the_output_loads_with_plain_from_pretrained_and_with_ours(
    run: Run, tmp_path: Path, checkpoint: Path
):
    run(tmp_path, max_steps=2)
    hf, report = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = load_backbone(str(tmp_path), device="cpu")
    assert ours.settings.preset.name == "nano"
    before = load_backbone(str(checkpoint), device="cpu").hf.state_dict()
    after = ours.hf.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in hf.state_dict().items())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any("vision_tower" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed)
    assert {"model.image_newline", "lm_head.weight"} <= changed


def test_frozen_modules_stay_as_they_were(run: Run, tmp_path: Path, checkpoint: Path):
    _, heard = run(tmp_path, max_steps=3, freeze=("vision", "llm"))
    before = load_backbone(str(checkpoint), device="cpu").hf.state_dict()
    after = load_backbone(str(tmp_path), device="cpu").hf.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if "multi_modal_projector" in name}
    learning = {row["module"]: row["trainable"] for row in heard.modules}
    assert learning["vision"] == learning["llm"] == 0 < learning["projector"]
    assert metrics(tmp_path)[-1]["learning_rate"] == 0.0


@pytest.mark.parametrize(("stop", "workers", "optim"), [(3, 0, "adamw_torch"), (4, 1, "muon")])
def test_resume_equals_the_uninterrupted_run(run: Run, tmp_path: Path, stop: int, workers: int, optim: str):
    options = {
        "max_steps": 9,
        "save_steps": stop,
        "save_total_limit": 2,
        "logging_steps": 4,
        "optim": optim,
    }
    world = World(EVERYTHING, 5, bad={2})
    run(tmp_path / "whole", world=world, max_bad_fraction=1.0, **options)
    kept = tmp_path / "kept"
    run(kept, world=world, max_bad_fraction=1.0, **options)
    (kept / "model.safetensors").unlink()
    shutil.rmtree(kept / "checkpoint-9")  # that of the finished run
    last = 9 - 9 % stop if 9 % stop else 9 - stop
    _, heard = run(
        kept, world=world, resume="latest", dataloader_num_workers=workers, max_bad_fraction=1.0, **options
    )
    assert heard.done_steps == last
    assert heard.steps == list(range(last + 1, 10))
    assert weights(kept) == weights(tmp_path / "whole")
    rows = [
        [[row[name] for name in DETERMINISTIC] for row in metrics(tmp_path / n)] for n in ("whole", "kept")
    ]
    assert rows[0] == rows[1]
    ledgers = [(tmp_path / name / "ledger.jsonl").read_text() for name in ("whole", "kept")]
    assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(run: Run, tmp_path: Path, monkeypatch, number: int):
    run(tmp_path / "whole", max_steps=5)
    stepped = Heard.stepped

    def interrupt(self: Heard, step: int) -> None:
        stepped(self, step)
        if step == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(Heard, "stepped", interrupt)
        outcome, _ = run(tmp_path / "kept", max_steps=5)
    assert (outcome.step, outcome.signal) == (3, number)
    assert [path.name for path in (tmp_path / "kept").glob("*-*")] == ["checkpoint-3"]
    run(tmp_path / "kept", max_steps=5, resume="latest")
    assert weights(tmp_path / "kept") == weights(tmp_path / "whole")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_stops_at_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(self: Heard, step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Heard, "stepped", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, max_steps=5)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_run_is_a_function_of_its_seed(run: Run, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, max_steps=2, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_resume_refuses_other_settings_and_other_data(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=4, save_steps=2)
    with pytest.raises(ModelError, match=r"learning_rate 0.001 -> 0.002.*--allow-changes"):
        run(tmp_path, max_steps=4, save_steps=2, resume="latest", learning_rate=2e-3)
    with pytest.raises(DatasetError, match="the data changed"):
        run(tmp_path, max_steps=4, save_steps=2, resume="latest", world=World(EVERYTHING, 7))
    outcome, _ = run(
        tmp_path, max_steps=4, save_steps=2, resume="latest", learning_rate=2e-3, allow_changes=True
    )
    assert outcome.step == 4


def test_a_run_resumed_from_an_earlier_checkpoint_keeps_its_own(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=6, save_steps=2)
    whole = weights(tmp_path)
    earlier = str(tmp_path / "checkpoint-2")
    _, heard = run(tmp_path, max_steps=6, save_steps=2, save_total_limit=1, resume=earlier)
    assert heard.done_steps == 2
    assert any("left-checkpoint-4" in line for line in heard.lines)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-6"]
    assert weights(tmp_path) == whole


def same_but_times(one: Path, other: Path) -> bool:
    """Whether two folders have the same weights and metrics."""
    rows = [[[row[name] for name in DETERMINISTIC] for row in metrics(folder)] for folder in (one, other)]
    return weights(one) == weights(other) and rows[0] == rows[1]


@pytest.mark.parametrize("save_steps", [0, 3])
def test_one_command_line_serves_a_run_that_is_killed_and_started_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_steps: int
):
    """Started where nothing is, killed before the first checkpoint, killed after it, done, and once more."""
    options = {"max_steps": 5, "save_steps": save_steps, "logging_steps": 1, "resume": "latest"}
    world = World(EVERYTHING, 6, bad={1})
    run(tmp_path / "whole", world=world, max_bad_fraction=1.0, **(options | {"resume": None}))
    output = tmp_path / "kept"
    stepped, kills = Heard.stepped, [2, 4]

    class Killed(BaseException):
        pass

    def kill(self: Heard, step: int) -> None:
        stepped(self, step)
        if kills and step == kills[0]:
            kills.pop(0)
            raise Killed

    monkeypatch.setattr(Heard, "stepped", kill)
    for _ in range(2):
        with pytest.raises(Killed):
            run(output, world=world, max_bad_fraction=1.0, **options)
    outcome, heard = run(output, world=world, max_bad_fraction=1.0, **options)
    assert (outcome.step, outcome.was_finished, heard.done_steps) == (5, False, save_steps)
    note = f"{output} holds no checkpoint: the run starts from the beginning"
    assert heard.notes == ([] if save_steps else [note])
    assert same_but_times(tmp_path / "whole", output)
    ledgers = [(tmp_path / name / "ledger.jsonl").read_text() for name in ("whole", "kept")]
    assert ledgers[0] == ledgers[1]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    outcome, heard = run(output, world=world, max_bad_fraction=1.0, **options)
    assert (outcome.step, outcome.was_finished, heard.steps, heard.lines) == (5, True, [], [])
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}


def test_latest_refuses_the_folder_of_another_run(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=2)
    for name in ("finished.json", "model.safetensors"):
        (tmp_path / name).unlink()
    before = sorted((path, path.read_bytes()) for path in tmp_path.glob("*.json*"))
    for other in ({"learning_rate": 2e-3}, {"model": "nano"}, {"mix": "separate"}):
        with pytest.raises(ModelError, match=rf"holds another run: {next(iter(other))} .* -> "):
            run(tmp_path, max_steps=2, resume="latest", **other)
    (tmp_path / "settings.json").rename(tmp_path / "aside")
    with pytest.raises(UsageError, match="holds an earlier run"):
        run(tmp_path, max_steps=2, resume="latest")
    (tmp_path / "aside").rename(tmp_path / "settings.json")
    assert sorted((path, path.read_bytes()) for path in tmp_path.glob("*.json*")) == before
    outcome, _ = run(tmp_path, max_steps=2, resume="latest", learning_rate=2e-3, overwrite=True)
    assert (outcome.step, len(metrics(tmp_path))) == (2, 2)


def test_latest_may_change_what_does_not_change_the_run(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=2)
    for name in ("finished.json", "model.safetensors"):
        (tmp_path / name).unlink()
    outcome, heard = run(tmp_path, max_steps=3, resume="latest", logging_steps=1, save_steps=2)
    assert (outcome.step, heard.steps) == (3, [1, 2, 3])
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3]


def test_a_finished_run_without_a_checkpoint_is_neither_lengthened_nor_lost(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=2)
    before = weights(tmp_path)
    with pytest.raises(ModelError, match="holds a finished run of 2 steps, this one has 3"):
        run(tmp_path, max_steps=3, resume="latest")
    with pytest.raises(DatasetError, match="the data changed"):
        run(tmp_path, max_steps=2, resume="latest", world=World(EVERYTHING, 7))
    with pytest.raises(ModelError, match=r"was made with other settings: learning_rate 0.001 -> 0.002"):
        run(tmp_path, max_steps=2, resume="latest", learning_rate=2e-3)
    assert weights(tmp_path) == before
    outcome, _ = run(tmp_path, max_steps=3, resume="latest", overwrite=True)
    assert (outcome.step, outcome.was_finished, len(metrics(tmp_path))) == (3, False, 3)


def test_damaged_checkpoints_are_told_not_started_over(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=2, save_steps=1)
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}" / "COMPLETE").unlink()
    with pytest.raises(ModelError, match="holds no complete checkpoint, but damaged ones"):
        run(tmp_path, max_steps=2, save_steps=1, resume="latest")


def test_a_run_that_goes_on_elsewhere_does_not_take_over_what_is_there(run: Run, tmp_path: Path):
    run(tmp_path / "one", max_steps=4, save_steps=2)
    run(tmp_path / "other", max_steps=2, learning_rate=5e-4)
    rows = metrics(tmp_path / "other")
    from_there = {"resume": str(tmp_path / "one" / "checkpoint-2"), "max_steps": 4, "save_steps": 2}
    with pytest.raises(UsageError, match="holds an earlier run"):
        run(tmp_path / "other", **from_there)
    assert metrics(tmp_path / "other") == rows
    run(tmp_path / "new", **from_there)
    assert weights(tmp_path / "new") == weights(tmp_path / "one")


def test_an_earlier_run_is_not_overwritten_unasked(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=2, save_steps=1)
    with pytest.raises(UsageError, match="holds an earlier run"):
        run(tmp_path, max_steps=2)
    run(tmp_path, max_steps=3, overwrite=True)
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3]
    assert not list(tmp_path.glob("checkpoint-*"))


def poison(monkeypatch: pytest.MonkeyPatch, poisoned: set[int]) -> None:
    """Make the loss of these steps (counted from 1) NaN."""
    step = loop.Trainer._step

    def poisoned_step(self, data, labels):
        bias = self.named[-1][1]
        handle = bias.register_hook(lambda grad: grad * float("nan")) if data.step + 1 in poisoned else None
        result = step(self, data, labels)
        if handle is not None:
            handle.remove()
        return result

    monkeypatch.setattr(loop.Trainer, "_step", poisoned_step)


def test_a_step_with_nan_is_not_applied(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(tmp_path / "two", max_steps=2, lr_scheduler_type="constant", warmup_ratio=0.0)
    poison(monkeypatch, {3})
    _, heard = run(tmp_path / "three", max_steps=3, lr_scheduler_type="constant", warmup_ratio=0.0)
    assert weights(tmp_path / "three") == weights(tmp_path / "two")
    assert "step 3 had a NaN or Inf gradient and was not applied; samples world-" in heard.lines[0]
    last = metrics(tmp_path / "three")[-1]
    assert (last["step"], last["loss"], last["grad_norm"], last["nonfinite_steps"]) == (3, None, None, 1)


def test_a_row_of_nan_steps_ends_the_run_and_names_the_samples(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    poison(monkeypatch, {2, 4, 5, 6})
    with pytest.raises(DivergedError, match=r"step 6: 3 steps in a row.*world-\d+"):
        run(tmp_path, max_steps=9, max_nonfinite_steps=3, save_steps=3)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_that_ends_in_nan_steps_leaves_no_weights(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    poison(monkeypatch, {2, 3})
    with pytest.raises(DivergedError, match="the last 2 steps had NaN or Inf"):
        run(tmp_path, max_steps=3)
    assert not (tmp_path / "model.safetensors").exists()


def test_too_many_bad_samples_end_the_run(run: Run, tmp_path: Path):
    with pytest.raises(DatasetError, match=r"samples could not be used.*--max-bad-fraction above 0"):
        run(tmp_path, world=World(EVERYTHING, 6, bad={3}), max_steps=20, max_bad_fraction=0.0)
    assert json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[0])["index"] == 3


def test_epochs_count_steps(run: Run, tmp_path: Path):
    _, heard = run(tmp_path, world=World(("text",), 6), num_train_epochs=2)
    assert heard.total_steps == 3  # 12 samples, 4 a step
    assert metrics(tmp_path)[-1]["epoch"] == 2.0


def test_the_gradient_does_not_hang_on_how_the_batch_is_cut(run: Run, tmp_path: Path):
    cuts = {"one": (4, 1), "two": (2, 2), "four": (1, 4)}
    for name, (size, micro) in cuts.items():
        run(
            tmp_path / name,
            max_steps=2,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=micro,
        )
    norms = [[row["grad_norm"] for row in metrics(tmp_path / name)] for name in cuts]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert norms[2] == pytest.approx(norms[0], rel=1e-4)


def test_data_is_checked_before_the_model(run: Run, tmp_path: Path):
    with pytest.raises(DatasetError, match="no such file"):
        run(tmp_path, data=("nothing.json",), model="no/such/model/at/all")


def test_a_checkpoint_of_a_version_without_the_setting_was_sampled_by_index():
    old = SimpleNamespace(folder="old", state={"run": {"settings": {}, "encode": {}, "data": {}}})
    now: dict[str, Any] = {"settings": {}, "encode": {"sampling": "index"}, "data": {}}
    job_module.check_same(old, now, allow_changes=False)  # type: ignore[arg-type]
    now["encode"]["sampling"] = "time"
    with pytest.raises(ModelError, match="was made with other settings: sampling index -> time"):
        job_module.check_same(old, now, allow_changes=False)  # type: ignore[arg-type]
