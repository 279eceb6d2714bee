"""The pixels of the planned frames, upright, with the times they were really shown at.

Frame i is the i-th frame of a sequential decode. PyAV finds it by verified seeks (``planned_reader``), and
where any check fails by decoding from the start, so that nothing comes back grey or shifted.

    batch = decode(info, plan_frames(info.frame_times, SamplingRequest(num_frames=8), source=info.path))
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vidllava.errors import ResourceError, UsageError
from vidllava.media.decoders import NotReliable, decoders
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady, side_of
from vidllava.media.probe import VideoInfo

BACKEND_VARIABLE = "VIDLLAVA_VIDEO_BACKEND"
MAX_BATCH_BYTES = 4 << 30


def choose_backend(name: str | None) -> tuple[str, str]:
    """(backend, reason) for ``name``, else for VIDLLAVA_VIDEO_BACKEND, else PyAV. ``auto`` is PyAV too.

    Raises UsageError for an unknown name, and for a decoder whose package is not installed.
    """
    asked_by = "--video-backend"
    if name is None and os.environ.get(BACKEND_VARIABLE):
        name, asked_by = os.environ[BACKEND_VARIABLE], BACKEND_VARIABLE
    if name is None or name == "auto":
        return "pyav", "default: exact on every container, and always installed"
    found = decoders()
    if name not in found:
        raise UsageError(asked_by, f"{name!r} is unknown", listed(("auto", *found)))
    if importlib.util.find_spec(found[name].PACKAGE) is None:
        raise UsageError(asked_by, f"{name} is not installed", found[name].INSTALL)
    return name, f"asked for by {asked_by}"


def decode(
    info: VideoInfo,
    plan: FramePlan,
    *,
    backend: str = "pyav",
    size: FrameSize | None = None,
    out: npt.NDArray[np.uint8] | None = None,
    on_ready: OnReady | None = None,
) -> FrameBatch:
    """The planned frames of a probed file: always ``len(plan)`` of them, in the order of the plan.

    ``size`` None gives frames as they are displayed, [T, info.height, info.width, 3]; a size makes each a
    square of side S (``pixels.resize_frames``) as soon as it is converted. ``out`` receives the pixels, where
    the caller has room for them; ``on_ready`` hears of each frame when it is final (see ``OnReady``).

    A planned frame that damage has destroyed is replaced by the one that a player would still be showing:
    the last good frame before it. The batch's plan, times and notes say so. Another decoder than PyAV
    is used where it vouches for its frames; else PyAV decodes, and a note says why.

    Raises UsageError for a plan of another file; MediaError where more than 10 % of the packets or half of
    the planned frames cannot be decoded; ResourceError where the frames would exceed ``MAX_BATCH_BYTES``.
    """
    check_plan(info, plan, size, bounded=out is None)
    found = decoders()
    if backend not in found:
        raise UsageError("backend", f"{backend!r} is unknown", listed(tuple(found)))
    shape = (len(plan), *((info.height, info.width) if size is None else (side_of(size),) * 2), 3)
    pixels = np.empty(shape, dtype=np.uint8) if out is None else out
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"out must be uint8 {list(shape)}, got {pixels.dtype} {list(pixels.shape)}")
    hear: OnReady = on_ready or (lambda place, pixels: None)
    try:
        return found[backend].decode(info, plan, size, pixels, hear)
    except NotReliable as why_not:
        batch = found["pyav"].decode(info, plan, size, pixels, hear)
        return replace(batch, notes=(f"{backend} was not used: {why_not}; decoded with PyAV", *batch.notes))


def check_plan(info: VideoInfo, plan: FramePlan, size: FrameSize | None, *, bounded: bool = True) -> None:
    """Raises what ``decode`` raises before it decodes; ``bounded`` by ``MAX_BATCH_BYTES``."""
    if plan.indices[-1] >= info.num_frames:
        raise UsageError(
            info.path,
            f"the plan asks for frame {plan.indices[-1]} of {info.num_frames}",
            "make a plan for this file",
        )
    times = info.frame_times[list(plan.indices)]
    if float(np.abs(times - np.array(plan.timestamps_seconds)).max()) > 1e-3:
        raise UsageError(info.path, "the plan's times are not this file's", "make a plan for this file")
    if size is not None and side_of(size) < 1:
        raise UsageError("size", f"must be at least 1, got {size}", "for example 384")
    frame_bytes = 3 * (side_of(size) ** 2 if size is not None else info.width * info.height)
    if bounded and len(plan) * frame_bytes > MAX_BATCH_BYTES:
        raise ResourceError(
            info.path,
            f"{len(plan)} frames need {len(plan) * frame_bytes / 2**30:.1f} GiB, over the limit of "
            f"{MAX_BATCH_BYTES >> 30} GiB",
            f"ask for at most {MAX_BATCH_BYTES // frame_bytes} frames, for example with --max-frames",
        )


def listed(names: tuple[str, ...]) -> str:
    """``a, b or c``."""
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
