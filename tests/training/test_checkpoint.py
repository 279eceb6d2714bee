"""A checkpoint is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vidllava.errors import ModelError, ResourceError, UsageError
from vidllava.training import checkpoint
from vidllava.training.checkpoint import (
    claimed,
    find_checkpoint,
    publish,
    read_checkpoint,
    set_aside_after,
    write_checkpoint,
)
from vidllava.training.optimizer import Optimizers, build_optimizers
from vidllava.training.report import keep_until
from vidllava.training.settings import TrainingSettings


def write_state(step: int):
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights of step %d" % step)
        content = {"format": checkpoint.FORMAT, "step": step}
        (folder / checkpoint.STATE_FILE).write_text(json.dumps(content), encoding="utf-8")

    return write


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


def test_the_newest_complete_one_is_found_and_old_ones_go(tmp_path: Path):
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, step, write_state(step), keep=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-100"]
    found, skipped = find_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (100, ())


def test_what_lies_in_the_future_of_a_resumed_run_is_set_aside_and_deletes_nothing_newer(tmp_path: Path):
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, step, write_state(step), keep=None)
    (tmp_path / "checkpoint-6" / "COMPLETE").unlink()
    assert len(set_aside_after(tmp_path, 2)) == 2
    write_checkpoint(tmp_path, 3, write_state(3), keep=1)
    found, skipped = find_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (3, ())
    write_checkpoint(tmp_path, 4, write_state(4), keep=None)
    set_aside_after(tmp_path, 3)
    left = ["left-checkpoint-4", "left-checkpoint-4-2", "left-checkpoint-6"]
    assert names(tmp_path) == ["checkpoint-3", *left]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / "COMPLETE").unlink(), "is not a complete checkpoint"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "has another size"),
        (lambda folder: (folder / "COMPLETE").write_text("{"), "has a damaged state"),
        (lambda folder: (folder / "COMPLETE").write_text("[]"), "has a damaged state"),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_word(tmp_path: Path, damage, what: str):
    for step in (1, 2):
        write_checkpoint(tmp_path, step, write_state(step), keep=None)
    damage(tmp_path / "checkpoint-2")
    found, skipped = find_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(skipped) == 1
    assert what in skipped[0]
    with pytest.raises(ModelError, match=what):
        read_checkpoint(tmp_path / "checkpoint-2")


def test_one_of_a_newer_format_is_refused(tmp_path: Path):
    def write(folder: Path) -> None:
        content = {"format": checkpoint.FORMAT + 1, "step": 1}
        (folder / checkpoint.STATE_FILE).write_text(json.dumps(content), encoding="utf-8")

    write_checkpoint(tmp_path, 1, write, keep=None)
    with pytest.raises(ModelError, match="has format 2, this version reads 1"):
        read_checkpoint(tmp_path / "checkpoint-1")


@pytest.mark.parametrize("when", ["weights", "flush", "rename"])
def test_a_full_disk_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch, when: str):
    write_checkpoint(tmp_path, 1, write_state(1), keep=1)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_arguments: object) -> None:
        raise full

    def write(folder: Path) -> None:
        write_state(2)(folder)
        if when == "weights":
            fail()

    if when == "flush":
        monkeypatch.setattr(os, "fsync", fail)
    if when == "rename":
        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ResourceError, match="No space left on device"):
        write_checkpoint(tmp_path, 2, write, keep=1)
    assert names(tmp_path) == ["checkpoint-1"]
    assert read_checkpoint(tmp_path / "checkpoint-1").step == 1


_SAVE_FOR_EVER = """
import json, sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from vidllava.training.checkpoint import FORMAT, STATE_FILE, write_checkpoint
step = 1
while True:
    def write(folder):
        (folder / "model.safetensors").write_bytes(bytes(100_000))
        (folder / STATE_FILE).write_text(json.dumps({"format": FORMAT, "step": step}))
    write_checkpoint(Path(sys.argv[1]), step, write, keep=1)
    print(step, flush=True)
    step += 1
