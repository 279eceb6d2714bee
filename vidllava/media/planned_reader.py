"""Planned frames by verified seeks: the least decoding that is certain to be exact.

Every packet that is fed is compared with the index that the probe made, the decoder is told to give up at the
first doubt, and every planned frame must come. Whatever fails raises ``UnverifiedError``, and the caller
decodes from the first packet instead: a sampler that seeks may be slow, never wrong. (Known exception: partly
damaged H.264 in open GOPs, whose decoder cannot be told to give up; see ``_Share._strict``.)

    runs of packets (``packets.runs``)  ->  one thread and one open file for each share of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidllava.media.bitstream import NO_STAMP, OPEN_START, PacketIndex, Run, runs, shares
from vidllava.media.container import decoder_of, num_threads, open_container
from vidllava.media.probe import VideoInfo

# Reading on is cheaper than a seek up to about here, and cannot fail.
_NEAR_PACKETS = 128
# Decoders that leave out pictures which no other refers to, packet by packet, and get all others right. (VP8
# and VP9 carry probabilities over from pictures that none refers to, and have few of them.)
_SKIPPING_DECODERS = ("h264", "hevc")


class UnverifiedError(Exception):
    """Some check failed: these frames must be found by decoding from the first packet. ``str()`` says why."""

    def __init__(self, why: str, *, damaged: bool = False) -> None:
        super().__init__(why)
        self.damaged = damaged
        """The decoder, told to be strict, refused a packet or kept a frame back."""


@dataclass(frozen=True)
class PlannedPass:
    """What was done: packets fed to decoders, in so many runs and threads."""

    num_packets: int
    num_runs: int
    num_threads: int


def collect_planned(
    info: VideoInfo, ticks: list[int], take: Callable[[VideoFrame], None], *, threads: int | None = None
) -> PlannedPass:
    """Call ``take`` once with the frame of each stamp in ``ticks``, in any order, from several threads.

    Raises UnverifiedError; frames may have been taken by then.
    """
    try:
        todo = runs(info.packets, ticks)
    except KeyError:
        raise UnverifiedError("a frame has no packet of its own") from None
    threads = threads or num_threads()
    parts = shares(todo, threads)
    per_part = threads // len(parts)
    stop = Event()
    work = [_Share(info, part, take, per_part, stop) for part in parts]
    if len(work) == 1:
        work[0]()
    else:
        with ThreadPoolExecutor(len(work)) as pool:
            for future in [pool.submit(share) for share in work]:
                future.result()
    return PlannedPass(sum(run.num_packets for run in todo), len(todo), len(parts))


@dataclass
class _Share:
    """The runs of one thread."""

    info: VideoInfo
    todo: list[Run]
    take: Callable[[VideoFrame], None]
    codec_threads: int
    stop: Event
    """Set where one share failed: the others need not go on."""

    def __call__(self) -> None:
        try:
            with open_container(self.info.path) as container:
                stream = container.streams[self.info.stream_index]
                assert isinstance(stream, VideoStream)
                codec = decoder_of(stream)
                _prepare(codec, self.codec_threads, strict=self._strict(stream))
                cursor = _Cursor(container, stream, self.info.packets)
                for run in self.todo:
                    if self.stop.is_set():
                        return
                    self._decode(cursor, codec, run)
        except (av.error.FFmpegError, IndexError) as fault:  # IndexError: see ``reader.read_packets``
            self.stop.set()
            raise UnverifiedError(f"decoding failed ({type(fault).__name__})", damaged=True) from fault
        except BaseException:
            self.stop.set()
            raise

    def _strict(self, stream: VideoStream) -> bool:
        """Whether the decoder should refuse what it would have to patch up.

        Not at an H.264 recovery point: the pictures that lead it refer to ones that were not decoded, which
        is not damage, and those after it come out right.
        """
        starts = self.info.packets.starts
        opens = any(starts[run.start] == OPEN_START for run in self.todo)
        return not (opens and stream.codec_context.codec.canonical_name == "h264")

    def _decode(self, cursor: _Cursor, codec: VideoCodecContext, run: Run) -> None:
        missing = set(run.ticks)
        skips = codec.name in _SKIPPING_DECODERS
        cursor.go_to(run.start)
        while missing and cursor.number <= run.stop:
            packet = cursor.next()
            if skips:
                codec.skip_frame = "DEFAULT" if packet.pts in run.ticks else "NONREF"
            for frame in codec.decode(packet):
                self._consider(frame, missing)
        if missing:
            # Sent nothing more, the decoder hands out the pictures that it holds back.
            for frame in codec.decode(None):
                self._consider(frame, missing)
        codec.flush_buffers()
        if missing:
            raise UnverifiedError(f"{len(missing)} frames did not come where they should", damaged=True)

    def _consider(self, frame: VideoFrame, missing: set[int]) -> None:
        if frame.pts in missing:
            if frame.is_corrupt:
                raise UnverifiedError("the decoder patched up a frame", damaged=True)
            missing.discard(frame.pts)
            self.take(frame)


def _prepare(codec: VideoCodecContext, threads: int, *, strict: bool) -> None:
    codec.thread_count = threads
    codec.thread_type = "FRAME" if threads > 1 else "NONE"
    if strict:
        # A damaged picture is an error here; the sequential pass then shows it patched up, and says so.
        codec.options = {"err_detect": "explode"}


class _Cursor:
    """The packets of a stream by number, each compared with the index."""

    def __init__(self, container: InputContainer, stream: VideoStream, index: PacketIndex) -> None:
        self.number = 0
        """Of the packet that ``next`` gives."""
        self._container, self._stream, self._index = container, stream, index
        self._packets: Iterator[Packet] = container.demux(stream)
        self._pending: Packet | None = None

    def go_to(self, number: int) -> None:
        """Make ``number`` the next packet."""
        if not self.number <= number <= self.number + _NEAR_PACKETS:
            self._seek(number)
        while self.number < number:
            self.next()

    def next(self) -> Packet:
        """The next packet. Raises UnverifiedError where it is not the one that the index has there."""
        packet = self._pending or self._read()
        self._pending = None
        known = self._index
        if self.number >= len(known) or _name(packet) != (known.pts[self.number], known.sizes[self.number]):
            raise UnverifiedError("the file's packets are not the ones that were probed")
        self.number += 1
        return packet

    def _read(self) -> Packet:
        for packet in self._packets:
            if packet.size:
                return packet
        raise UnverifiedError("the file ends early")

    def _seek(self, number: int) -> None:
        """Go to ``number`` or a packet before it. Containers differ in which stamp they search by (MPEG-TS
        lands behind a presentation stamp), so the landing place is looked at, and another one tried."""
        for stamp in self._landmarks(number):
            self._container.seek(stamp, stream=self._stream, backward=True)
            self._packets = self._container.demux(self._stream)
            self._pending = self._read()
            found = self._index.numbers.get(_name(self._pending), -1)
            if 0 <= found <= number:
                self.number = found
                return
        raise UnverifiedError("a seek went astray")

    def _landmarks(self, number: int) -> Iterator[int]:
        index = self._index
        stamps = [int(index.pts[number]), int(index.dts[number]), int(index.dts[number]) - 1]
        earlier = [n for n in range(max(number - 600, 0), number) if index.starts[n]]
        stamps += [int(index.dts[n]) - 1 for n in earlier[-1:]]
        yield from dict.fromkeys(stamp for stamp in stamps if stamp > NO_STAMP + 1)


def _name(packet: Packet) -> tuple[int, int]:
    return (NO_STAMP if packet.pts is None else packet.pts), packet.size
