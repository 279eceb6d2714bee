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
import numpy.typing as npt

from vidllava.media.decoders import NotReliable, whole_batch
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady
from vidllava.media.orientation import Orientation
from vidllava.media.probe import VideoInfo

if TYPE_CHECKING:
    import decord

NAME, PACKAGE = "decord", "decord"
INSTALL = "pip install decord; it has wheels for Linux x86-64"
_CONTAINERS = ("mov", "matroska")
_CODECS = ("h264", "vp8", "vp9")
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_TIME_TOLERANCE_SECONDS = 1e-3


def decode(
    info: VideoInfo, plan: FramePlan, size: FrameSize | None, pixels: npt.NDArray[np.uint8], on_ready: OnReady
) -> FrameBatch:
    """See ``decoders``. Raises NotReliable."""
    if why_not := _unchecked_class(info):
        raise NotReliable(why_not)
    import decord

    # This silences decord's own copy of FFmpeg, not the one that PyAV brings.
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(os.path.abspath(info.path), ctx=decord.cpu(0), num_threads=1)
        if why_not := _disagreement(info, reader):
            raise NotReliable(why_not)
        frames = reader.get_batch(list(plan.indices)).asnumpy()
    except (decord.DECORDError, RuntimeError, AssertionError, StopIteration) as error:
        raise NotReliable(f"it failed with {type(error).__name__}") from error
    if frames.shape[1:] != (info.height, info.width, 3):
        what = f"its frames are {frames.shape[2]}x{frames.shape[1]}, not {info.width}x{info.height}"
        raise NotReliable(what)
    return whole_batch(frames, plan, size, pixels, on_ready, NAME)


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