"""


def test_killed_at_any_instant_a_whole_checkpoint_stays(tmp_path: Path):
    for attempt in range(12):
        output = tmp_path / str(attempt)
        output.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE_FOR_EVER, str(output)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        last = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        found, _ = find_checkpoint(output)
        assert found is not None
        assert found.step >= (int(last[-1]) if last else 1)
        with claimed(output, resume=True, overwrite=False):
            assert not [name for name in names(output) if name.startswith(".writing")]


def test_publishing_replaces_files_one_by_one_and_leaves_no_trace_of_a_failure(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"old")

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError):
        publish(tmp_path, fail)
    assert (tmp_path / "model.safetensors").read_bytes() == b"old"
    assert names(tmp_path) == ["model.safetensors"]
    publish(tmp_path, write_state(3))
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights of step 3"


def optimizers(model: nn.Linear, optim: str = "adamw_torch") -> Optimizers:
    return build_optimizers(model, TrainingSettings(optim=optim))  # type: ignore[arg-type]


def stepped(seed: int, optim: str = "adamw_torch") -> tuple[nn.Linear, Optimizers]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = optimizers(model, optim)
    for _ in range(3):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("optim", ["adamw_torch", "muon"])
def test_optimizer_and_random_numbers_come_back_bit_for_bit(tmp_path: Path, optim: str):
    model, optimizer = stepped(0, optim)
    checkpoint.save_optimizer(optimizer, model.named_parameters(), tmp_path)
    checkpoint.save_random(checkpoint.random_state(torch.device("cpu"))[None], tmp_path)
    drawn = torch.randn(5)
    other, fresh = stepped(1, optim)
    checkpoint.load_optimizer(fresh, other.named_parameters(), tmp_path)
    for before, after in zip(model.parameters(), other.parameters(), strict=True):
        saved, loaded = optimizer.owner(before).state[before], fresh.owner(after).state[after]
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(value, loaded[moment]) for moment, value in saved.items())
    checkpoint.restore_random(checkpoint.load_random(tmp_path, 0), torch.device("cpu"))
    assert torch.equal(torch.randn(5), drawn)
    with pytest.raises(ModelError, match="no random numbers of process 1"):
        checkpoint.load_random(tmp_path, 1)


def test_the_state_of_another_model_is_refused(tmp_path: Path):
    model, optimizer = stepped(0)
    checkpoint.save_optimizer(optimizer, model.named_parameters(), tmp_path)
    wider = nn.Linear(4, 2)
    with pytest.raises(ModelError, match="does not fit parameter weight"):
        checkpoint.load_optimizer(optimizers(wider), wider.named_parameters(), tmp_path)
    with pytest.raises(ModelError, match="has a state for bias, which is not trained"):
        checkpoint.load_optimizer(optimizer, [("weight", model.weight)], tmp_path)


def test_a_pickle_is_not_loaded(tmp_path: Path):
    torch.save({"step": torch.tensor(1)}, tmp_path / checkpoint.OPTIMIZER_FILE)
    model, optimizer = stepped(0)
    with pytest.raises(ModelError, match=r"optimizer.safetensors: cannot be read"):
        checkpoint.load_optimizer(optimizer, model.named_parameters(), tmp_path)


def test_one_run_at_a_time_in_a_folder(tmp_path: Path):
    with (
        claimed(tmp_path / "out", resume=False, overwrite=False),
        pytest.raises(UsageError, match="in use by another run"),
        claimed(tmp_path / "out", resume=False, overwrite=False),
    ):
        pass
    with claimed(tmp_path / "out", resume=False, overwrite=False):
        pass


def test_an_output_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UsageError, match="is a file"),
        claimed(tmp_path / "file", resume=False, overwrite=False),
    ):
        pass
    with (
        pytest.raises(ResourceError, match="cannot be written to"),
        claimed(tmp_path / "file" / "below", resume=False, overwrite=False),
    ):
        pass


def test_rows_after_the_resumed_step_and_torn_ones_are_dropped(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n{"step": 2, "lo')
    keep_until(path, 5)
    assert path.read_text() == '{"step": 1}\n{"step": 5}\n'
    keep_until(tmp_path / "nothing.jsonl", 5)


class Recorded:
    """What a program asks the file system to make last: flushes, renames and deletions, in order."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.calls = root, []  # type: tuple[Path, list[tuple[str, str]]]
        for name in ("replace", "rename"):
            self._watch(monkeypatch, name, lambda source, target: (str(source), str(target)))
        for name in ("unlink", "remove"):
            self._watch(monkeypatch, name, lambda path: (str(path),))
        self._watch(monkeypatch, "fsync", lambda handle: (os.readlink(f"/proc/self/fd/{handle}"),))

    def _watch(
        self, monkeypatch: pytest.MonkeyPatch, name: str, paths: Callable[..., tuple[str, ...]]
    ) -> None:
        really = getattr(os, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            told = [os.path.relpath(path, self.root) for path in paths(*arguments)]
            if not any(path.startswith("..") for path in told):
                self.calls.append((name.replace("rename", "replace"), " -> ".join(told)))
            return really(*arguments, **options)

        monkeypatch.setattr(os, name, recorded)

    def place(self, what: str, path: str, *, after: int = -1) -> int:
        """The place of the first such call after another one. Fails where there is none."""
        for number, call in enumerate(self.calls):
            if number > after and call == (what, path):
                return number
        raise AssertionError(f"no {what} of {path} after call {after} of {self.calls}")

    def renamed(self, target: str) -> int:
        found = [
            n
            for n, (what, path) in enumerate(self.calls)
            if what == "replace" and path.endswith(f" -> {target}")
        ]
        assert len(found) == 1, (target, self.calls)
        return found[0]


def write_tree(folder: Path) -> None:
    write_state(5)(folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "below").mkdir()
    (folder / "below" / "tokenizer.json").write_text("{}", encoding="utf-8")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_every_file_and_folder_is_on_the_disk_before_a_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(tmp_path, monkeypatch)
    write_checkpoint(tmp_path, 5, write_tree, keep=None)
    aside, named = ".writing-checkpoint-5", recorded.renamed("checkpoint-5")
    sealed = recorded.renamed(f"{aside}/COMPLETE")
    files = ("model.safetensors", "trainer_state.json", "config.json", "below/tokenizer.json")
    for name in (*files, "below"):
        assert recorded.place("fsync", f"{aside}/{name}") < sealed, name
    # The sizes themselves: flushed under the name that they are written under, then the folder of all names.
    (written,) = [path.split(" -> ")[0] for _, path in [recorded.calls[sealed]]]
    assert recorded.place("fsync", written) < sealed
    assert sealed < recorded.place("fsync", aside, after=sealed) < named
    assert recorded.place("fsync", ".", after=named) > named


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_a_published_model_is_no_model_until_all_its_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("of an earlier model", encoding="utf-8")
    recorded = Recorded(tmp_path, monkeypatch)
    publish(tmp_path, write_tree)
    moves = [(n, path.split(" -> ")[1]) for n, (what, path) in enumerate(recorded.calls) if what == "replace"]
    assert [name for _, name in moves[-2:]] == ["adapter_config.json", "config.json"] or [
        name for _, name in moves[-2:]
    ] == ["config.json", "adapter_config.json"]
    for name in ("model.safetensors", "config.json", "below/tokenizer.json"):
        assert recorded.place("fsync", f".writing-final/{name}") < moves[0][0]
    assert recorded.place("unlink", "config.json") < moves[0][0]
    assert recorded.place("fsync", ".", after=moves[-1][0])
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == "{}"


def test_a_checkpoint_that_is_deleted_loses_its_seal_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle of the deletion leaves no folder that says it is complete."""
    folder = write_checkpoint(tmp_path, 5, write_state(5), keep=None)

    def killed(path: Path, *_: Any, **__: Any) -> None:
        assert not (Path(path) / checkpoint.COMPLETE).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.discard(folder)
    assert find_checkpoint(tmp_path)[0] is None
