"""torchcodec as the decoder, where it is asked for, loads, and agrees with the probe; never taken on trust.

It scans the whole file first (``seek_mode="exact"``); its frame count, the size of its frames and the time of
every frame that it returns must be the probe's. Its builds are bound to one version of torch, and most of
them to CUDA libraries: one that does not load is told in one line.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from vidllava.errors import UsageError
from vidllava.media.decoders import NotReliable, whole_batch
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady
from vidllava.media.probe import VideoInfo

NAME, PACKAGE = "torchcodec", "torchcodec"
LOADS_TORCH = True
INSTALL = "pip install torchcodec, in the build for the torch that is here; or --video-backend pyav"
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_TIME_TOLERANCE_SECONDS = 1e-3


def decode(
    info: VideoInfo, plan: FramePlan, size: FrameSize | None, pixels: npt.NDArray[np.uint8], on_ready: OnReady
) -> FrameBatch:
    """See ``decoders``. Raises NotReliable, and UsageError where torchcodec does not load."""
    make_decoder = _load()
    if why_not := _unchecked_class(info):
        raise NotReliable(why_not)
    assert info.frame_ticks is not None  # else the class is unchecked
    wanted = info.frame_ticks[list(plan.indices)] * float(info.time_base)
    try:
        decoder = make_decoder(
            os.path.abspath(info.path),
            stream_index=info.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            seek_mode="exact",
        )
        if len(decoder) != info.num_frames:
            raise NotReliable(f"it counts {len(decoder)} frames, the file shows {info.num_frames}")
        decoder.get_frame_at(0)
        found = decoder.get_frames_at(list(plan.indices))
        frames, times = found.data.numpy(), found.pts_seconds.numpy()
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise NotReliable(f"it failed with {type(error).__name__}") from error
    shape = (len(plan), info.height, info.width, 3)
    if frames.dtype != np.uint8 or frames.shape != shape:
        raise NotReliable(f"it gives {frames.dtype} {list(frames.shape)}, not uint8 {list(shape)}")
    off = np.abs(times - wanted)
    wrong = np.flatnonzero(~(off <= _TIME_TOLERANCE_SECONDS))  # NaN is wrong too
    if len(wrong):
        first = int(wrong[0])
        what = f"it puts frame {plan.indices[first]} {off[first]:.3f} s off its presentation time"
        raise NotReliable(what)
    return whole_batch(frames, plan, size, pixels, on_ready, NAME)


def _load() -> Any:
    """The class ``VideoDecoder``. Raises UsageError in one line, whatever is missing."""
    try:
        return importlib.import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, OSError, RuntimeError, AttributeError) as fault:
        lines = str(fault).strip().splitlines() or [type(fault).__name__]
        raise UsageError("--video-backend", f"torchcodec does not load: {lines[0]}", INSTALL) from None


def _unchecked_class(info: VideoInfo) -> str:
    """Why this kind of file is not left to torchcodec, or an empty string."""
    if info.pixel_format not in _PIXEL_FORMATS:
        return f"it has not been compared on {info.pixel_format} pictures"
    if info.frame_ticks is None:
        return "the frames of this file can only be counted by decoding"
    if not info.clean_keys:
        return "it seeks to key frames, and one of this file's does not stand alone"
    if info.rotation or info.mirrored:
        return "its versions differ in whether they turn pictures"
    return ""
