"""decord: the same frames as PyAV where it is used, and a reason where it is not."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import read_number
from tests.media.test_decode import take
from vidllava.errors import UsageError
from vidllava.media.decode import choose_backend, decode
from vidllava.media.frames import FramePlan
from vidllava.media.probe import probe

needs_decord = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord has wheels for Linux x86-64 only"
)
TRUSTED = [
    "constant.mp4",
    "constant.mkv",
    "constant.mov",
    "constant.webm",
    "vp8.webm",
    "variable.mkv",
    "late.mp4",
    "every_frame_a_key.mp4",
    "one_key.mp4",
]


@needs_decord
@pytest.mark.parametrize("name", TRUSTED)
@pytest.mark.parametrize("size", [None, 48])
def test_decord_gives_the_same_batch_as_pyav(clip, name, size):
    theirs = take(clip(name), backend="decord", num_frames=9, size=size)
    ours = take(clip(name), num_frames=9, size=size)
    assert (theirs.backend, theirs.notes) == ("decord", ())
    assert np.array_equal(theirs.pixels, ours.pixels)
    assert np.array_equal(theirs.timestamps_seconds, ours.timestamps_seconds)
    assert theirs.plan == ours.plan


@needs_decord
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(["constant.mp4", "constant.webm", "late.mp4"]), st.data())
def test_any_subset_from_decord_is_those_frames(clip, name, data):
    info = probe(clip(name))
    indices = tuple(sorted(data.draw(st.sets(st.integers(0, info.num_frames - 1), min_size=1, max_size=9))))
    times = tuple(float(info.frame_times[index]) for index in indices)
    batch = decode(info, FramePlan(times, indices, times, "drawn"), backend="decord")
    assert batch.backend == "decord"
    assert [read_number(picture) for picture in batch.pixels] == list(indices)


@needs_decord
def test_decord_turns_pictures_as_pyav_does(turned):
    path = turned(0, 1, -1, 0)
    theirs = take(path, backend="decord")
    assert theirs.backend == "decord"
    assert np.array_equal(theirs.pixels, take(path).pixels)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("open_gop_hevc.mp4", "it is not reliable on hevc video"),
        ("constant.ts", "it is not reliable on mpegts files"),
        ("constant.mpg", "it is not reliable on mpeg files"),
        ("constant.avi", "it is not reliable on avi files"),
        ("ten_bit.mp4", "it is not reliable on yuv420p10le pictures"),
        ("open_gop.mp4", "it seeks to key frames, and one of this file's does not stand alone"),
        ("odd_size.mp4", "it is not reliable on yuv444p pictures"),
    ],
)
def test_where_decord_is_known_to_be_wrong_pyav_decodes_and_says_why(clip, name, why):
    batch = take(clip(name), backend="decord", num_frames=5)
    assert batch.backend == "pyav"
    assert batch.notes == (f"decord was not used: {why}; decoded with PyAV",)
    assert [read_number(picture) for picture in batch.pixels] == list(batch.plan.indices)


@needs_decord
def test_a_count_that_is_not_the_probes_is_caught(clip):
    """decord counts the frames that an edit list hides, and then gives shifted pictures."""
    batch = take(clip("edit_list.mp4"), backend="decord", num_frames=5)
    assert batch.notes == ("decord was not used: it counts 60 frames, the file shows 55; decoded with PyAV",)
    assert [read_number(picture) for picture in batch.pixels] == [index + 5 for index in batch.plan.indices]


class FakeReader:
    """Stands for decord.VideoReader: 60 frames, one of them at a wrong time."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __len__(self) -> int:
        return 60

    def get_frame_timestamp(self, indices: list[int]) -> np.ndarray:
        starts = np.array(indices) / 30
        starts[41] += 0.5
        return np.stack([starts, starts], axis=1)


def test_a_time_that_is_not_the_probes_is_caught(clip, monkeypatch):
    fake = ModuleType("decord")
    fake.VideoReader, fake.cpu, fake.DECORDError = FakeReader, int, OSError
    fake.logging = ModuleType("logging")
    fake.logging.QUIET, fake.logging.set_level = -8, print
    monkeypatch.setitem(sys.modules, "decord", fake)
    batch = take(clip("constant.mp4"), backend="decord", num_frames=5)
    assert batch.notes == (
        "decord was not used: it puts frame 41 0.500 s off its presentation time; decoded with PyAV",
    )


def test_without_decord_the_flag_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--video-backend: decord is not installed \(pip install decord"):
        choose_backend("decord")
