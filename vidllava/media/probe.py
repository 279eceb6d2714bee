"""Facts of a video file: size, turn, and the true presentation time of every frame.

One pass over the packets and one decoded picture; headers are never trusted, their lies are noted.

    info = probe("clip.mp4")
    info.num_frames, info.duration_seconds, info.frame_times[:3]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidllava.errors import MediaError
from vidllava.media.bitstream import NO_START, PacketIndex, has_known_starts
from vidllava.media.container import choose_stream, has_alpha_decoder, keeps_alpha_aside, open_container
from vidllava.media.files import absolute, check_file, media_kind
from vidllava.media.hdr import hdr_transfer
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.media.orientation import Orientation, orientation_from_matrix
from vidllava.media.scan import (
    FALLBACK_FPS,
    Scan,
    count_frames,
    frame_ticks,
    packets_are_frames,
    scan,
    times_from_stamps,
)
from vidllava.media.structure import mapped, stream_entry

_DOLBY_VISION_ALONE = 5  # the profile without a base layer that others can show
# Numbers of AVFrameSideDataType to be looked for: FFmpeg 8 has 32 of them.
_SIDE_DATA_KINDS = 64

__all__ = ["VideoInfo", "media_kind", "probe"]


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What ``probe`` found. Sizes are of the upright picture, times in seconds from the clip's start."""

    path: str
    """As given."""
    container: str
    """FFmpeg's name of the container format."""
    codec: str
    width: int
    """Stored pixels across the upright picture; non-square pixels are not stretched, but noted."""
    height: int
    rotation: int
    """0, 90, 180 or 270: how far the stored picture is turned clockwise to be upright."""
    mirrored: bool
    """The turned picture is then flipped left to right."""
    duration_seconds: float
    """From the first frame's start to the last frame's end."""
    num_frames: int
    frame_times: npt.NDArray[np.float64] = field(repr=False)
    """[num_frames] presentation times, sorted, the first one 0.0; read-only."""
    average_fps: float
    """num_frames / duration_seconds; 0.0 where the file gives no duration at all."""
    stream_index: int
    num_video_streams: int
    """Cover pictures included; which one is meant: see ``container.choose_stream``."""
    pixel_format: str
    clean_keys: bool
    """Every key frame resets the decoder, so that decoding may start there; else a seek may show grey."""
    sequential_because: str
    """Why frames are found by decoding from the first one on; empty where the sampler may seek."""
    packets: PacketIndex = field(repr=False)
    """Where decoding may start, and what must be decoded for a frame."""
    frame_ticks: npt.NDArray[np.int64] | None = field(repr=False)
    """[num_frames] stamps in units of ``time_base`` that name each frame in the stream, or None where
    stamps cannot name them (missing, repeated, AVI): then frame i is the i-th to leave the decoder."""
    time_base: Fraction
    """Seconds per tick."""
    notes: tuple[str, ...]
    """What a reader must know about the picture or the file: damage, header lies, HDR, interlacing."""

    @property
    def key_frames(self) -> npt.NDArray[np.int64]:
        """[K] frames that can be decoded with no other, sorted; none where stamps cannot name frames."""
        if self.frame_ticks is None or self.sequential_because:
            return np.arange(0)
        stamps = self.packets.pts[(self.packets.starts != NO_START) & self.packets.shown]
        return np.searchsorted(self.frame_ticks, np.sort(stamps))


