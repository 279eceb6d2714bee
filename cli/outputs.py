"""Files that a command writes: checked before the work, written whole or not at all; the contact sheet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.errors import ResourceError, UsageError
from vidllava.files.writing import refuse_inputs, replacing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
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


CELL_PIXELS = 160  # a cell is at least so wide, so that a label fits
SHEET_PIXELS = 1600  # and so many cells stand beside each other as fit here
GAP, LABEL_PIXELS, TITLE_PIXELS = 8, 16, 22
PAPER, INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True, eq=False)
class Strip:
    """One media item: ``pixels`` uint8 [n, H, W, 3], and a label for each of the n."""

    title: str
    pixels: npt.NDArray[np.uint8]
    labels: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.pixels):
            raise ValueError(f"{len(self.labels)} labels for {len(self.pixels)} frames")


def contact_sheet(strips: Sequence[Strip]) -> Image:
    """All strips under one another, each with its title, its frames in reading order."""
    from PIL import Image, ImageDraw, ImageFont

    placed = [_Placement.of(strip) for strip in strips]
    width = max(placement.width for placement in placed)
    sheet = Image.new("RGB", (width, sum(placement.height for placement in placed) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    title_font, label_font = ImageFont.load_default(14), ImageFont.load_default(12)
    top = GAP
    for strip, placement in zip(strips, placed, strict=True):
        draw.text((GAP, top), strip.title, INK, font=title_font)
        for number, (frame, label) in enumerate(zip(strip.pixels, strip.labels, strict=True)):
            left, upper = placement.cell(number)
            picture = Image.fromarray(frame).resize(placement.size, Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top + upper))
            draw.text((left, top + upper + placement.size[1] + 1), label, INK, font=label_font)
        top += placement.height
    return sheet


@dataclass(frozen=True)
class _Placement:
    """Where the frames of one strip stand, below its title."""

    size: tuple[int, int]
    columns: int
    rows: int

    @classmethod
    def of(cls, strip: Strip) -> _Placement:
        count, height, width = strip.pixels.shape[:3]
        scale = max(1, -(-CELL_PIXELS // width))
        size = width * scale, height * scale
        columns = min(count, max(1, (SHEET_PIXELS - GAP) // (size[0] + GAP)))
        return cls(size, columns, -(-count // columns))

    @property
    def width(self) -> int:
        return GAP + self.columns * (self.size[0] + GAP)

    @property
    def height(self) -> int:
        return TITLE_PIXELS + self.rows * (self.size[1] + LABEL_PIXELS + GAP)

    def cell(self, number: int) -> tuple[int, int]:
        """(left, top) of frame ``number``, from the strip's own top."""
        row, column = divmod(number, self.columns)
        left = GAP + column * (self.size[0] + GAP)
        return left, TITLE_PIXELS + row * (self.size[1] + LABEL_PIXELS + GAP)
