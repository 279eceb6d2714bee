"""What a compressed packet says of itself where its container does not: is it shown? is it a clean start?"""

from __future__ import annotations

_IDR_H264 = 5  # ITU-T H.264, table 7-1
_IDR_HEVC = (19, 20)  # ITU-T H.265, table 7-1: IDR_W_RADL, IDR_N_LP
_VP8_KEY = b"\x9d\x01\x2a"
_VP9_MARKER = 0b10
_START_CODE = b"\x00\x00\x01"


def is_hidden(codec: str, data: memoryview) -> bool:
    """True for a VP8 or VP9 packet that only updates references (an alt-ref) and shows nothing.

    RFC 6386, 9.1 (``show_frame`` is bit 4) and VP9 bitstream 6.2; a VP9 superframe always shows one frame.
    A packet that is no valid start of a frame is not hidden but damaged.
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


def is_clean_key(codec: str, extradata: bytes, data: memoryview) -> bool:
    """True where a packet flagged as key resets the decoder, so that nothing after it refers to before it.

    Containers flag more than that: an H.264 recovery point, an HEVC open GOP. Unknown codecs answer False,
    but for those whose key frames are clean by definition.
    """
    if codec in ("h264", "hevc"):
        for nal_byte in _nal_bytes(extradata, data, hevc=codec == "hevc"):
            if nal_byte & 0x1F == _IDR_H264 if codec == "h264" else nal_byte >> 1 & 0x3F in _IDR_HEVC:
                return True
        return False
    return codec in ("vp8", "vp9", "mjpeg", "png", "gif")


def _nal_bytes(extradata: bytes, data: memoryview, *, hevc: bool) -> list[int]:
    """The header byte of each NAL unit: length-prefixed where ``extradata`` is an avcC or hvcC box."""
    found = []
    if extradata[:1] == b"\x01":
        width = (extradata[21 if hevc else 4] & 3) + 1
        start = 0
        while start + width < len(data):
            found.append(data[start + width])
            start += width + int.from_bytes(data[start : start + width], "big")
        return found
    raw = bytes(data)
    start = raw.find(_START_CODE)
    while 0 <= start < len(raw) - 3:
        found.append(raw[start + 3])
        start = raw.find(_START_CODE, start + 3)
    return found
