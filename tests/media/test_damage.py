"""Damaged files: keep what can be kept, say what was lost, refuse what is not a fair picture, never crash."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import read_number, write_clip
from vidllava.errors import MediaError, VidllavaError
from vidllava.media.decode import decode
from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.planned_reader import UnverifiedError
from vidllava.media.probe import media_kind, probe
from vidllava.media.timeline import SamplingRequest, plan_frames


def with_broken_packets(source: Path, target: Path, numbers: Sequence[int], intact: float = 0.0) -> Path:
    """A copy of a file in which these packets hold zeros, after the ``intact`` share of each."""
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = source.read_bytes()
    for number in numbers:
        packet = packets[number]
        assert data.count(packet) == 1
        kept = int(len(packet) * intact)
        data = data.replace(packet, packet[:kept] + bytes(len(packet) - kept))
    target.write_bytes(data)
    return target


def take(path: Path, **request) -> FrameBatch:
    info = probe(path)
    return decode(info, plan_frames(info.frame_times, SamplingRequest(**request), source=str(path)))


def refuse(*_: object, **__: object) -> None:
    raise UnverifiedError("a test")


@pytest.fixture
def in_sequence(monkeypatch) -> None:
    """Decode from the first frame on, as the sampler does wherever it is in doubt."""
    monkeypatch.setattr("vidllava.media.decoders.pyav.collect_planned", refuse)


@pytest.fixture(params=[1, 4], ids=["one thread", "four threads"])
def threads(request, monkeypatch) -> None:
    monkeypatch.setattr("vidllava.media.reader.num_threads", lambda: request.param)


@pytest.mark.usefixtures("threads")
def test_a_lost_frame_is_replaced_by_the_one_still_on_screen_and_said(clip, tmp_path):
    path = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "hole.mp4", [20])
    batch = take(path, start_seconds=0.5, end_seconds=1.0)
    shown = [*range(15, 20), 19, *range(21, 30)]
    assert [read_number(picture) for picture in batch.pixels] == shown == list(batch.plan.indices)
    assert batch.timestamps_seconds == pytest.approx([number / 30 for number in shown])
    assert batch.plan.instants_seconds[5] == pytest.approx(20 / 30)
    assert batch.notes == (
        "1 planned frames cannot be decoded: the last good one before each is shown",
        "damaged: 1 packets could not be decoded; frames after them may show remains",
    )


@pytest.mark.usefixtures("threads")
def test_damage_elsewhere_does_not_change_the_frames(clip, tmp_path, monkeypatch):
    path = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "hole.mp4", [20])
    batch = take(path, num_frames=6)
    assert [read_number(picture) for picture in batch.pixels] == [0, 11, 23, 35, 47, 59]
    assert batch.notes == ()  # the sampler did not come past it
    monkeypatch.setattr("vidllava.media.decoders.pyav.collect_planned", refuse)
    batch = take(path, num_frames=6)
    assert [read_number(picture) for picture in batch.pixels] == [0, 11, 23, 35, 47, 59]
    assert batch.notes == ("damaged: 1 packets could not be decoded; frames after them may show remains",)


def test_two_lost_frames_in_a_row_both_show_the_last_good_one(clip, tmp_path):
    path = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "hole.mp4", [20, 21])
    batch = take(path, start_seconds=19 / 30, end_seconds=23 / 30)
    assert list(batch.plan.indices) == [19, 19, 19, 22]


DAMAGED = [
    *itertools.product(["one_key.mp4", "open_gop_hevc.mp4", "constant.avi", "vp8.webm"], [31, 58], [0.0]),
    # Half a packet. Not for HEVC: its decoder reports nothing, and its frame threads race for what is left.
    *itertools.product(["one_key.mp4", "constant.avi", "vp8.webm"], [31], [0.6]),
]


@pytest.mark.usefixtures("in_sequence")
@pytest.mark.parametrize(("name", "number", "intact"), DAMAGED)
def test_threads_do_not_change_what_damage_leaves(clip, tmp_path, monkeypatch, name, number, intact):
    """Frame threads lose frames near the end without an error, and patch up half a frame as luck has it."""
    path = with_broken_packets(clip(name), tmp_path / name, [number], intact)
    monkeypatch.setattr("vidllava.media.reader.num_threads", lambda: 1)
    one = take(path)
    assert intact or any(note.startswith("damaged") for note in one.notes + probe(path).notes)
    monkeypatch.setattr("vidllava.media.reader.num_threads", lambda: 4)
    four = take(path)
    assert np.array_equal(one.pixels, four.pixels)
    assert (one.plan, one.notes) == (four.plan, four.notes)


@pytest.mark.parametrize(
    ("place", "shown", "indices"),
    [(31, [29, 30, 30, 31], [29, 30, 30, 32]), (0, [0, 0, 1], [1, 1, 2])],
    ids=["in the middle", "before all others"],
)
def test_a_frame_that_the_stream_does_not_show_is_replaced_and_said(clip, place, shown, indices):
    """What the packets promised and the decoder does not give: here a stamp that no packet has."""
    info = probe(clip("constant.mp4"))
    ticks = np.insert(info.frame_ticks, place, info.frame_ticks[place] - 7)
    times = (ticks - ticks[0]) * float(info.time_base)
    wrong = replace(info, frame_ticks=ticks, frame_times=times, num_frames=61)
    some = slice(max(place - 2, 0), max(place + 2, 3))
    plan = FramePlan(tuple(times[some]), tuple(range(61))[some], tuple(times[some]), "a wrong index")
    batch = decode(wrong, plan)
    assert [read_number(picture) for picture in batch.pixels] == shown
    assert list(batch.plan.indices) == indices
    assert batch.timestamps_seconds == pytest.approx(times[indices])
    assert batch.notes == (
        "1 planned frames cannot be decoded: the last good one before each is shown",
        "damaged: 1 frames are missing without an error",
    )


@pytest.mark.usefixtures("in_sequence")
def test_up_to_a_tenth_may_be_lost_and_no_more(clip, tmp_path):
    six = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "six.mp4", range(3, 60, 10))
    assert len(take(six, num_frames=8)) == 8
    seven = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "seven.mp4", [*range(3, 60, 10), 4])
    with pytest.raises(MediaError, match=r"7 of 60 frames cannot be decoded, over the limit of 10%"):
        take(seven, num_frames=8)


def test_a_plan_is_not_answered_with_stand_ins_only(clip, tmp_path):
    path = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "hole.mp4", [20, 21, 22])
    with pytest.raises(MediaError, match="3 of the 3 planned frames cannot be decoded"):
        take(path, start_seconds=20 / 30, end_seconds=23 / 30)


def test_a_broken_first_frame_moves_the_start_and_is_said(clip, tmp_path):
    path = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "hole.mp4", [0])
    info = probe(path)
    assert (info.num_frames, info.frame_times[0]) == (59, 0.0)
    assert any(note.startswith("the first 1 frames") for note in info.notes)
    assert read_number(take(path, num_frames=2).pixels[0]) == 1


SEEDS = [
    "constant.mp4",
    "constant.mkv",
    "constant.ts",
    "constant.avi",
    "constant.webm",
    "constant.gif",
    "late.mp4",
]

NUM_MUTATED = 2100


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One file in one of five ways broken: cut, bits flipped, bytes missing, a zeroed run, a repeated run."""
    broken, place = bytearray(data), chance.randrange(len(data))
    kind = chance.randrange(5)
    if kind == 0:
        del broken[max(place, 1) :]
    elif kind == 1:
        for _ in range(chance.choice([1, 8, 60])):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        del broken[place : place + chance.choice([1, 4, 300])]
    elif kind == 3:
        run = broken[place : place + chance.choice([4, 400])]
        broken[place : place + len(run)] = bytes(len(run))
    else:
        broken[place:place] = broken[place : place + chance.choice([8, 400])]
    return bytes(broken)


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_give_frames_or_one_line(clip, tmp_path, name):
    data, chance = clip(name).read_bytes(), random.Random(name)
    path = tmp_path / name
    for _ in range(NUM_MUTATED // len(SEEDS)):
        path.write_bytes(mutated(data, chance))
        probe.__globals__["_probe"].cache_clear()
        try:
            media_kind(path)
            batch = take(path, num_frames=8)
        except VidllavaError:
            continue
        assert np.all(np.diff(batch.timestamps_seconds) >= 0)


def test_an_undamaged_clip_has_no_notes(tmp_path):
    batch = take(write_clip(tmp_path / "clip.mp4", num_frames=10), num_frames=4)
    assert batch.notes == ()
