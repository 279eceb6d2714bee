"""Packets of a stream: what each states itself, where decoding may start, which ones a frame needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

NO_STAMP = -(1 << 63)
Start = Literal[0, 1, 2]
NO_START: Start = 0
CLEAN_START: Start = 1
OPEN_START: Start = 2


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """P packets of a stream in file order, which is the order of decoding; see ``scan``."""

    pts: npt.NDArray[np.int64] = field(repr=False)
    """[P] presentation stamps, ``NO_STAMP`` where there is none."""
    dts: npt.NDArray[np.int64] = field(repr=False)
    sizes: npt.NDArray[np.int64] = field(repr=False)
    """[P] bytes."""
    starts: npt.NDArray[np.uint8] = field(repr=False)
    """[P] whether decoding may start there: ``NO_START``, ``CLEAN_START`` or ``OPEN_START``."""
    shown: npt.NDArray[np.bool_] = field(repr=False)
    """[P] False for a packet that shows no picture of its own."""

    def __len__(self) -> int:
        return len(self.pts)

    @cached_property
    def numbers(self) -> dict[tuple[int, int], int]:
        """(stamp, size) -> packet, to know a packet again after a seek; ambiguous ones are left out."""
        found: dict[tuple[int, int], int] = {}
        for number, key in enumerate(zip(self.pts.tolist(), self.sizes.tolist(), strict=True)):
            found[key] = -1 if key in found else number
        return {key: number for key, number in found.items() if number >= 0}

    @cached_property
    def in_order(self) -> npt.NDArray[np.int64]:
        """The packets that show a picture, in the order of their stamps: sorted once, for clips of hours."""
        shown = np.flatnonzero(self.shown)
        return shown[np.argsort(self.pts[shown], kind="stable")]


@dataclass(frozen=True)
class Run:
    """Packets ``start`` to ``stop``, both included, to be decoded from a fresh decoder for ``ticks``."""

    start: int
    stop: int
    ticks: frozenset[int]

    @property
    def num_packets(self) -> int:
        """What it costs."""
        return self.stop - self.start + 1


def runs(index: PacketIndex, ticks: Sequence[int]) -> tuple[Run, ...]:
    """The fewest packets that are certain to give the frames stamped ``ticks``; in file order, disjoint.

    Raises KeyError for a stamp that no shown packet has.
    """
    order = index.in_order
    stamps = index.pts[order]
    starts = np.flatnonzero(index.starts)
    found: list[Run] = []
    for tick in sorted(set(ticks)):
        at = int(np.searchsorted(stamps, tick))
        if at == len(stamps) or stamps[at] != tick:
            raise KeyError(tick)
        number = int(order[at])
        found.append(Run(_start(index, starts, number), number, frozenset((tick,))))
    merged: list[Run] = []
    for run in sorted(found, key=lambda one: (one.start, one.stop)):
        if merged and run.start <= merged[-1].stop:
            last = merged[-1]
            run = Run(last.start, max(last.stop, run.stop), last.ticks | run.ticks)
            merged.pop()
        merged.append(run)
    return tuple(merged)


def _start(index: PacketIndex, starts: npt.NDArray[np.int64], number: int) -> int:
    """The last packet from which decoding gives packet ``number`` as a decode from the first one would."""
    at = int(np.searchsorted(starts, number, side="right")) - 1
    while at >= 0:
        start = int(starts[at])
        if index.starts[start] == CLEAN_START or index.pts[start] <= index.pts[number]:
            return start
        at -= 1
    return 0


def shares(parts: Sequence[Run], count: int) -> list[list[Run]]:
    """``parts`` in at most ``count`` consecutive groups of about equal numbers of packets."""
    total = sum(part.num_packets for part in parts)
    groups: list[list[Run]] = [[] for _ in range(count)]
    done = 0
    for part in parts:
        middle = done + part.num_packets / 2
        groups[min(int(middle * count / max(total, 1)), count - 1)].append(part)
        done += part.num_packets
    return [group for group in groups if group]


_IDR_H264, _SEI_H264 = 5, 6  # ITU-T H.264, table 7-1
_RECOVERY_POINT = 6  # ITU-T H.264, D.1
_IDR_HEVC = (19, 20)  # ITU-T H.265, table 7-1: IDR_W_RADL, IDR_N_LP
_CRA_OR_BLA_HEVC = (16, 17, 18, 21)
_OBU_SEQUENCE, _OBU_FRAMES = 1, (3, 6)  # AV1, 6.2.2: frame header, frame
_ALWAYS_CLEAN = ("mjpeg", "png", "prores", "dnxhd", "rawvideo", "ffv1")
_ALWAYS_OPEN = ("mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1")  # B pictures may lead an I picture
_NAL_BYTES, _OBU_BYTES = 256, 512  # more than the headers that are read here
_VP8_KEY = b"\x9d\x01\x2a"
_VP9_MARKER, _VP9_SYNC = 0b10, 0x498342
_PARAMETER_SETS = {"h264": 7, "hevc": 33}  # NAL units of sequence parameter sets
# Width and height, and what stands beside them in the same bytes (RFC 6386, 9.1; VP9 bitstream, 6.2.2; PNG).
_SIZE_FIELDS = {"vp8": slice(6, 10), "vp9": slice(3, 11), "png": slice(16, 24), "prores": slice(16, 20)}
_SEQUENCE_CODES = {
    "mpeg1video": b"\0\0\x01\xb3",
    "mpeg2video": b"\0\0\x01\xb3",
    "mpeg4": b"\0\0\x01\x20",
    "av1": b"\x0a",
}
_SEQUENCE_BYTES = 24
_START_CODE = b"\x00\x00\x01"


def is_hidden(codec: str, data: memoryview) -> bool:
    """True for a VP8 or VP9 packet that only updates references (an alt-ref) and shows nothing.

    RFC 6386, 9.1 (``show_frame`` is bit 4) and VP9 bitstream 6.2; a VP9 superframe always shows one frame.
    A packet that is not a valid start of a frame is not hidden but damaged.
    """
    first = data[0]
    if codec == "vp8":
        broken = not first & 1 and data[3:6] != _VP8_KEY
        return not first & 0x10 and not broken
    if codec != "vp9" or first >> 6 != _VP9_MARKER or data[-1] & 0xE0 == 0xC0:
        return False
    bit = 2 if first & 0x30 == 0x30 else 3  # profile 3 has one reserved bit more
    shows_existing = first >> bit & 1
    return not shows_existing and not first >> (bit - 2) & 1


def start_kind(codec: str, extradata: bytes, data: memoryview) -> Start:
    """Whether decoding may start at a packet that its container flags as key (see ``packets``).

    Containers flag more than that: an H.264 recovery point of a gradual refresh, an AV1 forward key frame.
    Codecs of which nothing is known here answer ``NO_START``.
    """
    if codec == "h264":
        return _h264_start(_nal_units(extradata, data, hevc=False))
    if codec == "hevc":
        return _hevc_start(_nal_units(extradata, data, hevc=True))
    if codec == "av1":
        return CLEAN_START if _shows_av1_key(bytes(data[:_OBU_BYTES])) else NO_START
    if codec == "vp8":
        return CLEAN_START if not data[0] & 1 and data[3:6] == _VP8_KEY else NO_START
    if codec == "vp9":
        return CLEAN_START if _is_vp9_key(bytes(data[:_OBU_BYTES])) else NO_START
    if codec in _ALWAYS_CLEAN:
        return CLEAN_START
    return OPEN_START if codec in _ALWAYS_OPEN else NO_START


def has_known_starts(codec: str) -> bool:
    """Whether ``start_kind`` can tell for this codec."""
    return codec in ("h264", "hevc", "av1", "vp8", "vp9", *_ALWAYS_CLEAN, *_ALWAYS_OPEN)


def size_key(codec: str, extradata: bytes, data: memoryview) -> bytes:
    """Bytes of a key packet that are others wherever the size of its pictures is another.

    They may be others for the same size too. Empty for codecs of which nothing is known here, and where the
    packet does not say (its size is then that of an earlier one).
    """
    if codec in _PARAMETER_SETS:
        hevc, kind = codec == "hevc", _PARAMETER_SETS[codec]
        units = _nal_units(extradata, data, hevc=hevc)
        return b"".join(unit for unit in units if (unit[0] >> 1 & 0x3F if hevc else unit[0] & 0x1F) == kind)
    head = bytes(data[:_OBU_BYTES])
    if codec in _SIZE_FIELDS:
        return head[_SIZE_FIELDS[codec]]
    if codec == "mjpeg":
        return _jpeg_size(head)
    if codec in _SEQUENCE_CODES:
        start = head.find(_SEQUENCE_CODES[codec])
        return head[start : start + _SEQUENCE_BYTES] if start >= 0 else b""
    return b""


def _jpeg_size(head: bytes) -> bytes:
    """Height and width in the frame header (ITU-T T.81, B.2.2), where it stands in ``head``."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        if 0xC0 <= head[at + 1] <= 0xCF and head[at + 1] not in (0xC4, 0xC8, 0xCC):
            return head[at + 5 : at + 9]
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return b""


