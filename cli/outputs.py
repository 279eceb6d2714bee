"""Where results are written: checked before the work, and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.errors import ResourceError, UsageError
from vidllava.files.writing import refuse_inputs, replacing

if TYPE_CHECKING:
    from PIL.Image import Image


_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_MOST_PIXELS = {"JPEG": 65_500, "WEBP": 16_383}
_SAVED_WITH: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}


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


def picture_format(flag: str, path: Path) -> str:
    """The format that the ending of ``path`` names. Raises UsageError for another ending, and for ``-``."""
    if str(path) == "-":
        raise UsageError(f"{flag} -", "is standard output, where the answer goes", "give a file name")
    name = _FORMATS.get(path.suffix.lower())
    if name is None:
        what = f"has no ending of a picture: {path.suffix!r}" if path.suffix else "has no ending of a picture"
        raise UsageError(f"{flag} {path}", what, f"one of {', '.join(_FORMATS)}")
    return name


def write_picture(picture: Image, path: Path, *, durable: bool = True) -> None:
    """Write a picture in the format of its ending, whole or not at all.

    Raises ResourceError, also for one that is larger than the format can hold.
    """
    name = _FORMATS[path.suffix.lower()]
    if max(picture.size) > _MOST_PIXELS.get(name, max(picture.size)):
        what = f"has {picture.width} x {picture.height} pixels, more than {name} can hold"
        raise ResourceError(path, what, "a name that ends with .png, or fewer frames")
    with replacing(path, durable=durable) as file:
        picture.save(file, format=name, **_SAVED_WITH.get(name, {}))
