"""From a decoded frame to upright RGB pixels, resized at once where a size is given."""

from __future__ import annotations

import threading
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from vidllava.errors import MediaError
from vidllava.media.frames import FrameSize
from vidllava.media.hdr import hdr_transfer, to_sdr
from vidllava.media.orientation import Orientation
from vidllava.media.probe import VideoInfo, num_bits

_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
_BT2020_MATRIX = 9  # AVCOL_SPC_BT2020_NCL
_BT2020 = 9  # AVCOL_PRI_BT2020
_RANGES = (0, 1, 2)  # AVColorRange: unspecified, limited, full
# Their decoders hand out 32-bit pixels whose fourth byte often is not an alpha value, but 0 throughout.
_PADDED_CODECS = ("rawvideo", "huffyuv")
# swscale ends the process over these (an assertion), where it refuses others.
_FATAL_FORMATS = ("yaf32be", "yaf32le")

Picture = npt.NDArray[np.uint8]


class Converter:
    """From a decoded frame to upright RGB: [info.height, info.width, 3], or a square, [S, S, 3].

    Transparent parts are laid over white, as those of pictures are. Raises MediaError for a pixel format
    that swscale cannot convert.
    """

    def __init__(self, info: VideoInfo, size: FrameSize | None) -> None:
        self.num_rescaled = 0
        """Frames of another size than the first: a stream may change it on its way."""
        self.num_untagged = 0
        """Frames whose colour matrix swscale does not know."""
        self._size = size
        self._path = info.path
        self._padded = info.codec in _PADDED_CODECS
        self._lock = threading.Lock()
        self._turn = Orientation(info.rotation, info.mirrored)
        # Turning the upright size once more gives the stored one.
        self._stored = self._turn.size(info.width, info.height)

    def __call__(self, frame: VideoFrame) -> Picture:
        if (frame.width, frame.height) != self._stored:
            self._count("num_rescaled")
        picture = self._turn.apply(self._to_rgb(frame))
        if self._size is None:
            return picture
        from vidllava.media.pixels import resize_frames

        return resize_frames(picture[None], self._size)[0].permute(1, 2, 0).numpy()

    def _to_rgb(self, frame: VideoFrame) -> Picture:
        transfer = hdr_transfer(int(frame.color_trc), num_bits(frame))
        see_through = _has_alpha(frame) and not self._is_padding(frame)
        if transfer is not None:
            coded = self._reformatted(frame, "rgba64le" if see_through else "rgb48le", _BT2020_MATRIX)
            colours = np.ascontiguousarray(coded[..., :3]).astype(np.uint16, copy=False)
            picture = to_sdr(colours, transfer, wide=int(frame.color_primaries) == _BT2020)
            return _over_white(picture, (coded[..., 3] >> 8).astype(np.uint8)) if see_through else picture
        stored = self._reformatted(frame, "rgba" if see_through else "rgb24", _UNTAGGED)
        if see_through:
            return _over_white(stored[..., :3], stored[..., 3])
        return stored.astype(np.uint8, copy=False)

    def _reformatted(self, frame: VideoFrame, name: str, matrix: int) -> npt.NDArray[Any]:
        """The stored picture in pixel format ``name``; ``matrix`` replaces one that swscale does not know."""
        width, height = self._stored
        if frame.format.name in _FATAL_FORMATS:
            raise self._no_conversion(frame)
        try:
            return frame.reformat(width, height, name, threads=1).to_ndarray()
        except av.error.FFmpegError:
            # Reserved and exotic matrices are refused outright; FFmpeg's own default is for untagged video.
            frame.colorspace = matrix
            if int(frame.color_range) not in _RANGES:
                frame.color_range = 0
            self._count("num_untagged")
        try:
            return frame.reformat(width, height, name, threads=1).to_ndarray()
        except av.error.FFmpegError:
            raise self._no_conversion(frame) from None

    def _no_conversion(self, frame: VideoFrame) -> MediaError:
        what = f"has pixels of a format that cannot be converted to RGB ({frame.format.name})"
        return MediaError(self._path, what, "convert it to H.264, for example with ffmpeg")

    def _is_padding(self, frame: VideoFrame) -> bool:
        """Whether what stands for alpha is a byte that nobody meant: 0 throughout, where that is usual."""
        if frame.format.has_palette:
            palette = frame.to_ndarray()[1]  # ARGB
            return not palette[:, 0].any()
        return self._padded and not self._reformatted(frame, "rgba", _UNTAGGED)[..., 3].any()

    def _count(self, name: str) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)

    def notes(self) -> list[str]:
        """What had to be changed about the pictures."""
        found = []
        if self.num_rescaled:
            width, height = self._stored
            found.append(f"the picture size changes on the way: frames are scaled to {width}x{height}")
        if self.num_untagged:
            found.append("the colour matrix is unknown: converted as if there were no colour tags")
        return found


def _has_alpha(frame: VideoFrame) -> bool:
    form = frame.format
    return bool(form.has_palette or any(component.is_alpha for component in form.components))


def _over_white(colours: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> Picture:
    """[H, W, 3] with straight ``alpha`` [H, W] of 0 to 255, laid over white: rounded to the nearest level."""
    if alpha.min() == 255:
        return np.ascontiguousarray(colours).astype(np.uint8, copy=False)
    share = alpha.astype(np.uint16)[..., None]
    laid = (colours.astype(np.uint16) * share + (255 * (255 - share) + 127)) // 255
    return laid.astype(np.uint8)
