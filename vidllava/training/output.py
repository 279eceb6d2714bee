"""The output folder of a run: one run at a time, nothing overwritten unasked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidllava.errors import ResourceError, UsageError
from vidllava.training import checkpoint
from vidllava.training.report import LEDGER_FILE, METRICS_FILE

LOCK_FILE = ".lock"
SETTINGS_FILE = "settings.json"


@contextmanager
def claimed(output: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Create and lock the output folder, and remove what a killed run left half-written.

    Raises UsageError if another run holds it, or an earlier run's results lie there and neither `resume`
    nor `overwrite` is given (then they are deleted); ResourceError if it cannot be written to.
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
            _make_room(output, overwrite=overwrite)
        yield output
    finally:
        os.close(handle)


def _make_room(output: Path, *, overwrite: bool) -> None:
    results = [
        output / name for name in (METRICS_FILE, LEDGER_FILE, SETTINGS_FILE) if (output / name).exists()
    ]
    folders = [path for path in output.glob("checkpoint-*") if path.is_dir()]
    if not results and not folders:
        return
    if not overwrite:
        raise UsageError(
            "--output-dir",
            f"{output} holds an earlier run",
            "--resume-from-checkpoint latest, --overwrite-output-dir, or another folder",
        )
    for path in results:
        path.unlink()
    for folder in folders:
        checkpoint.discard(folder)