def _is_vp9_key(data: bytes) -> bool:
    """Marker, profile, show_existing_frame 0, frame_type 0, and the sync code (VP9 bitstream, 6.2)."""
    bits = int.from_bytes(data[:5].ljust(5, b"\0"), "big")
    profile_3 = data[0] & 0x30 == 0x30
    kind = bits >> (34 - profile_3) & 3  # the two bits after marker, profile and its reserved bit
    sync = bits >> (8 - profile_3) & 0xFFFFFF
    return data[0] >> 6 == _VP9_MARKER and kind >> 1 == 0 and kind & 1 == 0 and sync == _VP9_SYNC


def _h264_start(units: Iterator[bytes]) -> Start:
    found: Start = NO_START
    for unit in units:
        kind = unit[0] & 0x1F
        if kind == _IDR_H264:
            return CLEAN_START
        if kind == _SEI_H264 and _is_exact_recovery_point(unit[1:]):
            found = OPEN_START
    return found


def _is_exact_recovery_point(messages: bytes) -> bool:
    """SEI messages with a recovery point of frame count 0 and an exact match (ITU-T H.264, D.1.8)."""
    at = 0
    while at + 2 < len(messages):
        kind = size = 0
        while at < len(messages) and messages[at] == 0xFF:
            kind, at = kind + 255, at + 1
        kind, at = kind + messages[at], at + 1
        while at < len(messages) and messages[at] == 0xFF:
            size, at = size + 255, at + 1
        if at + 1 >= len(messages):
            return False
        size, at = size + messages[at], at + 1
        if kind == _RECOVERY_POINT:
            # "1" is zero frames as an Exp-Golomb code, the bit after it says that the match is exact.
            return messages[at] >> 6 == 0b11
        at += size
    return False


