"""Which instants of a clip, and which frames do they fall on? Pure arithmetic: no decoder, no torch.

A frame is on screen from its own presentation time until the next frame's: half-open, ``[t_i, t_i+1)``.
A range is half-open too: ``[start, end)`` holds the frames that start in it. Times are true presentation
times, never index / rate, so a variable frame rate and a late start need no special case.

    plan_frames(info.frame_times, SamplingRequest(num_frames=8), source="clip.mp4")
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vidllava.errors import UsageError
from vidllava.media.frames import FramePlan

Rule = Literal["linspace", "midpoints"]
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
) -> FramePlan:
    """Which frames of a clip answer ``request``.

    ``frame_times`` is float64 [num_frames_in_file], sorted seconds from the clip's start. ``key_frames``
    int64 [K], sorted, are those that ``keyframes="nearest"`` may take (``VideoInfo.key_frames``). The plan's
    indices are strictly increasing and lie in the range; ``reason`` says what changed the count.

    - ``num_frames`` (or ``max_frames``) with ``linspace``: ``np.linspace(0, n - 1, N)`` over the n frames
      of the range, cut to whole numbers: LLaVA's rule (300 frames, N = 8: 0 42 85 128 170 213 256 299).
    - with ``midpoints``: ``floor((k + 0.5) * n / N)``.
    - ``fps``: instants ``start + k / fps`` up to the last frame of the range, each showing the frame that
      is on screen then; frames met twice (a rate above the clip's own) are taken once.

    Raises UsageError naming ``source`` where the range holds no frame (or no key frame).
    """
    first, last, range_note = _range(frame_times, request, source)
    plan = _planned(frame_times, first, last, range_note, request)
    if request.keyframes is None:
        return plan
    keys = np.arange(0) if key_frames is None else key_frames
    keys = keys[(keys >= first) & (keys < last)]
    if len(keys) == 0:
        raise UsageError(
            source, f"no frame of {range_note} can be decoded alone", "leave out --keyframes nearest"
        )
    return _at_key_frames(frame_times, plan, keys)


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
    return _plan(times, keys[taken], [float(value) for value in instants[where]], reason)


def _planned(
    frame_times: Times, first: int, last: int, range_note: str, request: SamplingRequest
) -> FramePlan:
    count = last - first
    if request.fps is not None:
        instants, indices, rate_note = _by_rate(frame_times[first:last], request)
        cap = request.max_frames
        if cap is None or len(indices) <= cap:
            reason = f"{request.fps:g} fps over {range_note}: {len(indices)} frames{rate_note}"
            return _plan(frame_times, indices + first, instants, reason)
        why = f"{request.fps:g} fps would be {len(indices)} frames, over --max-frames {cap}"
        return _by_count(frame_times, first, count, cap, request.rule, f"{why}: ", range_note)
    wanted, why = request.num_frames, ""
    if wanted is None or (request.max_frames is not None and wanted > request.max_frames):
        if wanted is not None:
            why = f"{wanted} frames asked, over --max-frames {request.max_frames}: "
        wanted = request.max_frames if request.max_frames is not None else count
    return _by_count(frame_times, first, count, wanted, request.rule, why, range_note)


def _range(times: Times, request: SamplingRequest, source: str) -> tuple[int, int, str]:
    """(first, last) of the frames that start in [start, end), last excluded, and the range in words."""
    if len(times) == 0:
        raise ValueError("frame_times is empty")
    start = request.start_seconds or 0.0
    end = request.end_seconds
    clip_end = float(times[-1])
    first = int(np.searchsorted(times, start - CLOCK_TOLERANCE_SECONDS)) if start > 0 else 0
    last = len(times)
    if end is not None:
        last = int(np.searchsorted(times, end - CLOCK_TOLERANCE_SECONDS))
    if first == len(times):
        raise UsageError(
            source,
            f"--start {start:g} s is after the last frame at {clip_end:.3f} s",
            "choose an earlier start",
        )
    if first >= last:
        raise UsageError(
            source,
            f"no frame starts between --start {start:g} s and --end {end:g} s",
            f"the nearest are at {float(times[max(first - 1, 0)]):.3f} s and {float(times[first]):.3f} s",
        )
    if request.start_seconds is None and end is None:
        return first, last, "the whole clip"
    words = f"{start:g} s to " + (f"{end:g} s" if end is not None else "the end")
    if end is not None and last == len(times) and end > clip_end + 2 * _typical_gap(times):
        words += f" (the last frame is at {clip_end:.3f} s)"
    return first, last, words


def _typical_gap(times: Times) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _by_rate(times: Times, request: SamplingRequest) -> tuple[list[float], npt.NDArray[np.int64], str]:
    """Instants at ``fps`` from the start of the range, and the frame on screen at each, taken once."""
    assert request.fps is not None
    origin = request.start_seconds or 0.0
    starts = times - CLOCK_TOLERANCE_SECONDS
    # Frame by frame instead of instant by instant: a rate of a million costs no more than a rate of one.
    ticks = np.ceil((starts - origin) * request.fps)
    ticks[0] = 0.0
    instants = origin + ticks / request.fps
    met = np.append(instants[:-1] < starts[1:], True)
    # The last instant is the last one not after the last frame: a later one would show that frame again.
    num_instants = int(np.floor((float(times[-1]) + CLOCK_TOLERANCE_SECONDS - origin) * request.fps)) + 1
    met[-1] = ticks[-1] < max(num_instants, 1)
    indices = np.flatnonzero(met)
    note = ""
    if len(indices) < num_instants:
        note = f" (of {num_instants} instants; a frame that several fall on is taken once)"
    return [float(value) for value in instants[indices]], indices.astype(np.int64), note


def _by_count(
    times: Times, first: int, count: int, wanted: int, rule: Rule, why: str, range_note: str
) -> FramePlan:
    if wanted >= count:
        few = f" ({wanted} asked, the range has no more)" if wanted > count else ""
        indices = np.arange(count)
        reason = f"{why}all {count} frames of {range_note}{few}"
    elif rule == "linspace":
        indices = np.linspace(0, count - 1, wanted, dtype=np.int64)
        reason = f"{why}{wanted} of the {count} frames of {range_note}, evenly, both ends"
    else:
        indices = ((2 * np.arange(wanted) + 1) * count) // (2 * wanted)
        reason = f"{why}{wanted} of the {count} frames of {range_note}, the middle of each part"
    indices = indices + first
    return _plan(times, indices, [float(value) for value in times[indices]], reason)


def _plan(times: Times, indices: npt.NDArray[np.int64], instants: list[float], reason: str) -> FramePlan:
    return FramePlan(
        instants_seconds=tuple(instants),
        indices=tuple(int(index) for index in indices),
        timestamps_seconds=tuple(float(value) for value in times[indices]),
        reason=reason,
    )