def probe(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Look into a video file. Results are kept in memory until the file's size or time changes.

    Raises MediaError, in one line, for a path that is not a regular file, a file that is not a video, has no
    video stream, or holds no frame that can be decoded; ResourceError for one over the ``limits``.
    """
    status = check_file(path)
    limits.check_file(str(path), status.st_size)
    return _probe(str(path), absolute(path), status.st_size, status.st_mtime_ns, limits)


@lru_cache(maxsize=64)
def _probe(path: str, real_path: str, size: int, modified_ns: int, limits: Limits) -> VideoInfo:
    """``size`` and ``modified_ns`` only name one version of a file to the cache."""
    with open_container(path) as container:
        stream = choose_stream(container, path, limits)
        # A frame may be two packets (fields, or one that shows nothing): twice the bound is beyond it.
        found = scan(container, stream, max_packets=2 * limits.max_file_frames)
        limits.check_frames(path, -(-found.num_packets // 2), counted_all=False)
        first = found.first_frame
        if first is None or found.encrypted:
            raise _no_frame(path, stream, found)
        times, ticks, notes = _timeline(path, container, stream, found)
        limits.check_frames(path, len(times))
        beside = side_data(first)
        turn, turn_note = _orientation(beside)
        time_base = Fraction(stream.time_base or 1)
        # Where packets are not frames, a packet's duration is not a frame's either.
        last = found.last_duration * float(time_base) if packets_are_frames(container, found) else 0.0
        duration = float(times[-1]) + (last or _typical_gap(times))
        turn_notes = (turn_note,) if turn_note else ()
        notes = (
            *turn_notes,
            *_picture_notes(first, stream, beside),
            *notes,
        )
        notes += _entry_notes(real_path, container, stream)
        notes += _header_notes(container, stream, found, duration)
        width, height = turn.size(*found.sizes_seen.largest)
        limits.check_picture(path, width, height)
        return VideoInfo(
            path=path,
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            width=width,
            height=height,
            rotation=turn.rotation,
            mirrored=turn.mirrored,
            duration_seconds=duration,
            num_frames=len(times),
            frame_times=times,
            average_fps=len(times) / duration if duration > 0 else 0.0,
            stream_index=stream.index,
            num_video_streams=len(container.streams.video),
            pixel_format=first.format.name,
            clean_keys=found.clean_keys,
            sequential_because=_why_sequential(container, stream, found, ticks),
            packets=found.index(),
            frame_ticks=ticks,
            time_base=time_base,
            notes=notes,
        )


def _no_frame(path: str, stream: VideoStream, found: Scan) -> MediaError:
    if found.encrypted:
        # A decoder may well make a grey or blocky picture out of what it cannot read.
        return MediaError(path, "is encrypted: its frames cannot be decoded", "give an unprotected copy")
    promise = f", though its header promises {stream.frames}" if stream.frames else ""
    return MediaError(
        path, f"holds no decodable frame{promise}", "it is damaged or cut; copy or download it again"
    )


def _timeline(
    path: str, container: InputContainer, stream: VideoStream, found: Scan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64] | None, tuple[str, ...]]:
    """(times in seconds from the first frame, their stamps or None, notes on damage)."""
    time_base = Fraction(stream.time_base or 1)
    ticks = frame_ticks(container, found)
    counted = None
    notes: tuple[str, ...] = ()
    if ticks is None or found.may_be_decoding_stamps or found.suspect:
        counted = count_frames(path, stream.index)
    if ticks is not None and counted is not None and not _in_order(counted[0]):
        ticks = None
        notes = ("its time stamps are those of decoding: frames come in the order of the decoder",)
    if ticks is None:
        assert counted is not None
        stamps, damage = counted
        times, fitted = times_from_stamps(stamps, time_base)
        notes += (*fitted, *damage.notes())
        if times is None:
            rate = float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)
            times = np.arange(len(stamps), dtype=np.float64) / rate
            notes += (f"the frames carry no usable times: {rate:g} frames per second are assumed",)
    else:
        times = (ticks - ticks[0]) * time_base.numerator / time_base.denominator
        notes = found.damage.notes()
        num_cut = int(np.count_nonzero(found.shown)) - len(ticks)
        if num_cut:
            notes += (f"the first {num_cut} frames need a picture that is missing: they are not counted",)
    times.setflags(write=False)
    return times, ticks, notes


def _in_order(stamps: list[int | None]) -> bool:
    known = [stamp for stamp in stamps if stamp is not None]
    return known == sorted(known)


def _why_sequential(
    container: InputContainer, stream: VideoStream, found: Scan, ticks: npt.NDArray[np.int64] | None
) -> str:
    """The first reason why no part of this stream may be skipped, or an empty string."""
    if ticks is None:
        return "the stamps of this file do not name its frames"
    if found.num_discarded:
        return "an edit list hides some of its packets"
    if found.damage.notes():
        return "it is damaged"
    if len(ticks) < int(np.count_nonzero(found.shown)):
        return "its first frames cannot be decoded"
    if not has_known_starts(stream.codec_context.codec.canonical_name):
        return f"it is not known where {stream.codec_context.codec.canonical_name} may be cut"
    return ""


def _typical_gap(times: npt.NDArray[np.float64]) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _orientation(beside: dict[str, bytes]) -> tuple[Orientation, str | None]:
    matrix = beside.get("DISPLAYMATRIX")
    return (Orientation(), None) if matrix is None else orientation_from_matrix(matrix)


def _entry_notes(path: str, container: InputContainer, stream: VideoStream) -> tuple[str, ...]:
    """What an mp4 says of its pictures and no decoder applies."""
    if not container.format.name.startswith("mov"):
        return ()
    with mapped(path) as data:
        entry = stream_entry(data, stream.id)
    if entry is None:
        return ()
    notes = []
    size = (stream.codec_context.width, stream.codec_context.height)
    if entry.clean_aperture not in (None, size):
        width, height = entry.clean_aperture or size
        notes.append(
            f"only {width}x{height} of {size[0]}x{size[1]} is meant to be shown (clean aperture): not cropped"
        )
    if entry.dolby_vision_profile == _DOLBY_VISION_ALONE:
        notes.append("Dolby Vision profile 5, which no decoder here reads: colours come out green and purple")
    return tuple(notes)


def num_bits(frame: VideoFrame) -> int:
    """Bits of a frame's first colour component."""
    return max((component.bits for component in frame.format.components[:1]), default=8)


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """What a frame carries beside its pixels, by PyAV's names; of kinds that PyAV does not know, nothing.

    PyAV raises over the first unknown kind (FFmpeg adds some with every version), so such kinds are filtered
    out of a copy first.
    """
    for known_only in (False, True):
        try:
            # PyAV's stubs know it as a mapping with one key.
            found: Any = (_without_unknown_side_data(frame) if known_only else frame).side_data
            return {found[place].type.name: bytes(found[place]) for place in range(len(found))}
        except (ValueError, av.error.FFmpegError):
            continue
    return {}


def _without_unknown_side_data(frame: VideoFrame) -> VideoFrame:
    known = {kind.value for kind in Type}
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    unknown = [number for number in range(_SIDE_DATA_KINDS) if number not in known]
    filters = [graph.add("sidedata", f"mode=delete:type={number}") for number in unknown]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.push(frame)
    found = graph.pull()
    assert isinstance(found, VideoFrame)
    return found


def _picture_notes(frame: VideoFrame, stream: VideoStream, beside: dict[str, bytes]) -> list[str]:
    notes = []
    transfer = hdr_transfer(int(frame.color_trc), num_bits(frame))
    if transfer is not None:
        notes.append(f"HDR ({transfer}): shown as SDR, highlights rolled off (BT.2390)")
    if frame.interlaced_frame:
        notes.append("interlaced: the two fields of a frame are shown together")
    aspect = stream.sample_aspect_ratio
    if aspect is not None and aspect not in (0, 1):
        notes.append(f"pixels are not square ({aspect.numerator}:{aspect.denominator}): shown as stored")
    if keeps_alpha_aside(stream) and not has_alpha_decoder(stream):
        notes.append("its transparency is not read: transparent parts show the colours stored under them")
    if "SPHERICAL" in beside:
        notes.append("spherical video (180 or 360 degrees): shown as stored, its projection is not undone")
    if stream.disposition & Disposition.multilayer:
        notes.append("video of several layers (such as two views): the base layer is shown")
    return notes


def _header_notes(
    container: InputContainer, stream: VideoStream, found: Scan, duration: float
) -> tuple[str, ...]:
    notes = []
    if found.num_discarded:
        notes.append(f"an edit list hides {found.num_discarded} frames: they are not counted")
    if stream.frames and stream.frames != found.num_packets:
        notes.append(f"the header promises {stream.frames} frames, the file holds {found.num_packets}")
    promised = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if not promised and container.duration:
        # Matroska counts from zero, not from the first frame.
        promised = (container.duration - max(container.start_time or 0, 0)) / 1e6
    if math.isfinite(promised) and promised > 1.1 * duration + 1.0:
        notes.append(f"the header promises {promised:.2f} s, the frames end at {duration:.2f} s")
    return tuple(notes)
