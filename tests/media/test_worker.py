"""A decoder in a child process gives the very frames, values and errors of this process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.clips import numbered_picture
from vidllava.errors import MediaError
from vidllava.media import worker as worker_module
from vidllava.media.frames import FramePlan
from vidllava.media.sampler import IN_PROCESS
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.media.wire import pack, read_arrays, unpack, write_arrays
from vidllava.media.worker import WorkerSampler


@pytest.fixture(scope="module")
def sampler() -> Iterator[WorkerSampler]:
    with WorkerSampler() as one:
        yield one


def plan_of(info: Any, num_frames: int = 6) -> FramePlan:
    return plan_frames(info.frame_times, SamplingRequest(num_frames=num_frames), source=info.path)


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if is_dataclass(ours):
        for each in fields(ours):
            assert_same(getattr(ours, each.name), getattr(theirs, each.name))
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    else:
        assert ours == theirs


KINDS = [
    "constant.mp4",
    "variable.mkv",
    "late.ts",
    "constant.avi",
    "constant.gif",
    "edit_list.mp4",
    "vp8.webm",
]


@pytest.mark.parametrize("name", KINDS)
def test_what_a_file_is_travels_exactly(sampler, clip, name):
    path = str(clip(name))
    assert_same(sampler.probe(path), IN_PROCESS.probe(path))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [None, 48])
def test_frames_are_those_of_this_process(sampler, clip, name, size):
    info = IN_PROCESS.probe(str(clip(name)))
    ours = sampler.decode(info, plan_of(info), size=size)
    theirs = IN_PROCESS.decode(info, plan_of(info), size=size)
    assert_same(ours, theirs)


def test_a_frame_wanted_twice_is_there_twice(sampler, clip):
    info = IN_PROCESS.probe(str(clip("constant.mp4")))
    times = tuple(float(info.frame_times[index]) for index in (3, 3, 9, 9, 9))
    plan = FramePlan(times, (3, 3, 9, 9, 9), times, "twice")
    assert_same(sampler.decode(info, plan, size=40), IN_PROCESS.decode(info, plan, size=40))


def test_turned_and_damaged_clips_too(sampler, clip, turned, tmp_path):
    data = bytearray(clip("one_key.mp4").read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + 30] = bytes(30)
    (tmp_path / "damaged.mp4").write_bytes(data)
    for path in (turned(0, 1, -1, 0), tmp_path / "damaged.mp4"):
        info = IN_PROCESS.probe(str(path))
        plan = plan_of(info)
        assert_same(sampler.decode(info, plan, size=48), IN_PROCESS.decode(info, plan, size=48))


def test_each_frame_is_told_when_it_is_final(sampler, clip):
    info = IN_PROCESS.probe(str(clip("constant.mp4")))
    seen: list[tuple[int | None, int]] = []
    batch = sampler.decode(
        info, plan_of(info), size=32, on_ready=lambda place, all_: seen.append((place, id(all_)))
    )
    assert sorted(place for place, _ in seen if place is not None) == list(range(6))
    assert {one for _, one in seen} == {id(batch.pixels)}


def test_what_was_begun_is_collected_in_any_order(sampler, clip):
    infos = [IN_PROCESS.probe(str(clip(name))) for name in ("constant.mp4", "variable.mkv")]
    for info in infos:
        sampler.begin(info, plan_of(info), size=48)
    for info in reversed(infos):
        assert_same(
            sampler.decode(info, plan_of(info), size=48), IN_PROCESS.decode(info, plan_of(info), size=48)
        )
    assert not sampler._begun


def test_a_narrow_window_lets_every_frame_through(clip, monkeypatch):
    monkeypatch.setattr(worker_module, "WINDOW_BYTES", 1)
    info = IN_PROCESS.probe(str(clip("constant.mp4")))
    with WorkerSampler() as one:
        one.begin(info, plan_of(info, 20), size=48)
        assert_same(
            one.decode(info, plan_of(info, 20), size=48), IN_PROCESS.decode(info, plan_of(info, 20), size=48)
        )


def test_a_picture_comes_through(sampler, tmp_path):
    Image.fromarray(numbered_picture(3)).save(tmp_path / "p.png")
    found = sampler.picture(str(tmp_path / "p.png"))
    assert np.array_equal(found, numbered_picture(3))
    found[0, 0] = 1


def test_an_error_keeps_its_class_and_words(sampler, tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MediaError) as caught:
        sampler.probe(str(tmp_path / "empty.mp4"))
    assert str(caught.value) == f"{tmp_path}/empty.mp4: is empty (0 bytes) (copy or download it again)"
    with pytest.raises(MediaError, match="no such file"):
        sampler.picture("nowhere.png")


def test_paths_follow_the_working_folder(sampler, clip, tmp_path, monkeypatch):
    (tmp_path / "c.mp4").write_bytes(clip("constant.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert sampler.probe("c.mp4").path == "c.mp4"


def test_what_cannot_travel_is_refused():
    with pytest.raises(TypeError, match=r"Path does not travel"):
        pack((1, Path("a")))


def test_no_class_is_built_but_those_of_media():
    with pytest.raises(KeyError):
        unpack({"kind": "Popen", "fields": {"args": "true"}}, [])


def test_an_array_beyond_its_region_is_refused():
    described, region = write_arrays([np.arange(5)])
    try:
        assert np.array_equal(read_arrays(described, region)[0], np.arange(5))
        for wrong in ([["<i8", [6]]], [["<i8", [-1]]], [["<i8", [1 << 62]]]):
            with pytest.raises(ValueError, match="region"):
                read_arrays(wrong, region)
    finally:
        os.close(region)


def test_messages_are_json(clip):
    value, arrays = pack(IN_PROCESS.probe(str(clip("constant.mp4"))))
    assert_same(unpack(json.loads(json.dumps(value)), arrays), IN_PROCESS.probe(str(clip("constant.mp4"))))
