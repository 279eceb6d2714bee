"""Video files for the tests, made on the spot: every frame carries its own number as a bar code.

    clip = write_clip(tmp_path / "clip.mkv", num_frames=60, gop=12)
    read_number(pixels)  # which frame is this? raises AssertionError for anything but a clean frame

The code survives lossy codecs, resizing to 48 x 48 and nothing else: a turned, mirrored, grey or blended
picture fails its check sum.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

NUMBER_BITS, CHECK_BITS = 10, 6
BITS = NUMBER_BITS + CHECK_BITS
Picture = npt.NDArray[np.uint8]

# The upper part holds the code; below, a colour wheel turns slowly so that frames differ everywhere.
CODE_SHARE = 0.5
_MILLISECONDS = Fraction(1, 1000)


def numbered_picture(number: int, width: int = 128, height: int = 96) -> Picture:
    """uint8 [height, width, 3] that says which number it is, and which way is up."""
    assert 0 <= number < 1 << NUMBER_BITS
    code = number << CHECK_BITS | _check_sum(number)
    bits = np.array([code >> shift & 1 for shift in range(BITS - 1, -1, -1)], dtype=np.uint8)
    split = int(height * CODE_SHARE)
    columns = np.arange(width) * BITS // width
    x, y = np.arange(width)[None, :], np.arange(height - split)[:, None]
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:split] = np.where(bits[columns], 235, 16)[None, :, None]
    for channel, phase in enumerate((0.0, 2.1, 4.2)):
        picture[split:, :, channel] = 128 + 80 * np.sin(0.05 * x + 0.03 * y + 0.2 * number + phase)
    return picture


def read_number(picture: Picture) -> int:
    """The number in an upright [H, W, 3] frame of any size from 32 pixels across."""
    height, width = picture.shape[:2]
    rows = picture[int(height * CODE_SHARE * 0.3) : int(height * CODE_SHARE * 0.7)].mean(axis=(0, 2))
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    levels = rows[centres]
    assert np.all((levels < 90) | (levels > 160)), f"no clean bar code: {levels.round().tolist()}"
    code = int("".join("1" if level > 125 else "0" for level in levels), 2)
    number = code >> CHECK_BITS
    assert code & (1 << CHECK_BITS) - 1 == _check_sum(number), f"bar code fails its check sum: {code:#x}"
    return number


def _check_sum(number: int) -> int:
    return (number * 37 + 21) % (1 << CHECK_BITS)


def write_clip(
    path: Path,
    *,
    num_frames: int = 60,
    fps: int = 30,
    times_ms: Sequence[int] | None = None,
    codec: str | None = None,
    gop: int = 12,
    b_frames: int = 2,
    width: int = 128,
    height: int = 96,
    start_seconds: float = 0.0,
    pixel_format: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A clip of numbered frames; the container follows the suffix, the codec too unless named.

    ``times_ms`` gives each frame its own presentation time (variable rate); else frames follow at ``fps``.
    """
    codec = codec or {".webm": "libvpx-vp9", ".avi": "mpeg4", ".gif": "gif"}.get(path.suffix, "libx264")
    time_base = Fraction(1, fps) if times_ms is None else _MILLISECONDS
    stamps = range(num_frames) if times_ms is None else times_ms
    offset = round(start_seconds / time_base)
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options={**_quality(codec), **(options or {})})
        stream.width, stream.height = width, height
        stream.pix_fmt = pixel_format or ("rgb8" if codec == "gif" else "yuv420p")
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = time_base
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, width, height), format="rgb24")
            frame.pts, frame.time_base = stamp + offset, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _quality(codec: str) -> dict[str, str]:
    return {
        "libx264": {"preset": "ultrafast", "crf": "20"},
        "libx265": {"preset": "ultrafast", "crf": "20", "x265-params": "log-level=none:pools=1"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "500k"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
        "libsvtav1": {"preset": "12", "crf": "30"},
        "mpeg4": {"b": "2M"},
        "mpeg2video": {"b": "2M"},
    }.get(codec, {})


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write (a, b, c, d) times 65536 into the track header of an mp4: what a phone does when it is turned."""
    data = bytearray(path.read_bytes())
    # ISO 14496-12, 8.3.2: in a version 0 tkhd box the matrix starts 40 bytes after the four letters.
    start = data.index(b"tkhd") + 4 + 40
    struct.pack_into(">9i", data, start, *(v << 16 for v in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(data)
    return path


def add_to_sample_entry(path: Path, kind: bytes, content: bytes) -> Path:
    """Add a box to the first sample entry of an mp4 of one track, whose ``moov`` stands last."""
    data = bytearray(path.read_bytes())
    box = struct.pack(">I4s", 8 + len(content), kind) + content
    places, start, stop = [], 0, len(data)
    # ISO 14496-12: stsd has 8 bytes of its own before its entries; the entry is the first box in it.
    for wanted in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b""):
        while data[start + 4 : start + 8] != wanted and wanted:
            start += struct.unpack_from(">I", data, start)[0]
            assert start < stop
        places.append(start)
        stop = start + struct.unpack_from(">I", data, start)[0]
        start += 16 if wanted == b"stsd" else 8
    for place in places:
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(box))
    data[stop:stop] = box
    path.write_bytes(data)
    return path


def cut_by_edit_list(path: Path, num_frames: int) -> Path:
    """Let the edit list of a constant-rate mp4 hide its first ``num_frames`` frames."""
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") + 4
    media_time = struct.unpack_from(">i", data, start + 12)[0]
    tick = struct.unpack_from(">I", data, data.index(b"stts") + 16)[0]
    struct.pack_into(">i", data, start + 12, media_time + num_frames * tick)
    path.write_bytes(data)
    return path
