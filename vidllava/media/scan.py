"""Shown frames of a stream and their times, from its packets or, without usable stamps, its pictures.

Where every shown packet has a stamp of its own, the sorted stamps are the frames. Elsewhere (no stamps,
repeated ones, those of decoding instead of presentation, AVI, which stores none, and field pictures, two of
which make a frame) the stream is decoded from end to end and counted.
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
from vidllava.media.bitstream import (
    CLEAN_START,
    NO_STAMP,
    NO_START,
    PacketIndex,
    Start,
    has_known_starts,
    is_hidden,
    size_key,
    start_kind,
)
from vidllava.media.container import decoder_of
from vidllava.media.reader import (
    REPEATING_CODECS,
    Damage,
    decode_packet,
    is_empty,
    read_frames,
    read_packets,
)

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
        # What announces nothing is of the size that was announced before.
        if key in self._keys or (self._keys and not key) or len(self._keys) == _MAX_SIZES:
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


class SpotCheck:
    """Decodes a few packets here and there in a scan: from the 1st, 2nd, 4th, 8th, ... key packet on.

    So a file that is mostly undecodable is told before any frame of it is asked for, however few are. Whoever
    finds it ``failed`` must decode all to know.
    """

    _AT_ONCE = 2  # packets from a clean start on; of an open one, whose followers may refer back, only itself
    _MAX_PIXELS = 10e6  # in all: 4 pictures of 1080p, one of 4K

    def __init__(self, stream: VideoStream) -> None:
        self.failed = False
        self._stream, self._codec = stream, None
        self._num_keys = self._left = 0
        self._pixels_left = self._MAX_PIXELS

    _codec: VideoCodecContext | None

    def look(self, packet: Packet, start: Start, *, is_key: bool) -> None:
        """A packet of a codec of which it is known where decoding may start."""
        if is_key:
            self._num_keys += 1
            if self._num_keys & (self._num_keys - 1) == 0:
                self._end()
                self._codec = self._new_codec()
                self._left = self._AT_ONCE if start == CLEAN_START else 1
        self._pixels_left -= self._stream.width * self._stream.height if self._left else 0
        if self._left and self._pixels_left >= 0:
            self._left -= 1
            self._decode(packet)
            if not self._left:
                self._end()

    def _end(self) -> None:
        if self._codec is not None:
            self._decode(None)
        self._codec, self._left = None, 0

    def _decode(self, packet: Packet | None) -> None:
        assert self._codec is not None
        try:
            self._codec.decode(packet)
        except av.error.FFmpegError:
            self.failed = True

    def _new_codec(self) -> VideoCodecContext:
        known = self._stream.codec_context
        codec = CodecContext.create(known.codec.name, "r")
        assert isinstance(codec, VideoCodecContext)
        codec.extradata, codec.thread_type = known.extradata, "NONE"
        codec.options = {"err_detect": "explode"}
        return codec


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
    """At least one packet is, or the container says so."""
    suspect: bool = False
    """A packet that was looked into cannot be decoded."""
    reorders: bool = False
    """The decoder gives out pictures in another order than that of their packets."""
    clean_keys: bool = True
    """Every key frame resets the decoder (``CLEAN_START``)."""
    damage: Damage = field(default_factory=Damage)

    @property
    def num_packets(self) -> int:
        """Packets that hold or repeat a picture."""
        return len(self.pts)

    @property
    def may_be_decoding_stamps(self) -> bool:
        """The stamps rise from packet to packet, as those of decoding do, and yet the decoder reorders."""
        stamps = np.frombuffer(self.pts, dtype=np.int64)
        return self.reorders and bool(np.all(np.diff(stamps) > 0))

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
    found = Scan(encrypted=_says_encrypted(container, stream), reorders=stream.codec_context.has_b_frames)
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    decoder = decoder_of(stream)
    decoder.thread_type = "NONE"
    latest, spots = NO_STAMP, SpotCheck(stream) if has_known_starts(codec) else None
    for packet in read_packets(container, stream, found.damage):
        if found.first_frame is None:
            found.first_frame = next(iter(decode_packet(packet, found.damage, decoder)), None)
            if found.first_frame is not None:
                found.sizes_seen.take(found.first_frame.width, found.first_frame.height)
        if packet.size == 0 and not (is_empty(packet) and codec in REPEATING_CODECS):
            continue
        if found.num_packets > max_packets:
            break
        data = memoryview(packet)
        found.encrypted |= packet.has_sidedata("encryption_info")
        start = start_kind(codec, extradata, data) if packet.is_keyframe else NO_START
        if packet.is_keyframe:
            found.sizes_seen.look(stream, packet, data)
        if spots is not None and not spots.failed:
            spots.look(packet, start, is_key=packet.is_keyframe)
        found.clean_keys &= start == CLEAN_START or not packet.is_keyframe
        found.num_discarded += packet.is_discard
        shown = not packet.is_discard and not (data and is_hidden(codec, data))
        stamp = NO_STAMP if packet.pts is None else packet.pts
        found.pts.append(stamp)
        found.dts.append(NO_STAMP if packet.dts is None else packet.dts)
        found.sizes.append(packet.size)
        found.starts.append(start)
        found.shown.append(shown)
        if shown and stamp > latest:
            latest, found.last_duration = stamp, packet.duration or 0
    found.reorders |= decoder.has_b_frames
    found.suspect = spots is not None and spots.failed
    return found


def _says_encrypted(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the headers say so: ASF, Matroska, and the sample entries of MP4 and of FairPlay."""
    told = {name.lower() for name in (*container.metadata, *stream.metadata)}
    return bool(told & {"encryption", "asf_protection_type", "enc_key_id"}) or (
        stream.codec_context.codec_tag in ("encv", "drmi")
    )


