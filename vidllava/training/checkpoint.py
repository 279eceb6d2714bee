"""Checkpoints that are either whole or not there, what stands in one, and the folder of a run.

    output/checkpoint-500/
        model.safetensors, config.json, tokenizer.json ...   loads with plain `from_pretrained`
        optimizer.safetensors     AdamW's moments, by parameter name
        random.safetensors        the random number generators of every process
        trainer_state.json        the step, the settings, what the data was
        COMPLETE                  written last: the size of every file above

A checkpoint is written into a folder of another name, flushed to the disk, given its COMPLETE and then
renamed; older ones are deleted only after that. Killed at any instant, the newest complete one is whole.
Nothing is pickled.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vidllava.errors import ModelError, ResourceError, UsageError
from vidllava.files.writing import flush_to_disk, flush_tree, write_json
from vidllava.training.optimizer import Optimizers
from vidllava.training.report import LEDGER_FILE, METRICS_FILE

COMPLETE = "COMPLETE"
STATE_FILE = "trainer_state.json"
FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d+)")
_ASIDE = ".writing-"
_MAKES_A_MODEL = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    step: int
    state: dict[str, Any]


def write_checkpoint(output: Path, step: int, write: Callable[[Path], None], *, keep: int | None) -> Path:
    """Call `write(folder)` on a folder aside, then make it `output/checkpoint-<step>` at once.

    Afterwards only the newest `keep` checkpoints stay (None = all). Raises ResourceError if it cannot be
    written: nothing half-written stays, and the earlier checkpoints are untouched.
    """
    final = output / f"checkpoint-{step}"
    aside = output / f"{_ASIDE}checkpoint-{step}"
    with writing(aside):
        write(aside)
        _seal(aside)
        if final.exists():  # an earlier, torn one of this name, or the same step saved again after a resume
            discard(final)
        aside.rename(final)
        flush_to_disk(output)
    for old in _numbered(output)[:-keep] if keep else []:
        discard(output / f"checkpoint-{old}")
    return final


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A fresh folder to write in; whatever goes wrong, it is removed, and a full disk is one clear line."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    except (OSError, SafetensorError) as fault:
        raise ResourceError(
            folder.parent, f"could not be written: {fault}", "free some space; earlier checkpoints are whole"
        ) from fault
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_checkpoint(output: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest complete checkpoint in `output`, and a line about each newer one that is not complete."""
    skipped: list[str] = []
    for step in reversed(_numbered(output)):
        try:
            return read_checkpoint(output / f"checkpoint-{step}"), tuple(skipped)
        except ModelError as fault:
            skipped.append(str(fault))
    return None, tuple(skipped)


def set_aside_after(output: Path, step: int) -> list[str]:
    """Rename the checkpoints of later steps, of which a run resumed after `step` is no longer the past.

    They would be counted as the newest: what the resumed run saves would be deleted in their favour.
    Returns a line about each.
    """
    lines = []
    for later in _numbered(output):
        if later > step:
            place = output / f"left-checkpoint-{later}"
            number = 1
            while place.exists():
                number += 1
                place = output / f"left-checkpoint-{later}-{number}"
            (output / f"checkpoint-{later}").rename(place)
            lines.append(f"checkpoint-{later} is not of this run's past any more: it is {place.name} now")
    return lines


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check that `folder` is a complete checkpoint. Raises ModelError saying what is missing."""
    if not folder.is_dir():
        raise ModelError(folder, "no such checkpoint", "--resume-from-checkpoint latest")
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        wrong = [
            n
            for n, size in sizes.items()
            if not (folder / n).is_file() or (folder / n).stat().st_size != size
        ]
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        step = int(state["step"])
    except FileNotFoundError:
        raise ModelError(folder, "is not a complete checkpoint", "use an earlier one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(folder, "has a damaged state", "use an earlier one") from None
    if wrong:
        raise ModelError(folder, f"{wrong[0]} is missing or has another size", "use an earlier checkpoint")
    if state.get("format") != FORMAT:
        raise ModelError(
            folder, f"has format {state.get('format')}, this version reads {FORMAT}", "update vidllava"
        )
    return Checkpoint(folder, step, state)


def publish(output: Path, write: Callable[[Path], None]) -> None:
    """Write the final model aside and move its files into `output` itself, one rename each."""
    with writing(output / f"{_ASIDE}final") as aside:
        write(aside)
        flush_tree(aside)
        # These make a folder a model: none while the files in it are of two models.
        for name in _MAKES_A_MODEL:
            (output / name).unlink(missing_ok=True)
        for path in sorted(aside.iterdir(), key=lambda p: p.name in _MAKES_A_MODEL):
            os.replace(path, output / path.name)
        flush_to_disk(output)


def discard(folder: Path) -> None:
    """Delete a checkpoint; its COMPLETE goes first, so a half-deleted one is never taken for a whole one."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def clean(output: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in output.glob(f"{_ASIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def _numbered(output: Path) -> list[int]:
    """Steps of the checkpoint folders in `output`, ascending."""
    names = (_NAME.fullmatch(path.name) for path in output.glob("checkpoint-*") if path.is_dir())
    return sorted(int(name.group(1)) for name in names if name)


def _seal(folder: Path) -> None:
    flush_tree(folder)
    sizes = {
        p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()
    }
    write_json(folder / COMPLETE, {"files": sizes})


OPTIMIZER_FILE = "optimizer.safetensors"
RANDOM_FILE = "random.safetensors"
Named = Iterable[tuple[str, nn.Parameter]]


def save_optimizer(optimizer: Optimizers, named: Named, folder: Path) -> None:
    """Write the optimizers' state of the `named` parameters that have one."""
    tensors = {}
    for name, parameter in named:
        for moment, value in optimizer.owner(parameter).state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / OPTIMIZER_FILE)


