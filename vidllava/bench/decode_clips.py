"""The clips that decoding is measured on where none is given: 60 seconds each, every frame numbered.

    path = write_clip(folder, "360p_h264_g30.mp4")      # made if it is not there yet: up to minutes

Moving texture with a little noise, so that the encoders work as they do on film; a bar code across the top
says which frame it is, so that no two frames are alike and a fast wrong answer is no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

FPS, NUM_FRAMES, BITS = 30, 1800, 11
Picture = npt.NDArray[np.uint8]

# x264 as it comes; the others at quick presets, so that making them takes minutes.
_X264 = {"preset": "medium", "crf": "23"}
CLIPS: dict[str, tuple[str, int, int, dict[str, str]]] = {
    "360p_h264_g30.mp4": ("libx264", 640, 360, _X264 | {"x264-params": "keyint=30:min-keyint=30"}),
    "360p_h264_g250.mp4": ("libx264", 640, 360, _X264 | {"x264-params": "keyint=250:min-keyint=250"}),
    "1080p_h264_g30.mp4": ("libx264", 1920, 1080, _X264 | {"x264-params": "keyint=30:min-keyint=30"}),
    "1080p_h264_g250.mp4": ("libx264", 1920, 1080, _X264 | {"x264-params": "keyint=250:min-keyint=250"}),
    "360p_hevc_open.mp4": (
        "libx265",
        640,
        360,
        {"preset": "veryfast", "crf": "26", "x265-params": "log-level=none:open-gop=1:keyint=60"},
    ),
    "360p_vp9.webm": (
        "libvpx-vp9",
        640,
        360,
        {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"},
    ),
    "360p_av1.mp4": ("libsvtav1", 640, 360, {"preset": "12", "crf": "26", "g": "150"}),
}


def write_clip(folder: Path, name: str, *, num_frames: int = NUM_FRAMES) -> Path:
    """The clip called ``name`` in ``folder``, made if it is not there yet."""
    path = folder / name
    if path.exists():
        return path
    codec, width, height, options = CLIPS[name]
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"unfinished_{name}"
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures(width, height, num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


def pictures(width: int, height: int, num_frames: int) -> Iterator[Picture]:
    """The frames, uint8 [height, width, 3]."""
    rng = np.random.default_rng(0)
    texture = np.clip(128 + 24 * _smooth(rng.standard_normal((height + 256, width + 512, 3))), 0, 255)
    grain = rng.integers(-3, 4, (8, height, width, 1), dtype=np.int16)
    columns = np.arange(width) * BITS // width
    bar = height // 9
    for number in range(num_frames):
        left = int(256 + 255 * np.sin(number / 37.0))
        top = int(128 + 127 * np.sin(number / 53.0))
        moved = texture[top : top + height, left : left + width].astype(np.int16)
        box = int(width * (0.1 + 0.6 * (number % 240) / 240))
        moved[height // 2 : height // 2 + height // 5, box : box + width // 8] = (200, 60, 60)
        picture = np.clip(moved + grain[number % 8], 0, 255).astype(np.uint8)
        bits = np.array([number >> shift & 1 for shift in range(BITS - 1, -1, -1)], dtype=np.uint8)
        picture[:bar] = np.where(bits[columns], 235, 16)[None, :, None]
        yield picture


def _smooth(noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    for axis in (0, 1):
        for _ in range(3):
            noise = noise + np.roll(noise, 3, axis) + np.roll(noise, -3, axis)
    return noise / noise.std()
