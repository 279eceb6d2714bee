"""The pixels of the planned frames, upright, with the times they were really shown at.

Frame i is the i-th frame of a sequential decode, and that is how it is found: decode from the start, keep
the planned frames, stop after the last. Nothing is sought, so nothing can come back grey or shifted. Only
planned frames are converted, and resized at once where a size is given: memory is [T, S, S, 3].

    batch = decode(info, plan_frames(info.frame_times, SamplingRequest(num_frames=8), source=info.path))
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from vidllava.errors import MediaError, ResourceError, UsageError
from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.orientation import Orientation
from vidllava.media.probe import VideoInfo
from vidllava.media.reader import Damage, walk

BACKENDS = ("pyav", "decord")
BACKEND_VARIABLE = "VIDLLAVA_VIDEO_BACKEND"
MAX_BATCH_BYTES = 4 << 30

# A plan is not answered with stand-ins for more than this share of its frames.
MAX_LOST_FRAMES = 0.5

# A decoder holds back at most 16 frames (H.264 and HEVC): a stamp this far past means the wanted one is lost.
_REORDER_DEPTH = 16
_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED

Picture = npt.NDArray[np.uint8]
Convert = Callable[[VideoFrame], Picture]


def choose_backend(name: str | None) -> tuple[str, str]:
    """(backend, reason) for ``name``, else for VIDLLAVA_VIDEO_BACKEND, else PyAV. ``auto`` is PyAV too.

    Raises UsageError for an unknown name, or decord where it is not installed.
    """
    asked_by = "--video-backend"
    if name is None and os.environ.get(BACKEND_VARIABLE):
        name, asked_by = os.environ[BACKEND_VARIABLE], BACKEND_VARIABLE
    if name is None or name == "auto":
        return "pyav", "default: exact on every container, and always installed"
    if name not in BACKENDS:
        raise UsageError(asked_by, f"{name!r} is unknown", "auto, pyav or decord")
    if name == "decord" and importlib.util.find_spec("decord") is None:
        raise UsageError(
            asked_by, "decord is not installed", "pip install decord; it has wheels for Linux x86-64"
        )
    return name, f"asked for by {asked_by}"


def decode(info: VideoInfo, plan: FramePlan, *, backend: str = "pyav", size: int | None = None) -> FrameBatch:
    """The planned frames of a probed file: always ``len(plan)`` of them, in the order of the plan.

    ``size`` None gives frames as they are displayed, [T, info.height, info.width, 3]; ``size`` S resizes
    each to [S, S] (``pixels.resize_frames``) as soon as it is converted.

    A planned frame that damage has destroyed is replaced by the one that a player would still be showing:
    the last good frame before it. The batch's plan, times and notes say so. ``backend="decord"`` is
    checked against the probe and falls back to PyAV, with a note, where it cannot be relied upon.

    Raises UsageError for a plan of another file; MediaError where more than 10 % of the packets or half of
    the planned frames cannot be decoded; ResourceError where the frames would exceed ``MAX_BATCH_BYTES``.
    """
    _check(info, plan, size)
    if backend not in BACKENDS:
        raise UsageError("backend", f"{backend!r} is unknown", " or ".join(BACKENDS))
    notes: tuple[str, ...] = ()
    if backend == "decord":
        from vidllava.media.decord_reader import decode_with_decord

        batch, why_not = decode_with_decord(info, plan, size)
        if batch is not None:
            return batch
        notes = (f"decord was not used: {why_not}; decoded with PyAV",)
    return _decode_with_pyav(info, plan, size, notes)


def _check(info: VideoInfo, plan: FramePlan, size: int | None) -> None:
    if plan.indices[-1] >= info.num_frames:
        raise UsageError(
            info.path,
            f"the plan asks for frame {plan.indices[-1]} of {info.num_frames}",
            "make a plan for this file",
        )
    times = info.frame_times[list(plan.indices)]
    if float(np.abs(times - np.array(plan.timestamps_seconds)).max()) > 1e-3:
        raise UsageError(info.path, "the plan's times are not this file's", "make a plan for this file")
    if size is not None and size < 1:
        raise UsageError("size", f"must be at least 1, got {size}")
    frame_bytes = 3 * (size * size if size is not None else info.width * info.height)
    if len(plan) * frame_bytes > MAX_BATCH_BYTES:
        raise ResourceError(
            info.path,
            f"{len(plan)} frames need {len(plan) * frame_bytes / 2**30:.1f} GiB, over the limit of "
            f"{MAX_BATCH_BYTES >> 30} GiB",
            f"ask for at most {MAX_BATCH_BYTES // frame_bytes} frames, for example with --max-frames",
        )


def _decode_with_pyav(
    info: VideoInfo, plan: FramePlan, size: int | None, notes: tuple[str, ...]
) -> FrameBatch:
    """One pass that collects every planned frame by its stamp, or by its number where stamps fail."""
    by_stamp = info.frame_ticks is not None
    names = list(plan.indices) if info.frame_ticks is None else info.frame_ticks[list(plan.indices)].tolist()
    convert = _Converter(info, size)
    pixels = np.empty((len(plan), *convert.shape, 3), dtype=np.uint8)

    def collect(wanted: set[int]) -> tuple[set[int], list[int], Damage]:
        places = [(place, name) for place, name in enumerate(names) if name in wanted]

        def visit(frames: Iterator[VideoFrame]) -> tuple[set[int], list[int]]:
            return _take(frames, places, pixels, convert, by_stamp=by_stamp)

        max_threads = None if by_stamp else 1
        (taken, seen), damage = walk(
            info.path,
            info.stream_index,
            visit,
            complete=lambda found: found[0] == wanted,
            max_threads=max_threads,
        )
        return taken, seen, damage

    taken, seen, damage = collect(set(names))
    damage.check(info.path, info.num_frames)
    lost = [place for place, name in enumerate(names) if name not in taken]
    if not seen or len(lost) > MAX_LOST_FRAMES * len(names):
        raise MediaError(
            info.path,
            f"is damaged: {len(lost)} of the {len(names)} planned frames cannot be decoded",
            "copy or download it again, or choose another range",
        )
    if lost:
        for place in lost:
            names[place] = max((name for name in seen if name < names[place]), default=min(seen))
        collect({names[place] for place in lost})
        plan = _with_stand_ins(info, plan, names, lost)
        notes = (
            *notes,
            f"{len(lost)} planned frames cannot be decoded: the last good one before each is shown",
        )
    times = np.array(plan.timestamps_seconds, dtype=np.float64)
    return FrameBatch(
        pixels, times, plan, backend="pyav", notes=(*notes, *convert.notes(info), *damage.notes())
    )


def _take(
    frames: Iterator[VideoFrame],
    places: list[tuple[int, int]],
    pixels: Picture,
    convert: Convert,
    *,
    by_stamp: bool,
) -> tuple[set[int], list[int]]:
    """Write each wanted frame to its places in ``pixels``; (names taken, all names seen until the end)."""
    wanted: dict[int, list[int]] = {}
    for place, name in places:
        wanted.setdefault(name, []).append(place)
    last = max(wanted)
    taken: set[int] = set()
    seen: list[int] = []
    beyond = 0
    for number, frame in enumerate(frames):
        stamp = frame.pts if by_stamp else number
        if stamp is None:
            continue
        seen.append(stamp)
        if stamp in wanted and stamp not in taken:
            taken.add(stamp)
            pixels[wanted[stamp]] = convert(frame)
        beyond += stamp > last
        if len(taken) == len(wanted) or beyond > _REORDER_DEPTH:
            break
    return taken, seen


def _with_stand_ins(info: VideoInfo, plan: FramePlan, names: list[int], lost: list[int]) -> FramePlan:
    """The plan that was really followed: its lost frames replaced by the ones shown in their stead."""
    indices, times = list(plan.indices), list(plan.timestamps_seconds)
    for place in lost:
        index = names[place]
        if info.frame_ticks is not None:
            index = int(np.searchsorted(info.frame_ticks, names[place], side="right")) - 1
        indices[place] = min(max(index, 0), info.num_frames - 1)
        times[place] = float(info.frame_times[indices[place]])
    return FramePlan(plan.instants_seconds, tuple(indices), tuple(times), plan.reason)


class _Converter:
    """From a decoded frame to upright RGB: [info.height, info.width, 3], or [size, size, 3]."""

    def __init__(self, info: VideoInfo, size: int | None) -> None:
        self.shape = (info.height, info.width) if size is None else (size, size)
        self.num_rescaled = 0
        """Frames of another size than the first: a stream may change it on its way."""
        self.num_untagged = 0
        """Frames whose colour matrix swscale does not know."""
        self._size = size
        self._turn = Orientation(info.rotation, info.mirrored)
        # Turning the upright size once more gives the stored one.
        self._stored = self._turn.size(info.width, info.height)

    def __call__(self, frame: VideoFrame) -> Picture:
        self.num_rescaled += (frame.width, frame.height) != self._stored
        picture = self._turn.apply(self._to_rgb(frame))
        if self._size is None:
            return picture
        from vidllava.media.pixels import resize_frames

        return resize_frames(picture[None], self._size)[0].permute(1, 2, 0).numpy()

    def _to_rgb(self, frame: VideoFrame) -> Picture:
        width, height = self._stored
        try:
            stored = frame.to_ndarray(format="rgb24", width=width, height=height)
        except av.error.FFmpegError:
            # Reserved and exotic matrices are refused outright; FFmpeg's own default is for untagged video.
            frame.colorspace = _UNTAGGED
            self.num_untagged += 1
            stored = frame.to_ndarray(format="rgb24", width=width, height=height)
        return stored.astype(np.uint8, copy=False)

    def notes(self, info: VideoInfo) -> tuple[str, ...]:
        """What had to be changed about the pictures."""
        found = []
        if self.num_rescaled:
            size = f"{info.width}x{info.height}"
            found.append(f"the picture size changes on the way: frames are scaled to {size}")
        if self.num_untagged:
            found.append("the colour matrix is unknown: converted as if there were no colour tags")
        return tuple(found)
