"""Where results are written: checked before the work, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vidllava.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image


def check_file(flag: str, path: Path, *, overwrite: bool) -> None:
    """Raises UsageError if ``path`` exists and may not be replaced, or its folder does not exist."""
    if path.is_dir():
        raise UsageError(f"{flag} {path}", "is a folder", "give a file name")
    if path.exists() and not overwrite:
        raise UsageError(f"{flag} {path}", "exists already", "another name, or --overwrite")


def check_folder(folder: Path) -> None:
    """Make ``folder`` if need be. Raises UsageError or ResourceError where nothing can be written in it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(str(folder), "is a file, not a folder", "give another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ResourceError(folder, f"cannot be made: {fault.strerror}", "give another folder") from None
    if not os.access(folder, os.W_OK):
        raise ResourceError(folder, "no permission to write here", "give another folder")


def write_picture(picture: Image, path: Path) -> None:
    """Write a PNG beside ``path`` and rename it: a reader never sees half of one.

    Raises ResourceError if the disk is full or the folder cannot be written.
    """
    try:
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as fault:
        raise ResourceError(path, f"cannot be written: {fault.strerror}", "give another folder") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            picture.save(file, format="PNG")
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    except OSError as fault:
        Path(unfinished).unlink(missing_ok=True)
        raise ResourceError(path, f"cannot be written: {fault.strerror}", "give another folder") from None