def _hevc_start(units: Iterator[bytes]) -> Start:
    for unit in units:
        kind = unit[0] >> 1 & 0x3F
        if kind in _IDR_HEVC:
            return CLEAN_START
        if kind in _CRA_OR_BLA_HEVC:
            return OPEN_START
    return NO_START


def _shows_av1_key(data: bytes) -> bool:
    """A temporal unit with a sequence header and then a key frame that is shown (AV1, 5.3 to 5.9)."""
    at, sequence = 0, False
    while at < len(data):
        head = data[at]
        kind, extension, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        at += 1 + extension
        size, shift = 0, 0
        while sized and at < len(data):
            size |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not data[at - 1] & 0x80:
                break
        if kind == _OBU_SEQUENCE:
            # A reduced still picture header has no such bits in its frames.
            sequence = at < len(data) and not data[at] >> 3 & 1
        elif kind in _OBU_FRAMES:
            # show_existing_frame 0, frame_type 00 (key), show_frame 1
            return sequence and at < len(data) and data[at] >> 4 == 0b0001
        if not sized:
            return False
        at += size
    return False


def _nal_units(extradata: bytes, data: memoryview, *, hevc: bool) -> Iterator[bytes]:
    """The first bytes of each NAL unit: length-prefixed where ``extradata`` is an avcC or hvcC box."""
    if extradata[:1] == b"\x01":
        width = (extradata[21 if hevc else 4] & 3) + 1
        start = 0
        while start + width < len(data):
            yield bytes(data[start + width : start + width + _NAL_BYTES])
            start += width + int.from_bytes(data[start : start + width], "big")
        return
    raw = bytes(data)
    start = raw.find(_START_CODE)
    while 0 <= start < len(raw) - 3:
        yield raw[start + 3 : start + 3 + _NAL_BYTES]
        start = raw.find(_START_CODE, start + 3)
