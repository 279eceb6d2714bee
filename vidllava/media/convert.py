"""From a decoded frame to upright RGB pixels, resized at once where a size is given."""

from __future__ import annotations

import threading

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from vidllava.media.hdr import TRANSFERS, to_sdr
from vidllava.media.orientation import Orientation
from vidllava.media.probe import VideoInfo

_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
_BT2020 = 9  # AVCOL_PRI_BT2020
_EIGHT = 8  # bits: a picture of so few cannot hold HDR, whatever it is tagged

Picture = npt.NDArray[np.uint8]


class Converter:
    """From a decoded frame to upright RGB: [info.height, info.width, 3], or [size, size, 3]."""

    def __init__(self, info: VideoInfo, size: int | None) -> None:
        self.num_rescaled = 0
        """Frames of another size than the first: a stream may change it on its way."""
        self.num_untagged = 0
        """Frames whose colour matrix swscale does not know."""
        self._size = size
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
        width, height = self._stored
        transfer = TRANSFERS.get(int(frame.color_trc))
        if transfer is not None and frame.format.components[0].bits > _EIGHT:
            coded = frame.reformat(width, height, "rgb48le", threads=1).to_ndarray()
            return to_sdr(
                coded.astype(np.uint16, copy=False), transfer, wide=int(frame.color_primaries) == _BT2020
            )
        try:
            stored = frame.reformat(width, height, "rgb24", threads=1).to_ndarray()
        except av.error.FFmpegError:
            # Reserved and exotic matrices are refused outright; FFmpeg's own default is for untagged video.
            frame.colorspace = _UNTAGGED
            self._count("num_untagged")
            stored = frame.reformat(width, height, "rgb24", threads=1).to_ndarray()
        return stored.astype(np.uint8, copy=False)

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
