"""Open a video file safely, and find its picture stream: what ``probe`` and ``decode`` share.

FFmpeg would follow URLs, concat lists and playlists; two whitelists stop every variant (only the file
itself is opened, only by a demuxer of a known container). PyAV's log level is never touched: setting it
hangs decoder threads on damaged files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.codec import Codec
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vidllava.errors import MediaError
from vidllava.media.files import absolute, impostor, is_accepted_container, picture_format, read_head
from vidllava.media.limits import DEFAULT_LIMITS, Limits

_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,gif,apng,ogg,"
    "asf,mxf,ivf,h264,hevc,mjpeg",
}

# The decoders that read the transparency which WebM keeps beside a packet; FFmpeg's own do not.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

_NOT_THE_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
_MAX_THREADS = 4


@contextmanager
def open_container(path: str) -> Iterator[InputContainer]:
    """The opened file, closed at the end whatever happens. Raises MediaError where it is not a video file."""
    head = read_head(path)
    if head[4:8] == b"ftyp" and (impostor(head) or picture_format(head)):
        # FFmpeg would read AVIF and HEIC as videos of one frame.
        raise _unreadable(path, head)
    try:
        container = av.open(absolute(path), options=dict(_OPTIONS), metadata_errors="replace")
    except av.error.FFmpegError as error:
        # A demuxer that is not on the list is refused with EINVAL, before it has read anything.
        raise _unreadable(path, head, refused=isinstance(error, av.error.ArgumentError)) from error
    with container:
        yield container


def _unreadable(path: str, head: bytes, *, refused: bool = False) -> MediaError:
    found = impostor(head)
    if found is not None:
        return MediaError(path, f"is {found[0]}", found[1])
    picture = picture_format(head)
    if picture is not None:
        return MediaError(path, f"is a picture ({picture}), not a video", "give it as a picture")
    if head[4:8] == b"ftyp":
        return MediaError(path, "is truncated or damaged: no readable index", "copy or download it again")
    if is_accepted_container(head):
        return MediaError(path, "is truncated or damaged: no readable header", "copy or download it again")
    if refused:
        return MediaError(
            path,
            "is in a media format that is not accepted",
            "convert it to mp4, for example with ffmpeg; mp4, mkv, webm, mov, avi, ts and gif are read",
        )
    return MediaError(
        path, "is not a video file, or truncated", "mp4, mkv, webm, mov, avi, ts and gif are read"
    )


def choose_stream(container: InputContainer, path: str, limits: Limits = DEFAULT_LIMITS) -> VideoStream:
    """The one video stream that is meant, by one rule for all backends.

    Of the streams flagged default (of all, where none is), the one with most pixels; the first of equals.
    Cover pictures, thumbnails and codecs that FFmpeg does not know never count. Raises MediaError where no
    stream is left, ResourceError over a limit.
    """
    limits.check_streams(path, len(container.streams))
    videos = [stream for stream in container.streams.video if not stream.disposition & _NOT_THE_VIDEO]
    # PyAV's stubs do not say so, but a stream of an unknown codec has no context.
    streams = [stream for stream in videos if stream.codec_context is not None]
    if videos and not streams:
        raise MediaError(
            path, "has video of an unknown codec", "convert it to H.264, for example with ffmpeg"
        )
    if not streams:
        cover = ": its only picture is cover art" if container.streams.video else ""
        raise MediaError(path, f"has no video stream{cover}", "give a file with a video stream")
    flagged = [stream for stream in streams if stream.disposition & Disposition.default]
    stream = max(flagged or streams, key=lambda each: each.codec_context.width * each.codec_context.height)
    limits.check_picture(path, stream.codec_context.width, stream.codec_context.height)
    return stream


def keeps_alpha_aside(stream: VideoStream) -> bool:
    """Whether the transparency of a VP8 or VP9 stream stands beside its packets (WebM's AlphaMode)."""
    told = {name.lower(): value for name, value in stream.metadata.items()}
    return stream.codec_context.codec.canonical_name in _ALPHA_DECODERS and told.get("alpha_mode") == "1"


def has_alpha_decoder(stream: VideoStream) -> bool:
    """Whether this build of FFmpeg has a decoder that reads transparency kept aside."""
    try:
        Codec(_ALPHA_DECODERS[stream.codec_context.codec.canonical_name], "r")
    except ValueError:  # UnknownCodecError is one
        return False
    return True


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """The decoder to be used for ``stream``, not opened yet: its own, or the one that reads transparency."""
    codec = stream.codec_context
    if not keeps_alpha_aside(stream) or not has_alpha_decoder(stream):
        return codec
    other = CodecContext.create(_ALPHA_DECODERS[codec.codec.canonical_name], "r")
    assert isinstance(other, VideoCodecContext)
    other.extradata = codec.extradata
    return other


def num_threads() -> int:
    """Codec threads: the cores this process may use, bounded. Automatic counts have hung busy servers."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    return min(os.cpu_count() or 1, _MAX_THREADS)


def decoder_versions() -> dict[str, str]:
    """PyAV and the FFmpeg libraries under it: what may change pixels."""
    libraries = {
        name: ".".join(str(part) for part in version) for name, version in av.library_versions.items()
    }
    return {"av": av.__version__, **libraries}
