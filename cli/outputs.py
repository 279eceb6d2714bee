"""Where results are written: checked before the work, and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vidllava.errors import ResourceError, UsageError
from vidllava.files.writing import refuse_inputs, replacing

if TYPE_CHECKING:
    from PIL.Image import Image


def check_file(flag: str, path: Path, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Raises UsageError if ``path`` is one of ``inputs``, not a file, or exists and may not be replaced."""
    if path.is_dir():
        raise UsageError(f"{flag} {path}", "is a folder", "give a file name")
    refuse_inputs(flag, path, inputs)
    if path.exists() and not path.is_file():
        raise UsageError(f"{flag} {path}", "is not a regular file", "give a file name")
    if path.exists() and not overwrite:
        raise UsageError(f"{flag} {path}", "exists already", "another name, or --overwrite")


def check_folder(folder: Path, flag: str = "") -> None:
    """Make ``folder`` if need be. Raises UsageError or ResourceError where nothing can be written in it."""
    thing = f"{flag} {folder}".lstrip()
    if os.path.exists(folder) and not folder.is_dir():
        raise UsageError(thing, "is a file, not a folder", "give another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ResourceError(thing, f"cannot be made: {fault.strerror}", "give another folder") from None
    if not os.access(folder, os.W_OK):
        raise ResourceError(thing, "no permission to write here", "give another folder")


def write_picture(picture: Image, path: Path, *, durable: bool = True) -> None:
    """Write a PNG, whole or not at all. Raises ResourceError."""
    with replacing(path, durable=durable) as file:
        picture.save(file, format="PNG")
