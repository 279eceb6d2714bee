"""torchcodec: used where it agrees with the probe, a reason where not, one line where it does not load.

It is not installed where this is tested: a module with its interface stands for it, over PyAV's frames.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.clips import read_number
from tests.media.sequential import decode_everything
from tests.media.test_decode import take
from vidllava.errors import UsageError
from vidllava.media.decode import choose_backend
from vidllava.media.probe import probe


@dataclass
class Frames:
    """Stands for torchcodec.FrameBatch."""

    data: torch.Tensor
    pts_seconds: torch.Tensor


class Decoder:
    """Stands for torchcodec.decoders.VideoDecoder; tests spoil it in one way each."""

    asked: dict[str, Any]
    late, lost, turned, fails = 0.0, 0, False, False

    def __init__(self, path: str, **asked: Any) -> None:
        type(self).asked = asked
        assert asked["seek_mode"] == "exact"
        assert asked["dimension_order"] == "NHWC"
        info = probe(path)
        self._pictures, _ = decode_everything(path)
        self._times = info.frame_ticks * float(info.time_base)

    def __len__(self) -> int:
        return len(self._pictures) - self.lost

    def get_frame_at(self, index: int) -> Frames:
        if self.fails:
            raise RuntimeError("Could not push packet to decoder")
        return self.get_frames_at([index])

    def get_frames_at(self, indices: list[int]) -> Frames:
        data = np.stack([self._pictures[index] for index in indices])
        data = data.transpose(0, 2, 1, 3).copy() if self.turned else data
        return Frames(torch.from_numpy(data), torch.from_numpy(self._times[indices] + self.late))


@pytest.fixture
def torchcodec(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type[Decoder]]:
    """Installs the stand-in, spoilt as named."""

    def install(**spoilt: Any) -> type[Decoder]:
        kind = type("VideoDecoder", (Decoder,), spoilt)
        package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
        decoders.VideoDecoder = kind  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchcodec", package)
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
        return kind

    return install


@pytest.mark.parametrize("name", ["constant.mp4", "late.mkv", "variable.webm"])
@pytest.mark.parametrize("size", [None, 48])
def test_where_it_agrees_it_is_used(clip, torchcodec, name, size):
    kind = torchcodec()
    theirs = take(clip(name), backend="torchcodec", num_frames=7, size=size)
    ours = take(clip(name), num_frames=7, size=size)
    assert (theirs.backend, theirs.notes) == ("torchcodec", ())
    assert np.array_equal(theirs.pixels, ours.pixels)
    assert np.array_equal(theirs.timestamps_seconds, ours.timestamps_seconds)
    assert kind.asked["stream_index"] == 0


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ({"late": 0.01}, "it puts frame 0 0.010 s off its presentation time"),
        ({"late": float("nan")}, "it puts frame 0 nan s off its presentation time"),
        ({"lost": 1}, "it counts 59 frames, the file shows 60"),
        ({"turned": True}, "it gives uint8 [5, 128, 96, 3], not uint8 [5, 96, 128, 3]"),
        ({"fails": True}, "it failed with RuntimeError"),
    ],
)
def test_where_it_does_not_pyav_decodes_and_says_why(clip, torchcodec, spoilt, why):
    torchcodec(**spoilt)
    batch = take(clip("constant.mp4"), backend="torchcodec", num_frames=5)
    assert batch.backend == "pyav"
    assert batch.notes == (f"torchcodec was not used: {why}; decoded with PyAV",)
    assert [read_number(picture) for picture in batch.pixels] == list(batch.plan.indices)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ten_bit.mp4", "it has not been compared on yuv420p10le pictures"),
        ("constant.avi", "the frames of this file can only be counted by decoding"),
        ("open_gop.mp4", "it seeks to key frames, and one of this file's does not stand alone"),
    ],
)
def test_doubtful_files_are_not_left_to_it(clip, torchcodec, name, why):
    torchcodec()
    assert (
        take(clip(name), backend="torchcodec", num_frames=3)
        .notes[0]
        .startswith(f"torchcodec was not used: {why}")
    )


def test_turned_files_are_not_left_to_it(turned, torchcodec):
    torchcodec()
    batch = take(turned(0, 1, -1, 0), backend="torchcodec")
    assert "its versions differ in whether they turn pictures" in batch.notes[0]


@pytest.mark.parametrize("fault", [ImportError, OSError, RuntimeError])
def test_one_that_does_not_load_is_one_line(clip, monkeypatch, fault):
    def broken(name: str) -> ModuleType:
        raise fault("libnvrtc.so.13: cannot open shared object file\nand forty lines more")

    monkeypatch.setattr("vidllava.media.decoders.torchcodec.importlib.import_module", broken)
    with pytest.raises(UsageError) as caught:
        take(clip("constant.mp4"), backend="torchcodec")
    assert str(caught.value).startswith(
        "--video-backend: torchcodec does not load: libnvrtc.so.13: cannot open shared object file (pip "
    )


def test_one_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--video-backend: torchcodec is not installed \(pip install torchcodec"
    ):
        choose_backend("torchcodec")
