"""Which frames does this stream show, and when? One pass over its packets, headers aside.

Where every shown packet has a stamp of its own, the sorted stamps are the frames. Elsewhere (no stamps,
repeated ones, AVI, which stores none, and field pictures, two of which make a frame) the stream is decoded
from end to end and counted.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidllava.errors import MediaError
from vidllava.media.bitstream import is_hidden, size_key, start_kind
from vidllava.media.container import decoder_of
from vidllava.media.packets import CLEAN_START, NO_STAMP, NO_START, PacketIndex
from vidllava.media.reader import Damage, decode_packet, read_frames, read_packets

_WHOLE_FRAMES = ("mov", "matroska")  # containers whose samples are whole frames, never single fields
FALLBACK_FPS = 25.0
_MAX_SIZES = 16  # announcements that are looked into


@dataclass
class SizesSeen:
    """The sizes of pictures that a stream holds: it may change them at a key frame.

    Only a key packet that announces something new is decoded, with a decoder of its own.
    """

    largest: tuple[int, int] = (0, 0)
    """(width, height) of the picture with most pixels, as stored; the first of equals."""
    _keys: set[bytes] = field(default_factory=set)

    def take(self, width: int, height: int) -> None:
        """A picture of this size was met."""
        if width * height > self.largest[0] * self.largest[1]:
            self.largest = width, height

    def look(self, stream: VideoStream, packet: Packet, data: memoryview) -> None:
        """A key packet, the first one included."""
        codec = stream.codec_context
        extradata = codec.extradata or b""
        key = size_key(codec.codec.canonical_name, extradata, data)
        if packet.has_sidedata("new_extradata"):
            key += bytes(packet.get_sidedata("new_extradata"))
        if not key or key in self._keys or len(self._keys) == _MAX_SIZES:
            return
        self._keys.add(key)
        if len(self._keys) == 1:
            return  # the first picture is decoded anyway
        try:
            alone = CodecContext.create(codec.codec.name, "r")
            assert isinstance(alone, VideoCodecContext)
            alone.extradata, alone.thread_type = codec.extradata, "NONE"
            for frame in (*alone.decode(packet), *alone.decode(None)):
                self.take(frame.width, frame.height)
        except av.error.FFmpegError:
            pass  # damage is for the decode to find


@dataclass
class Scan:
    """What one pass over the packets of a stream found."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("B"))
    shown: array[int] = field(default_factory=lambda: array("B"))
    """One item for each packet, in file order: see ``PacketIndex``."""
    first_frame: VideoFrame | None = None
    """The first picture that could be decoded."""
    num_discarded: int = 0
    """Packets that an edit list hides."""
    last_duration: int = 0
    """Ticks that the packet with the latest stamp says it lasts; 0 where it does not say."""
    sizes_seen: SizesSeen = field(default_factory=SizesSeen)
    encrypted: bool = False
    """At least one packet is."""
    clean_keys: bool = True
    """Every key frame resets the decoder (``CLEAN_START``)."""
    damage: Damage = field(default_factory=Damage)

    @property
    def num_packets(self) -> int:
        """Packets that hold anything."""
        return len(self.pts)

    def index(self) -> PacketIndex:
        """The packets as arrays."""
        return PacketIndex(
            pts=np.frombuffer(self.pts, dtype=np.int64),
            dts=np.frombuffer(self.dts, dtype=np.int64),
            sizes=np.frombuffer(self.sizes, dtype=np.int64),
            starts=np.frombuffer(self.starts, dtype=np.uint8),
            shown=np.frombuffer(self.shown, dtype=np.bool_),
        )


def scan(container: InputContainer, stream: VideoStream, *, max_packets: int) -> Scan:
    """Read all packets of ``stream``; decode up to its first picture and no further.

    Stops after ``max_packets`` and one more: whoever asked for a bound can tell that it was passed.
    """
    found = Scan()
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    decoder = decoder_of(stream)
    decoder.thread_type = "NONE"
    latest = NO_STAMP
    for packet in read_packets(container, stream, found.damage):
        if found.first_frame is None:
            found.first_frame = next(iter(decode_packet(packet, found.damage, decoder)), None)
            if found.first_frame is not None:
                found.sizes_seen.take(found.first_frame.width, found.first_frame.height)
        if packet.size == 0:
            continue
        if found.num_packets > max_packets:
            break
        data = memoryview(packet)
        found.encrypted |= packet.has_sidedata("encryption_info")
        start = start_kind(codec, extradata, data) if packet.is_keyframe else NO_START
        if packet.is_keyframe:
            found.sizes_seen.look(stream, packet, data)
        found.clean_keys &= start == CLEAN_START or not packet.is_keyframe
        found.num_discarded += packet.is_discard
        shown = not packet.is_discard and not is_hidden(codec, data)
        stamp = NO_STAMP if packet.pts is None else packet.pts
        found.pts.append(stamp)
        found.dts.append(NO_STAMP if packet.dts is None else packet.dts)
        found.sizes.append(packet.size)
        found.starts.append(start)
        found.shown.append(shown)
        if shown and stamp > latest:
            latest, found.last_duration = stamp, packet.duration or 0
    return found


def frame_ticks(container: InputContainer, found: Scan) -> npt.NDArray[np.int64] | None:
    """Sorted stamps that name each shown frame, or None where only counting decoded frames can tell."""
    names, first = container.format.name, found.first_frame
    if names == "avi" or first is None or first.pts is None:
        return None
    if first.interlaced_frame and not names.startswith(_WHOLE_FRAMES):
        return None
    index = found.index()
    ticks = np.sort(index.pts[index.shown])
    # Pictures before the first decodable one (a cut open GOP) never leave the decoder.
    ticks = ticks[(ticks >= first.pts) | (ticks == NO_STAMP)]
    if len(ticks) == 0 or ticks[0] == NO_STAMP or bool(np.any(np.diff(ticks) == 0)):
        return None
    return ticks


def count_frames(path: str, stream_index: int) -> tuple[list[int | None], Damage]:
    """The stamp of every frame that a decode from end to end gives. Raises MediaError above 10 % damage."""
    # One thread: around damage more threads may lose more frames, and frame i must stay frame i.
    damage = Damage()
    stamps = [frame.pts for frame in read_frames(path, stream_index, 1, damage)]
    damage.check(path, len(stamps) + damage.num_lost)
    if not stamps:
        raise MediaError(path, "holds no decodable frame", "copy or download it again")
    return stamps, damage


def times_from_stamps(stamps: list[int | None], time_base: Fraction) -> npt.NDArray[np.float64] | None:
    """Seconds from the first frame, for stamps in the order of the frames; None where some lack or repeat.

    Sorted, because the decoder's order is right where only the stamps are out of order (AVI).
    """
    known = sorted({stamp for stamp in stamps if stamp is not None})
    if len(known) < len(stamps):
        return None
    ticks = np.array(known, dtype=np.int64) - known[0]
    return ticks * time_base.numerator / time_base.denominator
