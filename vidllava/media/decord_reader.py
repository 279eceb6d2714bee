"""decord as the decoder, where it can be checked; never trusted in silence.

decord returns wrong pictures without an error on whole classes of files (after a seek in HEVC and in open
GOPs, false colours above 8 bits, grey in 4:4:4, hidden packets counted as frames, endless loops in MPEG
program streams). So it is used only for classes in which it has been compared with a sequential decode,
only where every key frame stands alone, and its frame count and the time of every frame must agree with
the probe.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.orientation import Orientation
from vidllava.media.probe import VideoInfo

if TYPE_CHECKING:
    import decord

_CONTAINERS = ("mov", "matroska")
_CODECS = ("h264", "vp8", "vp9")
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_TIME_TOLERANCE_SECONDS = 1e-3


def decode_with_decord(info: VideoInfo, plan: FramePlan, size: int | None) -> tuple[FrameBatch | None, str]:
    """(the planned frames, "") or (None, why decord cannot be relied upon for this file)."""
    why_not = _unchecked_class(info)
    if why_not:
        return None, why_not
    import decord

    # This silences decord's own copy of FFmpeg, not the one that PyAV brings.
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(os.path.abspath(info.path), ctx=decord.cpu(0), num_threads=1)
        why_not = _disagreement(info, reader)
        if why_not:
            return None, why_not
        pixels = reader.get_batch(list(plan.indices)).asnumpy()
    except (decord.DECORDError, RuntimeError, AssertionError, StopIteration) as error:
        return None, f"it failed with {type(error).__name__}"
    if pixels.shape[1:] != (info.height, info.width, 3):
        return None, f"its frames are {pixels.shape[2]}x{pixels.shape[1]}, not {info.width}x{info.height}"
    if size is not None:
        from vidllava.media.pixels import resize_frames

        pixels = np.ascontiguousarray(resize_frames(pixels, size).permute(0, 2, 3, 1).numpy())
    times = np.array(plan.timestamps_seconds, dtype=np.float64)
    return FrameBatch(pixels, times, plan, backend="decord"), ""


def _unchecked_class(info: VideoInfo) -> str:
    """Why this kind of file is not left to decord, or an empty string."""
    if not info.container.startswith(_CONTAINERS):
        return f"it is not reliable on {info.container} files"
    if info.codec not in _CODECS:
        return f"it is not reliable on {info.codec} video"
    if info.pixel_format not in _PIXEL_FORMATS:
        return f"it is not reliable on {info.pixel_format} pictures"
    stored = Orientation(info.rotation).size(info.width, info.height)
    if stored[0] % 2 or stored[1] % 2:
        return f"it is not exact on odd sizes ({stored[0]}x{stored[1]})"
    if info.frame_ticks is None:
        return "the frames of this file can only be counted by decoding"
    if not info.clean_keys:
        return "it seeks to key frames, and one of this file's does not stand alone"
    if info.mirrored:
        return "it does not mirror pictures"
    if info.num_video_streams > 1:
        return f"it may take another of the {info.num_video_streams} video streams"
    return ""


def _disagreement(info: VideoInfo, reader: decord.VideoReader) -> str:
    """Where decord's own index contradicts the probe, or an empty string."""
    count = len(reader)
    if count != info.num_frames:
        return f"it counts {count} frames, the file shows {info.num_frames}"
    starts = reader.get_frame_timestamp(list(range(count)))[:, 0]
    off = np.abs((starts - starts[0]) - info.frame_times)
    worst = int(np.argmax(off))
    if not off[worst] <= _TIME_TOLERANCE_SECONDS:
        return f"it puts frame {worst} {off[worst]:.3f} s off its presentation time"
    return ""
