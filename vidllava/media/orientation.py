"""Display matrices of video files as one of the eight upright views.

The matrix maps a stored pixel (p, q) to x = a p + c q, y = b p + d q (16.16 fixed point, y downwards; ISO
14496-12, 8.2.2). Phones write it instead of turning the pixels; PyAV hands it over and does not apply it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_TOLERANCE_DEGREES = 1.0


@dataclass(frozen=True)
class Orientation:
    """Turn the stored picture clockwise by ``rotation`` degrees, then mirror it left to right."""

    rotation: int = 0
    mirrored: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (height, width) if self.rotation % 180 else (width, height)

    def apply(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The upright view of [H, W, 3] pixels, contiguous."""
        upright = np.rot90(picture, k=-(self.rotation // 90))
        return np.ascontiguousarray(upright[:, ::-1] if self.mirrored else upright)


def orientation_from_matrix(matrix: bytes) -> tuple[Orientation, str | None]:
    """The nearest upright view for a 36-byte display matrix, and a note where it is not exactly that view."""
    if len(matrix) < 36:
        return Orientation(), "the display matrix is too short: ignored"
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    mirrored = a * d - b * c < 0
    if mirrored:
        # Undo the mirror first: it negates x, and x comes from a and c.
        a, c = -a, -c
    if math.hypot(a, b) < 1 or math.hypot(c, d) < 1:
        return Orientation(), "the display matrix is degenerate: ignored"
    degrees = math.degrees(math.atan2(b, a))
    rotation = round(degrees / 90) % 4 * 90
    off = abs((degrees - rotation + 180) % 360 - 180)
    note = (
        f"turned by {degrees:.0f} degrees: shown turned by {rotation}" if off > _TOLERANCE_DEGREES else None
    )
    return Orientation(rotation, mirrored), note
