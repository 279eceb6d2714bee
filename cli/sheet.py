"""The contact sheet: what the model saw, in one picture, each frame with its time under it.

Frames are shown as the vision tower reads them: square, at its own size, only enlarged in whole steps where
they are very small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

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
