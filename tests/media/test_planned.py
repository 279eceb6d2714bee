"""The sampler that seeks gives the very pixels of a decode from the first frame on, or gives way to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import write_clip
from tests.media.conftest import OPEN_GOP
from tests.media.sequential import decode_everything
from tests.media.test_damage import mutated, refuse, with_broken_packets
from vidllava.errors import VidllavaError
from vidllava.media import planned_reader
from vidllava.media.bitstream import CLEAN_START, NO_START, OPEN_START, PacketIndex, Run, runs, shares
from vidllava.media.decode import decode
from vidllava.media.frames import FramePlan
from vidllava.media.probe import VideoInfo, probe
from vidllava.media.timeline import SamplingRequest, plan_frames

X265 = "log-level=none:pools=1"
# Enough key frames for many runs, B-frames that others refer to, every codec and container that seeks.
LONG_CLIPS: dict[str, Callable[[Path], Path]] = {
    "closed.mp4": lambda path: write_clip(path, num_frames=120, b_frames=3, options=_pyramid()),
    "closed.mkv": lambda path: write_clip(path, num_frames=120, b_frames=3, options=_pyramid()),
    "closed.ts": lambda path: write_clip(path, num_frames=120, b_frames=3, options=_pyramid()),
    "closed.flv": lambda path: write_clip(path, num_frames=120, b_frames=3, options=_pyramid()),
    "open.mp4": lambda path: write_clip(path, num_frames=120, options={"x264-params": OPEN_GOP}),
    "open.ts": lambda path: write_clip(path, num_frames=120, options={"x264-params": OPEN_GOP}),
    "refresh.mp4": lambda path: write_clip(
        path, num_frames=120, options={"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    ),
    "open_hevc.mp4": lambda path: write_clip(
        path, num_frames=120, codec="libx265", options={"x265-params": f"{X265}:{OPEN_GOP}:b-pyramid=1"}
    ),
    "open_hevc.mkv": lambda path: write_clip(
        path, num_frames=120, codec="libx265", options={"x265-params": f"{X265}:{OPEN_GOP}:b-pyramid=1"}
    ),
    "open_hevc.ts": lambda path: write_clip(
        path, num_frames=120, codec="libx265", options={"x265-params": f"{X265}:{OPEN_GOP}:b-pyramid=1"}
    ),
    "vp9.webm": lambda path: write_clip(
        path, num_frames=120, options={"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "good"}
    ),
    "vp8.webm": lambda path: write_clip(path, num_frames=120, codec="libvpx"),
    "av1.mp4": lambda path: write_clip(path, num_frames=90, codec="libsvtav1", b_frames=0),
    "av1.webm": lambda path: write_clip(path, num_frames=90, codec="libsvtav1", b_frames=0),
    "mpeg2.ts": lambda path: write_clip(path, num_frames=120, codec="mpeg2video"),
    "mpeg2.mpg": lambda path: write_clip(path, num_frames=120, codec="mpeg2video"),
    "mpeg4.mp4": lambda path: write_clip(path, num_frames=120, codec="mpeg4"),
    "fragments.mp4": lambda path: write_clip(
        path, num_frames=120, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "variable.mkv": lambda path: write_clip(
        path, num_frames=100, times_ms=[30 * n + 7 * (n * n % 5) + 900 * (n > 50) for n in range(100)]
    ),
}


def _pyramid() -> dict[str, str]:
    return {"preset": "veryfast", "x264-params": "b-pyramid=normal:b-adapt=0:keyint=12:scenecut=0"}


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[VideoInfo, np.ndarray]]:
    """``long_clip(name)``: its probe, and all its pictures by sequential decode."""
    folder = tmp_path_factory.mktemp("long")
    known: dict[str, tuple[VideoInfo, np.ndarray]] = {}

    def get(name: str) -> tuple[VideoInfo, np.ndarray]:
        if name not in known:
            path = LONG_CLIPS[name](folder / name)
            known[name] = probe(path), np.stack(decode_everything(path)[0])
        return known[name]

    return get


def plan_of(info: VideoInfo, indices: list[int]) -> FramePlan:
    times = tuple(float(info.frame_times[index]) for index in indices)
    return FramePlan(times, tuple(indices), times, "a test")


@pytest.mark.parametrize("name", sorted(LONG_CLIPS))
@pytest.mark.parametrize("near", [0, 128], ids=["seeking", "reading on"])
def test_any_choice_of_frames_is_the_same_as_in_a_sequential_decode(long_clip, monkeypatch, name, near):
    info, pictures = long_clip(name)
    assert info.num_frames == len(pictures)
    monkeypatch.setattr(planned_reader, "_NEAR_PACKETS", near)
    rng = np.random.default_rng(1)
    for count in (1, 2, 5, 11, 40):
        for _ in range(3):
            indices = sorted(rng.choice(info.num_frames, count, replace=False).tolist())
            batch = decode(info, plan_of(info, indices))
            assert np.array_equal(batch.pixels, pictures[indices]), f"{name} {indices} {batch.method}"


@pytest.mark.parametrize("name", sorted(set(LONG_CLIPS) - {"refresh.mp4"}))
def test_the_sampler_seeks_in_every_healthy_file_and_decodes_only_what_it_must(long_clip, name):
    info, _ = long_clip(name)
    batch = decode(info, plan_of(info, [info.num_frames - 2]))
    assert batch.method.startswith("decoded at most")
    fed = int(batch.method.split()[3])
    # One GOP and what an open one needs before it.
    assert fed <= 40 or name == "variable.mkv", batch.method


def test_a_key_frame_of_a_gradual_refresh_is_no_start(long_clip):
    info, _ = long_clip("refresh.mp4")
    assert np.count_nonzero(info.packets.starts) == 1


@settings(max_examples=60)
@given(data=st.data())
def test_a_run_starts_where_decoding_may_start_and_holds_all_its_frames(data):
    count = data.draw(st.integers(1, 30))
    pts = np.array(data.draw(st.permutations(range(count))), dtype=np.int64)
    kinds = st.sampled_from([NO_START, NO_START, CLEAN_START, OPEN_START])
    starts = np.array([CLEAN_START, *data.draw(st.lists(kinds, min_size=count - 1, max_size=count - 1))])
    index = PacketIndex(pts, pts, np.full(count, 7), starts.astype(np.uint8), np.ones(count, bool))
    wanted = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    found = runs(index, wanted)
    assert set().union(*(run.ticks for run in found)) == set(wanted)
    assert all(a.stop < b.start for a, b in pairwise(found))
    for run in found:
        for tick in run.ticks:
            number = int(np.flatnonzero(pts == tick)[0])
            assert run.start <= number <= run.stop
            assert any(
                starts[at] == CLEAN_START or (starts[at] == OPEN_START and pts[at] <= tick)
                for at in range(run.start, number + 1)
                if starts[at]
            )


def test_shares_are_consecutive_and_about_equal():
    parts = [Run(10 * n, 10 * n + 4, frozenset((n,))) for n in range(9)]
    groups = shares(parts, 3)
    assert [run for group in groups for run in group] == parts
    assert [len(group) for group in groups] == [3, 3, 3]
    assert shares(parts[:1], 4) == [parts[:1]]


def test_a_file_that_changed_since_it_was_probed_is_not_read_by_the_old_index(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", num_frames=120, gop=10))
    write_clip(tmp_path / "clip.mp4", num_frames=120, gop=40, b_frames=0)
    with pytest.raises(planned_reader.UnverifiedError):
        planned_reader.collect_planned(info, [int(info.frame_ticks[110])], lambda frame: None)


def test_whatever_cannot_be_verified_is_decoded_from_the_first_frame_on(long_clip, monkeypatch):
    info, pictures = long_clip("closed.mp4")

    def doubtful(*_: object) -> None:
        raise planned_reader.UnverifiedError("a seek went astray")

    monkeypatch.setattr(planned_reader._Cursor, "_seek", doubtful)
    monkeypatch.setattr(planned_reader, "_NEAR_PACKETS", 0)
    heard: list[int | None] = []
    batch = decode(info, plan_of(info, [5, 118]), on_ready=lambda place, _: heard.append(place))
    assert np.array_equal(batch.pixels, pictures[[5, 118]])
    assert batch.method == "decoded from the first frame on: a seek went astray"
    assert heard[-3:] == [None, 0, 1]


def test_frames_that_do_not_come_are_never_taken_for_done(long_clip, monkeypatch):
    """Here because too few packets are fed; without an error the pixels would be whatever the memory held."""
    info, pictures = long_clip("closed.mp4")

    def too_short(index: PacketIndex, ticks: list[int]) -> tuple[Run, ...]:
        return tuple(Run(run.start, run.start, run.ticks) for run in runs(index, ticks))

    monkeypatch.setattr(planned_reader, "runs", too_short)
    batch = decode(info, plan_of(info, [5, 118]))
    assert batch.method == "decoded from the first frame on: 1 frames did not come where they should"
    assert np.array_equal(batch.pixels, pictures[[5, 118]])


@pytest.mark.parametrize("number", [21, 23])
def test_a_frame_that_the_decoder_patched_up_is_told(long_clip, tmp_path, number):
    """In an open GOP of H.264 the decoder cannot be strict; it marks such frames."""
    path = with_broken_packets(Path(long_clip("open.mp4")[0].path), tmp_path / "half.mp4", [number], 0.6)
    info = probe(path)
    assert info.frame_ticks is not None
    index = int(np.searchsorted(info.frame_ticks, info.packets.pts[number]))
    batch = decode(info, plan_of(info, [index]))
    assert batch.method == "decoded from the first frame on: the decoder patched up a frame"
    assert batch.notes == ("damaged: the decoder patched up 1 frames",)


def test_packets_of_one_stamp_and_size_are_not_known_again(long_clip):
    pts, sizes = np.array([0, 1, 1, 1, 2]), np.array([7, 7, 7, 8, 7])
    index = PacketIndex(pts, pts, sizes, np.ones(5, np.uint8), np.ones(5, bool))
    assert index.numbers == {(0, 7): 0, (1, 8): 3, (2, 7): 4}


def test_a_seek_that_lands_at_an_unknown_packet_tries_an_earlier_one(long_clip, monkeypatch):
    info, pictures = long_clip("closed.mp4")
    starts = np.flatnonzero(info.packets.starts)
    landing = int(starts[starts < 100][-1])
    known = {key: number for key, number in info.packets.numbers.items() if number != landing}
    monkeypatch.setitem(vars(info.packets), "numbers", known)
    monkeypatch.setattr(planned_reader, "_NEAR_PACKETS", 0)
    index = int(np.searchsorted(info.frame_ticks, info.packets.pts[landing + 2]))
    batch = decode(info, plan_of(info, [index]))
    assert batch.method.startswith("decoded at most")
    assert np.array_equal(batch.pixels, pictures[[index]])


@pytest.mark.parametrize("name", ["closed.mp4", "open_hevc.mkv", "vp9.webm", "av1.mp4", "mpeg2.ts"])
def test_key_frames_are_decoded_alone_and_are_the_true_frames(long_clip, name):
    info, pictures = long_clip(name)
    request = SamplingRequest(num_frames=40, keyframes="nearest")
    plan = plan_frames(info.frame_times, request, source=name, key_frames=info.key_frames)
    assert len(plan) == len(info.key_frames) > 2 or name in ("vp9.webm", "av1.mp4")
    batch = decode(info, plan)
    assert np.array_equal(batch.pixels, pictures[list(plan.indices)])
    assert batch.method.startswith(f"decoded at most {len(plan)} of")


@pytest.mark.parametrize(
    "name", ["closed.mp4", "closed.mkv", "closed.ts", "closed.flv", "open_hevc.mkv", "vp9.webm", "mpeg2.ts"]
)
def test_damage_makes_no_sought_frame_differ_from_a_sequential_decode(long_clip, tmp_path, monkeypatch, name):
    """Damage elsewhere is passed by, damage on the way noticed: what comes back is the sequential frame."""
    data, chance = Path(long_clip(name)[0].path).read_bytes(), random.Random(name)
    path, sought = tmp_path / name, 0
    for _ in range(25):
        path.write_bytes(mutated(data, chance))
        try:
            info = probe(path)
            plan = plan_frames(info.frame_times, SamplingRequest(num_frames=5), source=name)
            batch = decode(info, plan)
        except VidllavaError:
            continue
        if not batch.method.startswith("decoded at most"):
            continue
        sought += 1
        with monkeypatch.context() as patch:
            patch.setattr("vidllava.media.decoders.pyav.collect_planned", refuse)
            assert np.array_equal(decode(info, plan).pixels, batch.pixels)
    assert sought >= 5
