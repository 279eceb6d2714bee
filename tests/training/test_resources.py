"""A full disk, no memory, a dead worker: one line, exit code 6, and the last checkpoint is whole."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from tests.training.conftest import Heard, Run
from vidllava.backbone.model import Backbone
from vidllava.errors import ResourceError
from vidllava.training.checkpoint import find_checkpoint


def whole_one(output: Path) -> int:
    """The step of the only checkpoint; nothing half-written lies beside it."""
    found, skipped = find_checkpoint(output)
    assert found is not None
    assert not skipped
    assert not list(output.glob(".writing-*"))
    assert not (output / "model.safetensors").exists()
    return found.step


def after_step(monkeypatch: pytest.MonkeyPatch, wanted: int, act) -> None:
    stepped = Heard.stepped

    def then(self: Heard, step: int) -> None:
        stepped(self, step)
        if step == wanted:
            act()

    monkeypatch.setattr(Heard, "stepped", then)


def test_a_disk_that_is_full_leaves_the_last_checkpoint(run: Run, tmp_path: Path, monkeypatch):
    """The kernel refuses to let a file grow, in the midst of what safetensors writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    after_step(monkeypatch, 3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1])))
    try:
        with pytest.raises(ResourceError, match=r"could not be written: .*File too large.*free some space"):
            run(tmp_path, max_steps=9, save_steps=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert whole_one(tmp_path) == 2


def test_a_disk_without_room_for_a_checkpoint_is_told_before_the_first_step(
    run: Run, tmp_path: Path, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**6, 10**6 - 5000, 5000))
    heard = Heard()
    monkeypatch.setattr(Heard, "stepped", lambda self, step: heard.steps.append(step))
    with pytest.raises(ResourceError, match=r"a checkpoint takes [\d,]+ bytes, the disk has 5,000 free"):
        run(tmp_path, max_steps=2)
    assert heard.steps == []


def no_memory(self: Backbone, batch: object) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)  # torch's own words


@pytest.mark.parametrize(
    "forward",
    [no_memory, lambda self, batch: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))],
)
def test_no_memory_says_for_what_and_what_to_try(run: Run, tmp_path: Path, monkeypatch, forward):
    after_step(monkeypatch, 3, lambda: monkeypatch.setattr(Backbone, "forward", forward))
    with pytest.raises(ResourceError) as caught:
        run(tmp_path, max_steps=9, save_steps=2)
    said = str(caught.value)
    assert said.startswith("step 4: not enough memory for a micro-batch of 2 samples, ")
    assert " frames and tiles and " in said
    assert "half the --per-device-train-batch-size" in said
    assert caught.value.exit_code == 6
    assert whole_one(tmp_path) == 2


def test_a_worker_that_is_killed_while_the_model_works_is_one_line(run: Run, tmp_path: Path, monkeypatch):
    """torch tells of it from a signal handler, in whatever line the main thread is."""
    after_step(monkeypatch, 3, lambda: os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL))
    with pytest.raises(ResourceError, match=r"data worker: was killed: .*--dataloader-num-workers"):
        run(tmp_path, max_steps=40, save_steps=2, dataloader_num_workers=1)
    found, _ = find_checkpoint(tmp_path)
    assert found is not None
    assert not multiprocessing.active_children()


def test_a_fault_of_ours_stays_one(run: Run, tmp_path: Path, monkeypatch):
    def broken(self: Backbone, batch: object) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(Backbone, "forward", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        run(tmp_path, max_steps=2)