def packets_are_frames(container: InputContainer, found: Scan) -> bool:
    """Whether a packet's stamp and duration are those of a frame: not in AVI, and not where it is a field."""
    names, first = container.format.name, found.first_frame
    if first is None or names == "avi":
        return False
    return not first.interlaced_frame or names.startswith(_WHOLE_FRAMES)


def frame_ticks(container: InputContainer, found: Scan) -> npt.NDArray[np.int64] | None:
    """Sorted stamps that name each shown frame, or None where only counting decoded frames can tell."""
    first = found.first_frame
    if first is None or first.pts is None or not packets_are_frames(container, found):
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


def times_from_stamps(
    stamps: list[int | None], time_base: Fraction
) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
    """(seconds from the first frame, notes) for stamps in the order of the frames; None for useless stamps.

    The stamps are sorted, because the decoder's order is right where only they are out of order (AVI). Frames
    of one stamp keep it: the last of them is the one on screen. A frame without a stamp gets the time evenly
    between its neighbours', or goes on at the usual distance at either end. Where fewer than half of the
    frames have a stamp that no other has, none is believed.
    """
    numbers = np.array([number for number, stamp in enumerate(stamps) if stamp is not None], dtype=np.int64)
    known = np.sort(np.array([stamp for stamp in stamps if stamp is not None], dtype=np.int64))
    distinct = np.unique(known)
    if 2 * len(distinct) < len(stamps) or (len(distinct) < 2 and len(stamps) > 1):
        return None, ()
    missing, repeated = len(stamps) - len(known), len(known) - len(distinct)
    usual = float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0
    ticks = np.interp(np.arange(len(stamps)), numbers, (known - known[0]).astype(np.float64))
    before, after = np.arange(numbers[0]), np.arange(numbers[-1] + 1, len(stamps))
    ticks[before] = usual * (before - numbers[0])
    ticks[after] = float(known[-1] - known[0]) + usual * (after - numbers[-1])
    ticks -= ticks[0]
    notes = []
    if repeated:
        notes.append(f"{repeated} of {len(stamps)} frames repeat another's time stamp: they keep it")
    if missing:
        notes.append(f"{missing} of {len(stamps)} frames have no time stamp: their times are interpolated")
    return ticks * time_base.numerator / time_base.denominator, tuple(notes)
