"""Ctrl-C and SIGTERM lose no step and never wait long: not for a hanging file, not for a checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.training.conftest import EVERYTHING, Heard, Run, weights
from tests.worlds import World
from vidllava.data.source import Sample
from vidllava.training import checkpoint, session
from vidllava.training.checkpoint import find_checkpoint
from vidllava.training.together import StopRequest

SECONDS = 10.0  # within which a run must have ended
SAMPLES_A_STEP = 4


class Hanging(World):
    """A world whose samples come `after` times (in each process), and then never."""

    def __init__(self, after: int) -> None:
        super().__init__(EVERYTHING, 6)
        self.after = after

    def sample(self, index: int) -> Sample:
        if self.after == 0:
            time.sleep(600)
        self.after -= 1
        return super().sample(index)


@contextmanager
def sent_after(number: int, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_does_not_wait_for_a_sample_that_never_comes(run: Run, tmp_path: Path, workers, number):
    run(tmp_path / "whole", max_steps=3, save_steps=3)
    begin = time.monotonic()
    with sent_after(number, 3.0):
        outcome, heard = run(
            tmp_path / "out", world=Hanging(3 * SAMPLES_A_STEP), max_steps=9, dataloader_num_workers=workers
        )
    assert time.monotonic() - begin < 3.0 + SECONDS
    assert (outcome.step, outcome.signal, heard.steps) == (3, number, [1, 2, 3])
    assert weights(tmp_path / "out" / "checkpoint-3") != b""
    assert not multiprocessing.active_children()


def at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, *numbers: int) -> None:
    """Send these signals at the end of a step."""
    stepped = Heard.stepped

    def send(self: Heard, step: int) -> None:
        stepped(self, step)
        for number in numbers if step == wanted else ():
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Heard, "stepped", send)


def while_saving(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[Path]:
    """Send these signals in the middle of a checkpoint; returns where it was written."""
    save, written = checkpoint.save_optimizer, []

    def interrupted(optimizer, named, folder):
        written.append(folder)
        for number in numbers:
            os.kill(os.getpid(), number)
        save(optimizer, named, folder)

    monkeypatch.setattr(checkpoint, "save_optimizer", interrupted)
    return written


def test_a_signal_in_the_middle_of_a_checkpoint_lets_it_be_written_once(
    run: Run, tmp_path: Path, monkeypatch
):
    written = while_saving(monkeypatch, signal.SIGTERM)
    outcome, _ = run(tmp_path, max_steps=9, save_steps=4)
    assert (outcome.step, outcome.signal) == (4, signal.SIGTERM)
    assert [folder.name for folder in written] == [".writing-checkpoint-4"]
    found, skipped = find_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (4, ())


def test_a_second_signal_in_the_middle_of_a_checkpoint_leaves_the_one_before(
    run: Run, tmp_path: Path, monkeypatch
):
    run(tmp_path, max_steps=9, save_steps=0, learning_rate=1e-3)
    with monkeypatch.context() as patched:
        at_step(patched, 2, signal.SIGINT)
        run(tmp_path, max_steps=9, overwrite=True)
    while_saving(monkeypatch, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, max_steps=9, save_steps=4, resume="latest")
    found, skipped = find_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (2, ())
    assert not list(tmp_path.glob(".writing-*"))


def test_a_second_sigterm_ends_with_its_own_code(run: Run, tmp_path: Path, monkeypatch):
    at_step(monkeypatch, 1, signal.SIGTERM, signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run(tmp_path, max_steps=5)
    assert end.value.code == 143


def test_what_a_launcher_passes_on_is_one_request(run: Run, tmp_path: Path, monkeypatch):
    """Ctrl-C reaches the whole process group, and torchrun sends its processes a signal as well."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGINT
        monkeypatch.setattr("vidllava.training.together._ECHO_SECONDS", 0.0)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_after_the_last_step_does_not_cost_the_weights(run: Run, tmp_path: Path, monkeypatch):
    publish = session.publish

    def interrupted(output, write):
        os.kill(os.getpid(), signal.SIGTERM)
        publish(output, write)

    monkeypatch.setattr(session, "publish", interrupted)
    outcome, _ = run(tmp_path, max_steps=2)
    assert (outcome.step, outcome.signal) == (2, None)
    assert (tmp_path / "model.safetensors").exists()


def test_waiting_ends_at_once_and_the_value_is_kept_otherwise():
    with StopRequest() as stop:
        assert stop.wait(lambda: 7) == 7
        begin = time.monotonic()
        with sent_after(signal.SIGINT, 0.1):
            assert stop.wait(lambda: time.sleep(60)) is None
        assert time.monotonic() - begin < 5.0
        assert stop.wait(lambda: 7) is None, "nothing is begun any more"
