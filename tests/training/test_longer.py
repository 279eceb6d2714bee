"""A finished run can be made longer: its last step is a checkpoint, and the new length is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import Run, metrics, weights
from vidllava.errors import ModelError, UsageError
from vidllava.training.checkpoint import find_checkpoint


def test_a_finished_run_leaves_a_checkpoint_of_its_last_step(run: Run, tmp_path: Path):
    run(tmp_path / "saved", max_steps=5, save_steps=2, save_total_limit=1)
    found, _ = find_checkpoint(tmp_path / "saved")
    assert found is not None
    assert found.step == 5
    assert weights(found.folder) == weights(tmp_path / "saved")
    run(tmp_path / "none", max_steps=5, save_steps=0)
    assert not list((tmp_path / "none").glob("checkpoint-*"))


def test_it_goes_on_with_more_steps_and_says_so(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=3, save_steps=2, logging_steps=1)
    outcome, heard = run(tmp_path, max_steps=6, save_steps=2, logging_steps=1, resume="latest")
    assert (outcome.step, heard.done_steps, heard.steps) == (6, 3, [4, 5, 6])
    assert heard.lines == [
        "the run has 6 steps now, not 3: the learning rates follow the new length from here on"
    ]
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_that_is_resumed_as_it_was_does_nothing(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=3, save_steps=2)
    before = weights(tmp_path)
    outcome, heard = run(tmp_path, max_steps=3, save_steps=2, resume="latest")
    assert (outcome.step, heard.steps, heard.lines) == (3, [], [])
    assert weights(tmp_path) == before


def test_fewer_steps_than_are_done_are_wrong_usage(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=3, save_steps=1)
    with pytest.raises(UsageError, match="--max-steps: 2 is before the checkpoint's step 3"):
        run(tmp_path, max_steps=2, save_steps=1, resume="latest")


def test_other_changes_are_still_refused(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=3, save_steps=1)
    with pytest.raises(ModelError, match=r"rope_factor 1.0 -> 2.0.*max_length 512 -> 1024"):
        run(tmp_path, max_steps=6, save_steps=1, resume="latest", rope_factor=2.0)
