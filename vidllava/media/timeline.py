"""The instants wanted of a clip and the frames that they fall on. Pure arithmetic: no decoder, no torch.

A frame is on screen from its own presentation time until the next frame's: half-open, ``[t_i, t_i+1)``. A
range ``[start, end)`` holds every frame that is on screen in it: the one on screen at ``start``, which may
have begun long before, and those that start inside. Times are true presentation times, never index / rate,
so a variable frame rate and a late start need no special case.

    plan_frames(info.frame_times, SamplingRequest(num_frames=8), source="clip.mp4")
"""

from __future__ import annotations

import heapq
import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vidllava.errors import UsageError
from vidllava.media.frames import FramePlan

Rule = Literal["linspace", "midpoints"]
Sampling = Literal["time", "index"]
Times = npt.NDArray[np.float64]

# Matroska stores whole milliseconds, so a frame's time and the clip's start may each be half of one off.
# An instant this close before a frame's start counts as reaching it, and every container gives one answer.
# Not a whole number of halves: at 29.97 frames a second the second frame of `--fps 1` starts at 1.0010 s.
CLOCK_TOLERANCE_SECONDS = 1.25e-3

_RATE_EXAMPLE = "for example 1, 0.5 or 30000/1001"
LOWEST_FPS, HIGHEST_FPS = 1e-12, 1e12
_RATE = re.compile(r"([^/]+)(?:/([^/]+))?")
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """What the user asked for; ``None`` means not asked. Neither count nor rate: every frame of the range."""

    num_frames: int | None = None
    """Exactly this many frames; all of them where the range holds fewer."""
    fps: float | None = None
    """Frames per second of clip time; excludes ``num_frames``."""
    max_frames: int | None = None
    """At most this many: a longer plan is spread anew over the same range by ``rule``."""
    start_seconds: float | None = None
    """First instant of the range, from the clip's start."""
    end_seconds: float | None = None
    """End of the range, itself outside."""
    rule: Rule = "linspace"
    """``linspace`` takes both ends (LLaVA); ``midpoints`` the middle of each of N equal parts."""
    sampling: Sampling | None = None
    """What ``num_frames`` are spread evenly over: ``time`` (None too), or ``index`` as LLaVA does. The same
    frames on a clip of constant rate."""
    keyframes: Literal["nearest"] | None = None
    """``nearest``: take the key frame nearest to each instant instead of the frame on screen then. Cheap to
    decode, up to half the distance between key frames off, and never without being asked for."""

    def __post_init__(self) -> None:
        if self.keyframes not in (None, "nearest"):
            raise UsageError("--keyframes", f"{self.keyframes!r} is unknown", "nearest")
        _check_count("--num-frames", self.num_frames)
        _check_count("--max-frames", self.max_frames)
        if self.num_frames is not None and self.fps is not None:
            raise UsageError("--fps", f"excludes --num-frames {self.num_frames}", "give one of the two")
        if self.fps is not None:
            _check_rate("--fps", self.fps)
        for flag, value in (("--start", self.start_seconds), ("--end", self.end_seconds)):
            # A bound below a float's: a whole number of a data set may be larger than any float.
            if value is not None and not 0 <= value < 1e300:
                raise UsageError(flag, f"must be 0 s or later, got {value}", "seconds or mm:ss")
        start = self.start_seconds or 0.0
        if self.end_seconds is not None and self.end_seconds <= start:
            what = f"{self.end_seconds:g} s must be after --start {start:g} s"
            raise UsageError("--end", what, "a later end or an earlier start")
        if self.rule not in ("linspace", "midpoints"):
            raise UsageError("--rule", f"{self.rule!r} is unknown", "linspace or midpoints")
        if self.sampling not in (None, "time", "index"):
            raise UsageError("--sampling", f"{self.sampling!r} is unknown", "time or index")