def load_optimizer(optimizer: Optimizers, named: Named, folder: Path) -> None:
    """Restore what `save_optimizer` wrote. Raises ModelError if it belongs to other parameters."""
    saved: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in _load(folder / OPTIMIZER_FILE).items():
        moment, _, name = key.partition(".")
        saved.setdefault(name, {})[moment] = value
    for name, parameter in named:
        state = saved.pop(name, {})  # empty: it never had a gradient
        owner = optimizer.owner(parameter)
        wanted = (
            {"momentum_buffer"} if isinstance(owner, torch.optim.Muon) else {"step", "exp_avg", "exp_avg_sq"}
        )
        moments = [value for moment, value in state.items() if moment != "step"]
        if state and (set(state) != wanted or any(value.shape != parameter.shape for value in moments)):
            raise ModelError(
                folder / OPTIMIZER_FILE,
                f"does not fit parameter {name}",
                "resume with the settings that it was saved with",
            )
        if state:
            # A fused AdamW keeps even its step count beside the parameter.
            owner.state[parameter] = {moment: value.to(parameter.device) for moment, value in state.items()}
    if saved:
        raise ModelError(
            folder / OPTIMIZER_FILE,
            f"has a state for {min(saved)}, which is not trained",
            "resume with the settings that it was saved with",
        )


def random_state(device: torch.device) -> torch.Tensor:
    """uint8 [n]: torch's generators on the CPU and, where used, the CUDA device; n is equal on all ranks."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    return torch.cat(parts)


def restore_random(state: torch.Tensor, device: torch.device) -> None:
    """Undo `random_state`. A state from another kind of device restores the CPU's part."""
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size])
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:], device)


def save_random(states: torch.Tensor, folder: Path) -> None:
    """Write the states of all processes, uint8 [world_size, n]."""
    save_file({"states": states.cpu().contiguous()}, folder / RANDOM_FILE)


def load_random(folder: Path, rank: int) -> torch.Tensor:
    """The state of process `rank`. Raises ModelError if there is none."""
    states = _load(folder / RANDOM_FILE).get("states")
    if states is None or rank >= len(states):
        raise ModelError(
            folder / RANDOM_FILE,
            f"holds no random numbers of process {rank}",
            "resume with as many processes as it was saved with",
        )
    return states[rank].clone()


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as fault:
        raise ModelError(path, f"cannot be read: {fault}", "use an earlier checkpoint") from None


LOCK_FILE = ".lock"
SETTINGS_FILE = "settings.json"
FINISHED_FILE = "finished.json"  # written after the final weights, with the state that a checkpoint has
_FINAL = ("config.json", "adapter_config.json")


@contextmanager
def claimed(output: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Create and lock the output folder, and remove what a killed run left half-written.

    Raises UsageError if another run holds it, or an earlier run's results lie there and neither `resume`
    nor `overwrite` is given (then `make_room` deletes them); ResourceError if it cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        handle = os.open(output / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except FileExistsError:
        raise UsageError("--output-dir", f"{output} is a file", "give a folder") from None
    except OSError as fault:
        raise ResourceError(
            output, f"cannot be written to: {fault.strerror}", "another --output-dir"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                "--output-dir", f"{output} is in use by another run", "give another folder"
            ) from None
        clean(output)
        if not resume:
            make_room(output, overwrite=overwrite)
        yield output
    finally:
        os.close(handle)


def results(output: Path) -> list[Path]:
    """The files and checkpoint folders that a run writes while it goes on, where they are there."""
    names = (METRICS_FILE, LEDGER_FILE, SETTINGS_FILE, FINISHED_FILE)
    files = [output / name for name in names if (output / name).exists()]
    return files + [path for path in output.glob("checkpoint-*") if path.is_dir()]


def make_room(output: Path, *, overwrite: bool) -> None:
    """Delete an earlier run's results with `overwrite`. Raises UsageError where there are some without it."""
    found = results(output)
    if not found:
        return
    if not overwrite:
        raise UsageError(
            "--output-dir",
            f"{output} holds an earlier run",
            "--resume-from-checkpoint latest, --overwrite-output-dir, or another folder",
        )
    for path in found:
        if path.is_dir():
            discard(path)
        else:
            path.unlink()


def finished_run(output: Path) -> Checkpoint | None:
    """The run that has left its final weights in `output`; None where there is none, or they are gone."""
    try:
        state = json.loads((output / FINISHED_FILE).read_text(encoding="utf-8"))
        found = Checkpoint(output, int(state["step"]), state)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if any((output / name).exists() for name in _FINAL) else None


def settings_there(output: Path) -> dict[str, Any] | None:
    """What settings.json of an earlier start says; None where it is missing or is not one."""
    try:
        found = json.loads((output / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
