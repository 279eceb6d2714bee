"""Bounds beyond which a file is refused: bytes, streams, pixels, frames, seconds.

    Limits(decode_seconds=10).check_file("clip.mp4", num_bytes=3 << 40)   # ResourceError: over the limit

The defaults let every ordinary file through and stop what was made, or damaged, to exhaust a machine.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from vidllava.errors import ResourceError, UsageError

MOST_SECONDS = 1_000_000
"""Eleven days: the longest wait for one file."""
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one file; each is named by its flag where it is reached."""

    max_frame_pixels: int = 1 << 26
    """An 8K frame has 33 million pixels; beyond twice that a file is hostile or not meant for this."""
    max_file_frames: int = 2_000_000
    """Frames in a file: nine hours at 60 a second."""
    max_file_bytes: int = 64 << 30
    max_streams: int = 64
    """Streams of any kind in a file."""
    decode_seconds: float = 60.0
    """How long is waited for one look into a file or one clip's frames, where a worker decodes."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--max-pixels", self.max_frame_pixels),
            ("--max-file-frames", self.max_file_frames),
            ("--max-file-size", self.max_file_bytes),
            ("--max-streams", self.max_streams),
        ):
            if value < 1:
                raise UsageError(flag, f"must be at least 1, got {value}", "leave it out for the default")
        check_seconds("--decode-timeout", self.decode_seconds)

    def check_file(self, name: str, num_bytes: int) -> None:
        """Raises ResourceError for a file that is too large to be opened."""
        if num_bytes > self.max_file_bytes:
            what = f"has {num_bytes:,} bytes, over the limit of {self.max_file_bytes:,}"
            raise ResourceError(name, what, "raise --max-file-size, or cut the file")

    def check_streams(self, name: str, num_streams: int) -> None:
        """Raises ResourceError for a container of too many streams."""
        if num_streams > self.max_streams:
            what = f"has {num_streams} streams, over the limit of {self.max_streams}"
            raise ResourceError(name, what, "raise --max-streams, or copy the one stream out of it")

    def check_picture(self, name: str, width: int, height: int) -> None:
        """Raises ResourceError for a frame or a picture that is too large to be decoded."""
        if width * height > self.max_frame_pixels:
            what = f"has frames of {width}x{height}, over the limit of {self.max_frame_pixels:,} pixels"
            raise ResourceError(name, what, "scale it down, or raise --max-pixels")

    def check_frames(self, name: str, num_frames: int, *, counted_all: bool = True) -> None:
        """Raises ResourceError for a clip of too many frames; ``counted_all``: it has no more."""
        if num_frames > self.max_file_frames:
            what = f"has {num_frames:,} frames, over the limit of {self.max_file_frames:,}"
            if not counted_all:
                what = f"has more than {self.max_file_frames:,} frames, the limit"
            raise ResourceError(name, what, "raise --max-file-frames, or cut the file")


def check_seconds(flag: str, value: float) -> None:
    """Raises UsageError for a wait that is not a time or more than a clock of the system can count."""
    if not 0 < value <= MOST_SECONDS:
        what = f"must be more than 0 seconds and at most {MOST_SECONDS:,}, got {value:g}"
        raise UsageError(flag, what, "for example 60")


DEFAULT_LIMITS = Limits()


def parse_size(text: str, flag: str = "--max-file-size") -> int:
    """Bytes of ``"500M"``, ``"1.5 GiB"`` or ``"1000"``; units are powers of 1024. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(flag, f"{text!r} is not a size", "for example 500M or 64G")
    number = float(match[1])
    if number == math.inf:
        raise UsageError(flag, "is more bytes than can be counted", "for example 500M or 64G")
    return int(number * _UNITS[match[2].lower()])
