"""The output folder of a run: one run at a time, nothing overwritten unasked."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidllava.errors import ResourceError, UsageError
from vidllava.training import checkpoint
from vidllava.training.checkpoint import Checkpoint
from vidllava.training.report import LEDGER_FILE, METRICS_FILE

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
        checkpoint.clean(output)
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
            checkpoint.discard(path)
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
