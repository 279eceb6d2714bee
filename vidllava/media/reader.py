"""Every picture of a stream, in presentation order, past damage: the one decode loop of the package.

What it yields is the definition of "frame i": the i-th frame of a sequential decode. A packet that cannot
be decoded is skipped and counted. Frame threads lose more frames around damage than one thread does, and
not always the same, so the first damaged packet ends a threaded pass with ``DamagedError`` and the caller
starts again with one thread: the result does not depend on the number of cores. (Half a damaged HEVC packet,
of which its decoder reports nothing, is met by the strict pass before: see ``decoders.pyav``.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidllava.errors import MediaError
from vidllava.media.container import decoder_of, num_threads, open_container

# Above this share of undecodable packets the rest is not a fair picture of the clip.
MAX_LOST_SHARE = 0.1

# An empty packet of these says that the last picture is shown again (Theora specification, 7.1).
REPEATING_CODECS = ("theora", "vp3")

Result = TypeVar("Result")


class DamagedError(Exception):
    """A threaded pass met a packet that cannot be decoded."""


@dataclass
class Damage:
    """What a pass had to leave out."""

    num_lost: int = 0
    """Packets that the decoder refused."""
    num_corrupt: int = 0
    """Frames that the decoder marked as patched up."""
    cut_short: bool = False
    """The container itself became unreadable before its end."""

    def check(self, path: str, num_frames: int) -> None:
        """Raises MediaError where too much of a stream of ``num_frames`` was lost.

        A pass that stops early is held against the whole stream too: asking for fewer frames never makes a
        file worse.
        """
        if self.num_lost > MAX_LOST_SHARE * num_frames:
            raise MediaError(
                path,
                f"is damaged: {self.num_lost} of {num_frames} frames cannot be decoded, "
                f"over the limit of {MAX_LOST_SHARE:.0%}",
                "copy or download it again",
            )

    def notes(self) -> tuple[str, ...]:
        """One line for each kind of damage."""
        found = []
        if self.num_lost:
            remains = "frames after them may show remains"
            found.append(f"damaged: {self.num_lost} packets could not be decoded; {remains}")
        if self.num_corrupt:
            found.append(f"damaged: the decoder patched up {self.num_corrupt} frames")
        if self.cut_short:
            found.append("damaged: the file became unreadable before its end")
        return tuple(found)


def read_packets(container: InputContainer, stream: VideoStream, damage: Damage) -> Iterator[Packet]:
    """The stream's packets, then an empty one that drains the decoder; stops early at container damage."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # A packet of a stream that began on the way (MPEG-TS): PyAV does not know it. It is not ours.
            packets = container.demux(stream)
            continue
        except av.error.FFmpegError:
            damage.cut_short = True
            drain = Packet()
            drain.stream = stream
            yield drain
            return
        yield packet


def is_empty(packet: Packet) -> bool:
    """Whether a packet of the file holds nothing; the one that drains the decoder is not of the file."""
    return packet.size == 0 and (packet.pts is not None or packet.dts is not None)


def decode_packet(packet: Packet, damage: Damage, codec: VideoCodecContext) -> list[VideoFrame]:
    """The frames that come out once ``packet`` is in; none, and the damage counted, where it is refused.

    An empty packet is not damage and gives none: to a decoder it would be the end of the stream.
    """
    if is_empty(packet):
        return []
    try:
        frames = codec.decode(packet)
    except av.error.FFmpegError:
        damage.num_lost += 1
        if packet.size > 0:
            return []
        # The drain itself met the error; a second one returns the frames that are still inside.
        try:
            frames = codec.decode(packet)
        except av.error.FFmpegError:
            return []
    damage.num_corrupt += sum(frame.is_corrupt for frame in frames)
    return frames


def read_frames(
    path: str, stream_index: int, threads: int, damage: Damage
) -> Generator[VideoFrame, None, None]:
    """Every frame of one stream in presentation order. Close the iterator to close the file early.

    A frame is valid until the next one is taken: a picture that is shown again is the same object.
    """
    with open_container(path) as container:
        stream = container.streams[stream_index]
        assert isinstance(stream, VideoStream)
        codec = decoder_of(stream)
        repeats = codec.codec.canonical_name in REPEATING_CODECS
        last: VideoFrame | None = None
        # What an empty packet shows again must have left the decoder, which frame threads delay.
        threads = 1 if repeats else threads
        codec.thread_count = threads
        # Slice threads change the pixels of a damaged frame without reporting any damage.
        codec.thread_type = "FRAME" if threads > 1 else "NONE"
        for packet in read_packets(container, stream, damage):
            if repeats and is_empty(packet) and last is not None:
                last.pts = packet.pts
                yield last
            for frame in decode_packet(packet, damage, codec):
                last = frame
                yield frame
            if threads > 1 and (damage.num_lost or damage.num_corrupt):
                raise DamagedError


def walk(
    path: str,
    stream_index: int,
    visit: Callable[[Iterator[VideoFrame]], Result],
    *,
    complete: Callable[[Result], bool],
    max_threads: int | None = None,
) -> tuple[Result, Damage]:
    """``visit`` the frames of one stream with several threads; with one, from the start, if that failed.

    ``visit`` may stop early. It is called again where the threaded pass met damage or its result is not
    ``complete`` (frame threads can lose frames without an error), so it must keep no state.
    """
    for threads in dict.fromkeys((max_threads or num_threads(), 1)):
        damage = Damage()
        with closing(read_frames(path, stream_index, threads, damage)) as frames:
            try:
                result = visit(frames)
            except DamagedError:
                continue
        if threads == 1 or complete(result):
            return result, damage
    raise AssertionError("the pass with one thread always returns")