def _check_count(flag: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UsageError(flag, f"must be a whole number of at least 1, got {value}", "for example 8")


def _check_rate(thing: str, value: float) -> None:
    if not value > 0 or value == math.inf:
        raise UsageError(thing, f"must be a number above 0, got {value}", _RATE_EXAMPLE)
    if not LOWEST_FPS <= value <= HIGHEST_FPS:
        bounds = f"from {LOWEST_FPS:g} to {HIGHEST_FPS:g}"
        raise UsageError(thing, f"must be {bounds} frames a second, got {value}", _RATE_EXAMPLE)


def parse_rate(value: object, thing: str = "--fps") -> float:
    """Frames a second from a number, ``"0.5"`` or a fraction such as ``"30000/1001"``.

    The one reader of rates, for flags, for the rows of a batch and for those of a data set. ``thing`` names
    the value in the error. Raises UsageError for what is not a rate from ``LOWEST_FPS`` to ``HIGHEST_FPS``.
    """
    try:
        if isinstance(value, str):
            match = _RATE.fullmatch(value.strip())
            if match is None or not value.isascii() or "_" in value:
                raise ValueError
            rate = float(match[1]) / float(match[2] or 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rate = float(value)
        else:
            raise ValueError
    except OverflowError:
        rate = HIGHEST_FPS * 10
    except (ValueError, ZeroDivisionError):
        shown = repr(value if not isinstance(value, str) or len(value) <= 40 else f"{value[:37]}...")
        raise UsageError(thing, f"{shown} is not a rate", _RATE_EXAMPLE) from None
    _check_rate(thing, rate)
    return rate


def parse_time(text: str) -> float:
    """Seconds from ``12.5``, ``1:02.5`` (minutes) or ``1:02:03`` (hours). Raises UsageError for the rest."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(text, "is not a time", "seconds, mm:ss or hh:mm:ss, for example 12.5 or 1:02.5")
    hours, minutes, seconds = match.groups()
    for part, above in ((seconds, minutes), (minutes, hours)):
        if above is not None and float(part) >= 60:
            what = f"has {part} after a colon, where a time has less than 60"
            raise UsageError(text, what, "hh:mm:ss, for example 1:02:03")
    found = float(hours or 0) * 3600.0 + float(minutes or 0) * 60.0 + float(seconds)
    if found == math.inf:
        raise UsageError(text, "is more seconds than can be counted", "seconds, mm:ss or hh:mm:ss")
    return found


def plan_frames(
    frame_times: Times,
    request: SamplingRequest,
    *,
    source: str,
    key_frames: npt.NDArray[np.int64] | None = None,
    duration_seconds: float | None = None,
) -> FramePlan:
    """Which frames of a clip answer ``request``.

    ``frame_times`` is float64 [num_frames_in_file], sorted seconds from the clip's start. ``key_frames``
    int64 [K], sorted, are those that ``keyframes="nearest"`` may take (``VideoInfo.key_frames``).
    ``duration_seconds`` is the end of the last frame; without it that frame is taken to last as long as
    frames of the clip usually do. The plan's indices are strictly increasing and on screen in the range;
    ``sampling`` says which rule was followed, ``reason`` what changed the count.

    - ``num_frames`` (or ``max_frames``) with ``linspace``: N instants evenly from the start of the range to
      its last frame, and the frame on screen at each. Where one held frame is on screen at several of them,
      the frames in the middle of the longest stretches that are left make up the number.
    - with ``midpoints``: the middle of each of N equal parts of the range.
    - ``sampling="index"``: evenly over the n frames of the range by number, ``np.linspace(0, n - 1, N)`` cut
      to whole numbers, which is LLaVA's rule (300 frames, N = 8: 0 42 85 128 170 213 256 299), or
      ``floor((k + 0.5) * n / N)``. On a clip of constant rate both samplings take the same frames.
    - ``fps``: instants ``start + k / fps`` up to the last frame of the range, each showing the frame that
      is on screen then; frames met twice (a rate above the clip's own) are taken once.

    Raises UsageError naming ``source`` where ``start`` lies after the clip's end (or the range holds no key
    frame).
    """
    part = _part(frame_times, request, source, duration_seconds)
    plan = _planned(part, request)
    if request.keyframes is None:
        return plan
    keys = np.arange(0) if key_frames is None else key_frames
    keys = keys[(keys >= part.first) & (keys < part.last)]
    if len(keys) == 0:
        raise UsageError(
            source, f"no frame of {part.words} can be decoded alone", "leave out --keyframes nearest"
        )
    return _at_key_frames(frame_times, plan, keys)


@dataclass(frozen=True)
class _Part:
    """Frames ``first`` to ``last`` (excluded) of a clip, which are on screen from ``begin`` to ``stop``."""

    times: Times
    """Of all frames of the clip."""
    first: int
    last: int
    begin: float
    """The first instant that frames are looked for at."""
    stop: float
    usual_gap: float
    """Seconds that frames of the clip are usually on screen."""
    words: str

    @property
    def starts(self) -> Times:
        """[last - first] when each frame of the part starts."""
        return self.times[self.first : self.last]


def _at_key_frames(times: Times, plan: FramePlan, keys: npt.NDArray[np.int64]) -> FramePlan:
    """``plan`` with each instant's nearest key frame; one that is nearest to several is taken once."""
    right = np.clip(np.searchsorted(times[keys], plan.instants_seconds), 1, len(keys) - 1)
    right = right if len(keys) > 1 else np.zeros(len(plan), np.int64)
    left = np.maximum(right - 1, 0)
    instants = np.array(plan.instants_seconds)
    nearest = np.where(instants - times[keys[left]] <= times[keys[right]] - instants, left, right)
    taken, where = np.unique(nearest, return_index=True)
    off = float(np.abs(times[keys[nearest]] - instants).max())
    once = f", {len(taken)} of them once each" if len(taken) < len(plan) else ""
    reason = f"{plan.reason}; the nearest key frames instead{once}, up to {off:.2f} s off"
    return _plan(times, keys[taken], instants[where], reason, plan.sampling)


def _planned(part: _Part, request: SamplingRequest) -> FramePlan:
    count = part.last - part.first
    if request.fps is not None:
        instants, indices, rate_note = _by_rate(part, request)
        cap = request.max_frames
        if cap is None or len(indices) <= cap:
            reason = f"{request.fps:g} fps over {part.words}: {len(indices)} frames{rate_note}"
            return _plan(part.times, indices + part.first, instants, reason, "fps")
        why = f"{request.fps:g} fps would be {len(indices)} frames, over --max-frames {cap}"
        return _by_count(part, cap, request, f"{why}: ")
    wanted, why = request.num_frames, ""
    if wanted is None or (request.max_frames is not None and wanted > request.max_frames):
        if wanted is not None:
            why = f"{wanted} frames asked, over --max-frames {request.max_frames}: "
        wanted = request.max_frames if request.max_frames is not None else count
    return _by_count(part, wanted, request, why)


def _part(times: Times, request: SamplingRequest, source: str, duration_seconds: float | None) -> _Part:
    """The frames on screen in the range, by number and in words. Raises UsageError after the clip's end."""
    if len(times) == 0:
        raise ValueError("frame_times is empty")
    start, end = request.start_seconds or 0.0, request.end_seconds
    usual, last_start = _typical_gap(times), float(times[-1])
    clip_end = max(last_start + usual if duration_seconds is None else duration_seconds, last_start)
    if start > last_start + CLOCK_TOLERANCE_SECONDS and start >= clip_end - CLOCK_TOLERANCE_SECONDS:
        raise UsageError(
            source,
            f"--start {start:g} s is after the last frame at {last_start:.3f} s"
            + (f", shown until {clip_end:.3f} s" if clip_end > last_start else ""),
            "choose an earlier start",
        )
    first = int(np.searchsorted(times, start - CLOCK_TOLERANCE_SECONDS)) if start > 0 else 0
    held = first == len(times) or times[first] > start + CLOCK_TOLERANCE_SECONDS
    first -= held  # the one before it is still on screen
    last = len(times) if end is None else int(np.searchsorted(times, end - CLOCK_TOLERANCE_SECONDS))
    last = max(last, first + 1)
    # A frame that an end of the range cuts counts whole, as in a clip of constant rate, unless it is held.
    shown, gone = float(times[first]), float(times[last]) if last < len(times) else clip_end
    begin = start if start - shown > usual + CLOCK_TOLERANCE_SECONDS else shown
    stop = gone if end is None or gone - end <= usual + CLOCK_TOLERANCE_SECONDS else end
    if request.start_seconds is None and end is None:
        return _Part(times, first, last, begin, stop, usual, "the whole clip")
    words = f"{start:g} s to " + (f"{end:g} s" if end is not None else "the end")
    if begin > shown:
        words += f" (its first frame is on screen since {shown:.3f} s)"
    if end is not None and last == len(times) and end > last_start + 2 * usual:
        words += f" (the last frame is at {last_start:.3f} s)"
    return _Part(times, first, last, begin, stop, usual, words)


def _typical_gap(times: Times) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _by_rate(part: _Part, request: SamplingRequest) -> tuple[Times, npt.NDArray[np.int64], str]:
    """Instants at ``fps`` from the start of the range, and the frame on screen at each, taken once."""
    assert request.fps is not None
    origin = request.start_seconds or 0.0
    starts = part.starts - CLOCK_TOLERANCE_SECONDS
    # Frame by frame instead of instant by instant: a rate of a million costs no more than a rate of one.
    ticks = np.ceil((starts - origin) * request.fps)
    ticks[0] = 0.0
    instants = origin + ticks / request.fps
    met = np.append(instants[:-1] < starts[1:], True)
    # The last instant is the last one not after the last frame: a later one would show that frame again.
    until = float(part.starts[-1]) + CLOCK_TOLERANCE_SECONDS
    if part.stop - part.starts[-1] > part.usual_gap + CLOCK_TOLERANCE_SECONDS:
        until = part.stop - CLOCK_TOLERANCE_SECONDS  # it is held: an instant may lie beyond its start
    num_instants = int(np.floor((until - origin) * request.fps)) + 1
    met[-1] = ticks[-1] < max(num_instants, 1)
    indices = np.flatnonzero(met)
    note = ""
    if len(indices) < num_instants:
        note = f" (of {num_instants} instants; a frame that several fall on is taken once)"
    return instants[indices], indices.astype(np.int64), note


def _by_count(part: _Part, wanted: int, request: SamplingRequest, why: str) -> FramePlan:
    """``wanted`` frames of the part, spread by the request's rule and sampling; all, where it has no more."""
    count = part.last - part.first
    if wanted >= count:
        few = f" ({wanted} asked, the range has no more)" if wanted > count else ""
        reason = f"{why}all {count} frames of {part.words}{few}"
        return _plan(part.times, np.arange(part.first, part.last), part.starts, reason, "all")
    indices = _evenly_by_index(count, wanted, request.rule)
    instants, note = part.starts[indices], " by index"
    sampling = request.sampling or "time"
    if sampling == "time":
        instants, indices, note = _evenly_in_time(part, indices, request.rule)
    spread = f"evenly{note}, both ends" if request.rule == "linspace" else f"the middle of each part{note}"
    reason = f"{why}{wanted} of the {count} frames of {part.words}, {spread}"
    return _plan(part.times, indices + part.first, instants, reason, sampling)


def _evenly_by_index(count: int, wanted: int, rule: Rule) -> npt.NDArray[np.int64]:
    """[wanted] numbers below ``count``, which is larger: no clock is looked at."""
    if rule == "linspace":
        return np.linspace(0, count - 1, wanted, dtype=np.int64)
    return ((2 * np.arange(wanted) + 1) * count) // (2 * wanted)


def _evenly_in_time(
    part: _Part, by_index: npt.NDArray[np.int64], rule: Rule
) -> tuple[Times, npt.NDArray[np.int64], str]:
    """(instants, frames of the part, what to say of them): as many as ``by_index``, which is a first guess.

    The guess stands where its frame is on screen at the instant, give or take the clocks' tolerance: so a
    clip of constant rate keeps it however its container rounds.
    """
    starts, wanted = part.starts, len(by_index)
    if rule == "linspace":
        instants = np.linspace(part.begin, max(float(starts[-1]), part.begin), wanted)
    else:
        instants = part.begin + (np.arange(wanted) + 0.5) * (part.stop - part.begin) / wanted
    on_screen = np.searchsorted(starts, instants + CLOCK_TOLERANCE_SECONDS, side="right") - 1
    ends = np.append(starts[1:], np.inf)
    stands = (starts[by_index] - CLOCK_TOLERANCE_SECONDS <= instants) & (
        instants < ends[by_index] + CLOCK_TOLERANCE_SECONDS
    )
    met, where = np.unique(np.where(stands, by_index, np.maximum(on_screen, 0)), return_index=True)
    if len(met) == wanted:
        return instants, met, " in time"
    more = _in_the_longest_stretches(starts, met.tolist(), wanted - len(met))
    indices = np.concatenate([met, more])
    order = np.argsort(indices)
    asked = np.concatenate([instants[where], starts[more]])
    note = f" in time ({len(met)} frames are on screen at {wanted} instants, {len(more)} lie between them)"
    return asked[order], indices[order], note


def _in_the_longest_stretches(starts: Times, taken: list[int], number: int) -> list[int]:
    """``number`` frames that are not ``taken``, each as far in time from all others as can be."""
    stretches: list[tuple[float, int, int, int]] = []

    def add(left: int, right: int) -> None:
        """The frames between two that are taken; -1 and len(starts) stand for the ends of the part."""
        if right - left < 2:
            return
        if left < 0:
            frame = 0
        elif right == len(starts):
            frame = right - 1
        else:
            middle = (starts[left] + starts[right]) / 2
            frame = min(max(int(np.searchsorted(starts, middle)), left + 1), right - 1)
            if frame - 1 > left and 2 * middle <= starts[frame - 1] + starts[frame] + CLOCK_TOLERANCE_SECONDS:
                frame -= 1
        away = min(abs(starts[frame] - starts[side]) for side in (left, right) if 0 <= side < len(starts))
        # To the hundredth: among equals the earliest, however the container rounds.
        heapq.heappush(stretches, (-round(float(away), 2), frame, left, right))

    for left, right in zip([-1, *taken], [*taken, len(starts)], strict=True):
        add(left, right)
    found = []
    for _ in range(number):
        _, frame, left, right = heapq.heappop(stretches)
        found.append(frame)
        add(left, frame)
        add(frame, right)
    return found


def _plan(
    times: Times, indices: npt.NDArray[np.int64], instants: Times, reason: str, sampling: str
) -> FramePlan:
    return FramePlan(
        instants_seconds=tuple(float(value) for value in instants),
        indices=tuple(int(index) for index in indices),
        timestamps_seconds=tuple(float(value) for value in times[indices]),
        reason=reason,
        sampling=sampling,
    )
