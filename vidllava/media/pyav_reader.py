"""The planned frames, picked out of one sequential pass with PyAV.

A frame is known by its stamp, or by its number where stamps cannot name frames (``VideoInfo.frame_ticks``).
Only planned frames are converted, and resized at once where a size is given: memory is [T, S, S, 3].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from vidllava.errors import MediaError
from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.orientation import Orientation
from vidllava.media.probe import VideoInfo
from vidllava.media.reader import Damage, walk

# A plan is not answered with stand-ins for more than this share of its frames.
MAX_LOST_FRAMES = 0.5

# A decoder holds back at most 16 frames (H.264 and HEVC): a stamp this far past means the wanted one is lost.
_REORDER_DEPTH = 16
_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED

Picture = npt.NDArray[np.uint8]


def decode_with_pyav(
    info: VideoInfo,
    plan: FramePlan,
    size: int | None,
    pixels: Picture,
    on_ready: Callable[[int | None, Picture], None],
) -> FrameBatch:
    """The planned frames in ``pixels``, stand-ins for lost ones noted. See ``decode.decode``."""
    convert = _Converter(info, size)
    names = list(plan.indices) if info.frame_ticks is None else info.frame_ticks[list(plan.indices)].tolist()
    found, damage = _collect(info, list(enumerate(names)), pixels, convert, on_ready)
    damage.check(info.path, info.num_frames)
    lost = [place for place, name in enumerate(names) if name not in found.taken]
    if not found.seen or (damage.num_lost and len(lost) > MAX_LOST_FRAMES * len(names)):
        raise MediaError(
            info.path,
            f"is damaged: {len(lost)} of the {len(names)} planned frames cannot be decoded",
            "copy or download it again, or choose another range",
        )
    notes = []
    if lost:
        for place in lost:
            earlier = (name for name in found.seen if name < names[place])
            names[place] = max(earlier, default=min(found.seen))
        _collect(info, [(place, names[place]) for place in lost], pixels, convert, lambda place, _: None)
        for place in lost:
            on_ready(place, pixels)
        plan = _with_stand_ins(info, plan, names, lost)
        notes.append(f"{len(lost)} planned frames cannot be decoded: the last good one before each is shown")
    silent = found.num_missing(info) - damage.num_lost
    if silent > 0:
        notes.append(f"damaged: {silent} frames are missing without an error")
    times = np.array(plan.timestamps_seconds, dtype=np.float64)
    notes += [*convert.notes(), *damage.notes()]
    return FrameBatch(pixels, times, plan, backend="pyav", notes=tuple(notes))


@dataclass
class _Found:
    """What a pass over a stream met, by name: a stamp or a number."""

    taken: set[int] = field(default_factory=set)
    """Wanted frames that came."""
    seen: list[int] = field(default_factory=list)
    """All frames until the pass stopped."""
    to_the_end: bool = True

    def num_missing(self, info: VideoInfo) -> int:
        """Frames of the probe's list that should have come by now, and did not."""
        if info.frame_ticks is None:
            return max(info.num_frames - len(self.seen), 0) if self.to_the_end else 0
        due = info.frame_ticks
        if not self.to_the_end:
            due = due[due <= max(self.taken, default=-1)]
        return int(np.count_nonzero(~np.isin(due, np.array(self.seen, dtype=np.int64))))


def _collect(
    info: VideoInfo,
    places: list[tuple[int, int]],
    pixels: Picture,
    convert: _Converter,
    on_ready: Callable[[int | None, Picture], None],
) -> tuple[_Found, Damage]:
    """Write the frames of ``places`` (place in ``pixels``, name) to ``pixels`` in one pass."""
    wanted: dict[int, list[int]] = {}
    for place, name in places:
        wanted.setdefault(name, []).append(place)
    by_stamp = info.frame_ticks is not None

    def visit(frames: Iterator[VideoFrame]) -> _Found:
        found, last, beyond = _Found(), max(wanted), 0
        on_ready(None, pixels)
        for number, frame in enumerate(frames):
            name = frame.pts if by_stamp else number
            if name is None:
                continue
            found.seen.append(name)
            if name in wanted and name not in found.taken:
                found.taken.add(name)
                pixels[wanted[name]] = convert(frame)
                for place in wanted[name]:
                    on_ready(place, pixels)
            beyond += name > last
            if len(found.taken) == len(wanted) or beyond > _REORDER_DEPTH:
                found.to_the_end = False
                break
        return found

    def complete(found: _Found) -> bool:
        return len(found.taken) == len(wanted) and not found.num_missing(info)

    # Numbered frames must be the ones that the probe counted, and it counted with one thread.
    return walk(info.path, info.stream_index, visit, complete=complete, max_threads=None if by_stamp else 1)


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

    def notes(self) -> list[str]:
        """What had to be changed about the pictures."""
        found = []
        if self.num_rescaled:
            width, height = self._stored
            found.append(f"the picture size changes on the way: frames are scaled to {width}x{height}")
        if self.num_untagged:
            found.append("the colour matrix is unknown: converted as if there were no colour tags")
        return found
