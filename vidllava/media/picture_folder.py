"""A folder of pictures as a clip: so many of them a second, in the natural order of their names.

info = folder_info("tvqa/frames_fps3_hq/ep1", 3.0, sampler)     # what probe would say of a video file
decode_folder(info, plan, picture=sampler.picture, size=384)

Data sets publish clips this way (MVBench's episodic reasoning, 3 pictures a second). The rate stands nowhere
in the files: whoever names the folder states it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vidllava.errors import MediaError, UsageError
from vidllava.media.bitstream import CLEAN_START, PacketIndex
from vidllava.media.files import NUMBER, picture_paths
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady, side_of
from vidllava.media.probe import VideoInfo

CONTAINER = "folder of pictures"
"""What ``VideoInfo.container`` says of one."""
Picture = npt.NDArray[np.uint8]


class _Pictures(Protocol):
    """The part of a ``Sampler`` that reads pictures."""

    def picture(self, path: str) -> Picture: ...


def folder_info(folder: str, rate: float | None, pictures: _Pictures) -> VideoInfo:
    """What ``probe`` would say of the clip; ``rate`` is its pictures a second.

    The size is that of the first picture, which is decoded. Raises MediaError for a folder without pictures
    or a first one that cannot be read, UsageError where no rate is given.
    """
    paths = picture_paths(folder)
    if rate is None:
        what = f"is a directory of {len(paths)} pictures, and how many make a second is not known"
        raise UsageError(folder, what, "--frame-rate 3, or `frame_rate` in a row")
    height, width = pictures.picture(paths[0]).shape[:2]
    count = len(paths)
    numbers = np.arange(count, dtype=np.int64)
    times = numbers / rate
    times.setflags(write=False)
    return VideoInfo(
        path=folder,
        container=CONTAINER,
        codec=os.path.splitext(paths[0])[1].lower().lstrip("."),
        width=width,
        height=height,
        rotation=0,
        mirrored=False,
        duration_seconds=count / rate,
        num_frames=count,
        frame_times=times,
        average_fps=rate,
        stream_index=0,
        num_video_streams=1,
        pixel_format="rgb24",
        clean_keys=True,
        sequential_because="",
        packets=PacketIndex(
            pts=numbers,
            dts=numbers,
            sizes=np.zeros(count, dtype=np.int64),
            starts=np.full(count, CLEAN_START, dtype=np.uint8),
            shown=np.ones(count, dtype=np.bool_),
        ),
        frame_ticks=numbers,
        time_base=1 / Fraction(rate).limit_denominator(1_000_000),
        notes=_gaps(paths),
    )


def _gaps(paths: list[str]) -> tuple[str, ...]:
    """That numbers are missing among the names: a picture's time is its place, not its number."""
    found = [NUMBER.findall(os.path.splitext(os.path.basename(path))[0]) for path in paths]
    numbers = [int(one[-1]) for one in found if one]
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    if len(numbers) < len(paths) or len(steps) <= 1:
        return ()
    return ("its pictures' numbers have gaps: each stands right after the one before, at the rate given",)


def decode_folder(
    info: VideoInfo,
    plan: FramePlan,
    *,
    picture: Callable[[str], Picture],
    size: FrameSize | None = None,
    out: npt.NDArray[np.uint8] | None = None,
    on_ready: OnReady | None = None,
) -> FrameBatch:
    """The planned pictures, one at a time, as ``decode.decode`` gives frames.

    With ``size`` they may be of different sizes, each is resized on its own. Raises MediaError for a picture
    that cannot be read, for one of another size where ``size`` is None, and for a folder that has changed.
    """
    paths = picture_paths(info.path)
    if len(paths) != info.num_frames:
        what = f"had {info.num_frames} pictures and now has {len(paths)}"
        raise MediaError(info.path, what, "try again once nothing is written there")
    height, width = (info.height, info.width) if size is None else (side_of(size),) * 2
    pixels = np.empty((len(plan), height, width, 3), dtype=np.uint8) if out is None else out
    for place, index in enumerate(plan.indices):
        pixels[place] = _fitted(paths[index], picture(paths[index]), info, size)
        if on_ready is not None:
            on_ready(place, pixels)
    return FrameBatch(
        pixels=pixels,
        timestamps_seconds=np.array(plan.timestamps_seconds, dtype=np.float64),
        plan=plan,
        backend="pillow",
        method="each picture on its own",
    )


def _fitted(path: str, picture: Picture, info: VideoInfo, size: FrameSize | None) -> Picture:
    if size is not None:
        from vidllava.media.pixels import resize_frames

        resized: Picture = resize_frames(picture[None], size)[0].permute(1, 2, 0).numpy()
        return resized
    if picture.shape[:2] != (info.height, info.width):
        size_of = f"{picture.shape[1]} x {picture.shape[0]}"
        what = f"is {size_of}, and the first picture of its folder {info.width} x {info.height}"
        raise MediaError(path, what, "scale the pictures of a clip to one size")
    return picture
