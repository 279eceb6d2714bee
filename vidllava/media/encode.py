"""Frames to a video file: the way back, for examples and for tests that must go through a real decoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt


def write_clip(path: str | Path, frames: npt.NDArray[np.uint8], *, fps: int = 16, crf: int = 20) -> Path:
    """Write ``frames`` uint8 [T, H, W, 3] (H and W even) as H.264 in MP4 with constant frame rate.

    yuv420p, which every player shows; ``crf``: x264's quality, lower is better. The same frames give the same
    bytes: one thread, no creation time.
    """
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium", "threads": "1"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return Path(path)
