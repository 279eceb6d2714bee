"""The clips that the decoding benchmark reads: 60 seconds each, the frame's number in its pixels.

    python benchmarks/clips.py build/clips          write those that are missing (minutes)

Moving texture with a little noise, so that the encoders work as they do on film; a bar code across the top
says which frame it is, so that a fast wrong answer is no answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

FPS, NUM_FRAMES, BITS = 30, 1800, 11
Picture = npt.NDArray[np.uint8]

# x264 as it comes; the others at quick presets, so that making them takes minutes.
X264 = {"preset": "medium", "crf": "23"}
CLIPS: dict[str, tuple[str, int, int, dict[str, str]]] = {
    "360p_h264_g30.mp4": ("libx264", 640, 360, X264 | {"x264-params": "keyint=30:min-keyint=30"}),
    "360p_h264_g250.mp4": ("libx264", 640, 360, X264 | {"x264-params": "keyint=250:min-keyint=250"}),
    "1080p_h264_g30.mp4": ("libx264", 1920, 1080, X264 | {"x264-params": "keyint=30:min-keyint=30"}),
    "1080p_h264_g250.mp4": ("libx264", 1920, 1080, X264 | {"x264-params": "keyint=250:min-keyint=250"}),
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


def pictures(width: int, height: int) -> Iterator[Picture]:
    """The frames, uint8 [height, width, 3]."""
    rng = np.random.default_rng(0)
    texture = np.clip(128 + 24 * _smooth(rng.standard_normal((height + 256, width + 512, 3))), 0, 255)
    grain = rng.integers(-3, 4, (8, height, width, 1), dtype=np.int16)
    columns = np.arange(width) * BITS // width
    bar = height // 9
    for number in range(NUM_FRAMES):
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


def read_number(picture: Picture) -> int:
    """Which frame this is, at any size."""
    height, width = picture.shape[:2]
    row = picture[height // 36 : height // 12].mean(axis=(0, 2))
    levels = row[((np.arange(BITS) + 0.5) * width / BITS).astype(int)]
    return int("".join("1" if level > 125 else "0" for level in levels), 2)


def write(folder: Path, name: str) -> Path:
    """The clip, made if it is not there yet."""
    path = folder / name
    if path.exists():
        return path
    codec, width, height, options = CLIPS[name]
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"unfinished_{name}"
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures(width, height):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


if __name__ == "__main__":
    for each in CLIPS:
        print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "build/clips"), each), file=sys.stderr)
