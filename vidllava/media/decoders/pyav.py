"""The planned frames with PyAV: by verified seeks, or picked out of one sequential pass.

A frame is known by its stamp, or by its number where stamps cannot name frames (``VideoInfo.frame_ticks``).
Only planned frames are converted, and resized at once where a size is given: memory is [T, S, S, 3].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from av.video.frame import VideoFrame

from vidllava.errors import MediaError
from vidllava.media.convert import Converter, Picture
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady
from vidllava.media.planned_reader import UnverifiedError, collect_planned
from vidllava.media.probe import VideoInfo
from vidllava.media.reader import Damage, walk
from vidllava.media.scan import count_frames

NAME, PACKAGE, INSTALL = "pyav", "av", "pip install av"
# A plan is not answered with stand-ins for more than this share of its frames.
MAX_LOST_FRAMES = 0.5

SILENT_DAMAGE = (
    "damaged: a strict decode fails beside these frames, an ordinary one reports nothing; "
    "decoded with one thread"
)

# A decoder holds back at most 16 frames (H.264 and HEVC): a stamp this far past means the wanted one is lost.
_REORDER_DEPTH = 16


def decode(
    info: VideoInfo,
    plan: FramePlan,
    size: FrameSize | None,
    pixels: Picture,
    on_ready: OnReady,
) -> FrameBatch:
    """See ``decoders``: serves every file; stand-ins for lost frames are noted."""
    because, damaged = info.sequential_because, False
    if not because:
        try:
            return _planned(info, plan, size, pixels, on_ready)
        except UnverifiedError as doubt:
            because, damaged = str(doubt), doubt.damaged
    batch = _sequential(info, plan, size, pixels, on_ready, one_thread=damaged)
    notes = batch.notes
    if damaged and not any(note.startswith("damaged") for note in notes):
        notes = (*notes, SILENT_DAMAGE)
    return replace(batch, method=f"decoded from the first frame on: {because}", notes=notes)


def _planned(
    info: VideoInfo, plan: FramePlan, size: FrameSize | None, pixels: Picture, on_ready: OnReady
) -> FrameBatch:
    assert info.frame_ticks is not None  # else there is a reason to decode in sequence
    convert = Converter(info, size)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(plan.indices):
        places.setdefault(int(info.frame_ticks[index]), []).append(place)

    def take(frame: VideoFrame) -> None:
        assert frame.pts is not None  # it is one of ours
        mine = places[frame.pts]
        pixels[mine] = convert(frame)
        for place in mine:
            on_ready(place, pixels)

    on_ready(None, pixels)
    done = collect_planned(info, list(places), take)
    times = np.array(plan.timestamps_seconds, dtype=np.float64)
    method = (
        f"decoded at most {done.num_packets} of {len(info.packets)} packets, in {done.num_runs} runs "
        f"on {done.num_threads} threads"
    )
    return FrameBatch(pixels, times, plan, backend="pyav", notes=tuple(convert.notes()), method=method)


def _sequential(
    info: VideoInfo,
    plan: FramePlan,
    size: FrameSize | None,
    pixels: Picture,
    on_ready: OnReady,
    *,
    one_thread: bool,
) -> FrameBatch:
    convert = Converter(info, size)
    names = list(plan.indices) if info.frame_ticks is None else info.frame_ticks[list(plan.indices)].tolist()
    found, damage = _collect(info, list(enumerate(names)), pixels, convert, on_ready, one_thread=one_thread)
    if damage.num_lost and not found.to_the_end:
        # It raises where too much is lost in all: the verdict must not depend on the frames asked for.
        count_frames(info.path, info.stream_index)
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
        places = [(place, names[place]) for place in lost]
        _collect(info, places, pixels, convert, lambda place, _: None, one_thread=True)
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
    convert: Converter,
    on_ready: OnReady,
    *,
    one_thread: bool,
) -> tuple[_Found, Damage]:
    """Write the frames of ``places`` (place in ``pixels``, name) to ``pixels`` in one pass.

    ``one_thread`` where there is damage: frame threads race for what it leaves, and an HEVC decoder may
    report none of it.
    """
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

    # Numbered frames must be the ones that the probe counted, and it counted with one thread. VP8 has no
    # check sums: on damage its frame threads show other pictures than one thread, without an error.
    one = one_thread or not by_stamp or info.codec == "vp8"
    return walk(info.path, info.stream_index, visit, complete=complete, max_threads=1 if one else None)


def _with_stand_ins(info: VideoInfo, plan: FramePlan, names: list[int], lost: list[int]) -> FramePlan:
    """The plan that was really followed: its lost frames replaced by the ones shown in their stead."""
    indices, times = list(plan.indices), list(plan.timestamps_seconds)
    for place in lost:
        index = names[place]
        if info.frame_ticks is not None:
            index = int(np.searchsorted(info.frame_ticks, names[place], side="right")) - 1
        indices[place] = min(max(index, 0), info.num_frames - 1)
        times[place] = float(info.frame_times[indices[place]])
    return replace(plan, indices=tuple(indices), timestamps_seconds=tuple(times))
