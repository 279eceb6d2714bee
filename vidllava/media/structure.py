"""Facts read from the structure of JPEG and ISO media files that no library here reports.

    list(jpegs(data, 3))                     # a raw motion JPEG stream, or pictures behind a picture
    stream_entry(data, track_id=1)           # of an mp4's track: clean aperture, Dolby Vision

``data`` is the whole file, mapped into memory: only what is looked at is read. Whatever is cut or damaged
ends a walk and raises nothing.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_JPEG_START = b"\xff\xd8\xff"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # the markers between SOF0 and SOF15 that are none
_MAX_FTYP_BYTES = 256
_VIDEO_ENTRY_BYTES = 78  # of a VisualSampleEntry before its boxes (12.1.3)
_MAX_BOXES = 4096


@contextmanager
def mapped(path: str | Path) -> Iterator[mmap.mmap]:
    """The bytes of a file that ``check_file`` passed."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


@dataclass(frozen=True)
class JpegPart:
    """One JPEG in a file that may hold several, one after the other."""

    stop: int
    """The byte after its end."""
    size: bytes
    """Height and width as they stand in its frame header."""
    has_index: bool
    """It lists other pictures of the file (Multi-Picture Format): they belong to it and are not frames."""


def jpegs(data: mmap.mmap, most: int) -> Iterator[JpegPart]:
    """The first ``most`` JPEGs that follow each other from the first byte on; a cut one is left out."""
    start = 0
    for _ in range(most):
        part = _jpeg(data, start)
        if part is None:
            return
        yield part
        start = part.stop


def _jpeg(data: mmap.mmap, start: int) -> JpegPart | None:
    """ITU-T T.81, annex B: segments with lengths, and coded data up to the next marker that ends it."""
    if data[start : start + 3] != _JPEG_START:
        return None
    at, size, has_index = start + 2, b"", False
    while at + 2 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xD9:
            return JpegPart(at + 2, size, has_index)
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME_HEADER:
            size = data[at + 5 : at + 9]
        has_index |= kind == 0xE2 and data[at + 4 : at + 8] == b"MPF\0"
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xDA:
            found = _JPEG_MARKER.search(data, at)
            if found is None:
                return None
            at = found.start()
    return None


def is_motion_jpeg(path: str | Path) -> bool:
    """Whether three JPEGs of one size follow each other: a camera's raw stream."""
    with mapped(path) as data:
        found = list(jpegs(data, 3))
    same = len({part.size for part in found}) == 1
    return len(found) == 3 and same and not any(part.has_index for part in found)


def has_clip_behind(data: mmap.mmap, start: int) -> bool:
    """Whether an MP4 file begins somewhere from ``start`` on: the clip of a motion photo."""
    at = data.find(b"ftyp", start)
    return at >= start + 4 and 8 <= int.from_bytes(data[at - 4 : at], "big") <= _MAX_FTYP_BYTES


@dataclass(frozen=True)
class Box:
    """A box of an ISO media file: its four letters, and where its content lies."""

    kind: bytes
    start: int
    stop: int


def boxes(data: mmap.mmap, start: int = 0, stop: int | None = None) -> Iterator[Box]:
    """The boxes between two bytes (ISO 14496-12, 4.2), at most 4096."""
    end = len(data) if stop is None else min(stop, len(data))
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        size = size or end - start  # 0: up to the end
        if size < head or start + size > end:
            return
        yield Box(kind, start + head, start + size)
        start += size


def _inside(data: mmap.mmap, box: Box | None, kind: bytes) -> Box | None:
    """The first box of ``kind`` within ``box``."""
    if box is None:
        return None
    return next((each for each in boxes(data, box.start, box.stop) if each.kind == kind), None)


def _track_id(data: mmap.mmap, track: Box) -> int | None:
    """From the track header (ISO 14496-12, 8.3.2)."""
    header = _inside(data, track, b"tkhd")
    if header is None or header.stop - header.start < 24:
        return None
    at = header.start + (20 if data[header.start] == 1 else 12)
    return int(struct.unpack_from(">I", data, at)[0])


@dataclass(frozen=True)
class StreamEntry:
    """What the first sample entry of a video track says that decoders do not apply."""

    clean_aperture: tuple[int, int] | None
    """(width, height) of the part that is meant to be shown (``clap``), rounded."""
    dolby_vision_profile: int | None
    """From ``dvcC`` or ``dvvC``."""


def stream_entry(data: mmap.mmap, track_id: int) -> StreamEntry | None:
    """The first sample entry of a track; None where there is none to be read."""
    movie = next((box for box in boxes(data) if box.kind == b"moov"), None)
    tracks = [box for box in boxes(data, movie.start, movie.stop) if box.kind == b"trak"] if movie else []
    found: Box | None = next((each for each in tracks if _track_id(data, each) == track_id), None)
    for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
        found = _inside(data, found, kind)
    if found is None:
        return None
    entry = next(boxes(data, found.start + 8, found.stop), None)  # after version, flags and their number
    if entry is None:
        return None
    aperture, profile = None, None
    for box in boxes(data, entry.start + _VIDEO_ENTRY_BYTES, entry.stop):
        content = data[box.start : box.stop]
        if box.kind == b"clap" and len(content) >= 16:
            width_n, width_d, height_n, height_d = struct.unpack_from(">4I", content)
            if width_d and height_d:
                aperture = round(width_n / width_d), round(height_n / height_d)
        elif box.kind in (b"dvcC", b"dvvC") and len(content) >= 4:
            profile = content[2] >> 1
    return StreamEntry(aperture, profile)
