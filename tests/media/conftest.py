"""Clips made once per session: one line each, named for what is special about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clips import cut_by_edit_list, set_display_matrix, write_clip

# Uneven on purpose: two fast runs with a long still between them.
VARIABLE_MS = (0, 33, 67, 300, 333, 367, 1400, 1433, 1467, 1500, 1533, 1700)
QUARTER_TURNS = {"90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0)}
OPEN_GOP = "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12"

CLIPS: dict[str, Callable[[Path], Path]] = {
    "constant.mp4": write_clip,
    "constant.mkv": write_clip,
    "constant.mov": write_clip,
    "constant.webm": write_clip,
    "constant.ts": write_clip,
    "constant.avi": write_clip,
    "constant.flv": write_clip,
    "constant.gif": write_clip,
    "constant.mpg": lambda path: write_clip(path, codec="mpeg2video"),
    "vp8.webm": lambda path: write_clip(path, codec="libvpx"),
    "h264.avi": lambda path: write_clip(path, codec="libx264"),
    "variable.mp4": lambda path: write_clip(path, num_frames=12, times_ms=VARIABLE_MS),
    "variable.mkv": lambda path: write_clip(path, num_frames=12, times_ms=VARIABLE_MS),
    "variable.webm": lambda path: write_clip(path, num_frames=12, times_ms=VARIABLE_MS),
    "late.mp4": lambda path: write_clip(path, start_seconds=2.0),
    "late.mkv": lambda path: write_clip(path, start_seconds=2.0),
    "late.ts": lambda path: write_clip(path, start_seconds=2.0),
    "every_frame_a_key.mp4": lambda path: write_clip(path, gop=1, b_frames=0),
    "one_key.mp4": lambda path: write_clip(path, gop=250, b_frames=3),
    "open_gop.mp4": lambda path: write_clip(path, options={"x264-params": OPEN_GOP}),
    "open_gop_hevc.mp4": lambda path: write_clip(
        path, codec="libx265", options={"x265-params": f"log-level=none:pools=1:{OPEN_GOP}"}
    ),
    "ten_bit.mp4": lambda path: write_clip(path, pixel_format="yuv420p10le"),
    "full_chroma.mp4": lambda path: write_clip(path, pixel_format="yuv444p"),
    "odd_size.mp4": lambda path: write_clip(path, width=129, height=97, pixel_format="yuv444p"),
    "edit_list.mp4": lambda path: cut_by_edit_list(write_clip(path), 5),
    "interlaced.ts": lambda path: write_clip(path, options={"x264-params": "tff=1"}),
    "interlaced.mp4": lambda path: write_clip(path, options={"x264-params": "tff=1"}),
    "raw.h264": write_clip,
    "one_frame.mp4": lambda path: write_clip(path, num_frames=1),
    "-dash 100%03d 'q\" [b] ü\n.mp4": write_clip,
}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``clip(name)``: the path of a clip of ``CLIPS``, written on first use."""
    folder = tmp_path_factory.mktemp("clips")

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else CLIPS[name](path)

    return get


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``turned(a, b, c, d)``: a clip whose track header carries that display matrix."""
    folder = tmp_path_factory.mktemp("turned")

    def get(a: int, b: int, c: int, d: int) -> Path:
        path = folder / f"{a}{b}{c}{d}.mp4"
        return path if path.exists() else set_display_matrix(write_clip(path, num_frames=6), a, b, c, d)

    return get
