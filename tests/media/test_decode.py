"""Is it the right frame? Pixels against a sequential decode, numbers read from the pixels, true times."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
from av.packet import PacketSideData, PktSideDataT
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import read_number, write_clip
from tests.media.conftest import CLIPS, VARIABLE_MS
from tests.media.sequential import decode_everything
from vidllava.errors import ResourceError, UsageError
from vidllava.media import decode as decode_module
from vidllava.media.bitstream import size_key
from vidllava.media.decode import choose_backend, decode
from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.pixels import resize_frames
from vidllava.media.probe import probe
from vidllava.media.scan import SizesSeen
from vidllava.media.timeline import SamplingRequest, plan_frames

# AVI has packet numbers for stamps, out of order where there are B-frames; a raw stream has none.
TIMES_FROM_THE_FILE = sorted(set(CLIPS) - {"h264.avi", "raw.h264"})


def take(path: Path | str, *, backend: str = "pyav", size: int | None = None, **request) -> FrameBatch:
    info = probe(path)
    plan = plan_frames(info.frame_times, SamplingRequest(**request), source=str(path))
    return decode(info, plan, backend=backend, size=size)


def numbers(batch: FrameBatch) -> list[int]:
    return [read_number(picture) for picture in batch.pixels]


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_every_frame_equals_a_sequential_decode(clip, name):
    pictures, _ = decode_everything(clip(name))
    batch = take(clip(name))
    assert np.array_equal(batch.pixels, np.stack(pictures))
    assert batch.notes == ()


@pytest.mark.parametrize("name", TIMES_FROM_THE_FILE)
def test_every_time_equals_a_sequential_decode(clip, name):
    _, times = decode_everything(clip(name))
    assert take(clip(name)).timestamps_seconds == pytest.approx(times, abs=1e-9)


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_the_number_in_the_picture_is_the_index_in_the_plan(clip, name):
    hidden = 5 if name == "edit_list.mp4" else 0
    batch = take(clip(name), num_frames=7)
    assert numbers(batch) == [index + hidden for index in batch.plan.indices]


@pytest.mark.parametrize(
    "names",
    [
        [
            "constant.mp4",
            "constant.mkv",
            "constant.mov",
            "constant.webm",
            "vp8.webm",
            "constant.ts",
            "constant.avi",
        ],
        ["variable.mp4", "variable.mkv", "variable.webm"],
        ["late.mp4", "late.mkv", "late.ts", "constant.mp4"],
        ["one_key.mp4", "every_frame_a_key.mp4", "open_gop.mp4", "open_gop_hevc.mp4"],
    ],
    ids=["constant rate", "variable rate", "late start", "key frames"],
)
@pytest.mark.parametrize(
    "request_",
    [
        {"num_frames": 8},
        {"num_frames": 5, "rule": "midpoints"},
        {"fps": 4.0},
        {"fps": 1.0, "start_seconds": 0.3, "end_seconds": 1.5},
        {"fps": 30.0, "max_frames": 6},
    ],
    ids=str,
)
def test_containers_and_key_frames_do_not_change_the_frames(clip, names, request_):
    found = [numbers(take(clip(name), **request_)) for name in names]
    assert all(each == found[0] for each in found), dict(zip(names, found, strict=True))


def test_a_variable_rate_is_sampled_by_time(clip):
    batch = take(clip("variable.mkv"), fps=2)
    # At 0.5 s and 1.0 s the still that began at 367 ms is on screen, at 1.5 s the frame of 1500 ms.
    assert numbers(batch) == [0, 5, 9]
    assert batch.timestamps_seconds == pytest.approx([VARIABLE_MS[i] / 1000 for i in (0, 5, 9)])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(["constant.mp4", "open_gop_hevc.mp4", "constant.ts"]), st.data())
def test_any_subset_of_frames_is_those_frames(clip, name, data):
    info = probe(clip(name))
    indices = tuple(sorted(data.draw(st.sets(st.integers(0, info.num_frames - 1), min_size=1, max_size=9))))
    times = tuple(float(info.frame_times[i]) for i in indices)
    batch = decode(info, FramePlan(times, indices, times, "drawn"))
    assert numbers(batch) == list(indices)
    assert tuple(batch.timestamps_seconds) == times


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_do_not_change_a_pixel(clip, monkeypatch, threads):
    monkeypatch.setattr("vidllava.media.reader.num_threads", lambda: 1)
    one = take(clip("one_key.mp4"), num_frames=9)
    monkeypatch.setattr("vidllava.media.reader.num_threads", lambda: threads)
    assert np.array_equal(take(clip("one_key.mp4"), num_frames=9).pixels, one.pixels)


def test_size_resizes_each_frame_as_the_batch_would_be(clip):
    native = take(clip("constant.mp4"), num_frames=5)
    small = take(clip("constant.mp4"), num_frames=5, size=48)
    assert small.pixels.shape == (5, 48, 48, 3)
    assert np.array_equal(small.pixels, resize_frames(native.pixels, 48).permute(0, 2, 3, 1).numpy())
    assert numbers(small) == numbers(native)


def test_a_repeated_frame_in_a_saved_plan_is_given_twice(clip):
    info = probe(clip("constant.mp4"))
    times = (0.0, float(info.frame_times[4]), float(info.frame_times[4]))
    assert numbers(decode(info, FramePlan(times, (0, 4, 4), times, "saved"))) == [0, 4, 4]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("widths", [(64, 256), (256, 64)])
def test_a_stream_that_changes_its_size_loses_no_detail_to_its_smaller_pictures(tmp_path, codec, widths):
    """Frames of 64 x 48 and 256 x 192 come as 256 x 192, whichever is first; all are said to be scaled."""
    parts = [
        write_clip(tmp_path / f"{w}.ts", num_frames=6, width=w, height=w * 3 // 4, codec=codec)
        for w in widths
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    whole = take(joined)
    assert whole.pixels.shape[1:] == (192, 256, 3)
    assert whole.notes[0] == "the picture size changes on the way: frames are scaled to 256x192"
    large = decode_everything(parts[widths.index(256)])[0]
    shown = [picture for picture in whole.pixels if any(np.array_equal(picture, one) for one in large)]
    assert len(shown) >= len(large) - 1  # a stream that is cut to be joined may lose its last picture
    info = probe(joined)
    first = float(info.frame_times[0])
    alone = decode(info, FramePlan((first,), (0,), (first,), "first"))
    assert np.array_equal(alone.pixels[0], whole.pixels[0])


def test_another_sample_entry_on_the_way_is_looked_into(tmp_path):
    """An mp4 whose second sample entry has other parameter sets: they come beside a packet, not in it."""
    clips = [write_clip(tmp_path / f"{w}.mp4", num_frames=4, width=w) for w in (128, 256)]
    seen = SizesSeen(largest=(128, 96))
    with av.open(str(clips[0])) as one, av.open(str(clips[1])) as two:
        first, second = next(one.demux(video=0)), next(two.demux(video=0))
        extradata = two.streams.video[0].codec_context.extradata
        assert extradata is not None
        number = get_args(PktSideDataT).index("new_extradata")
        beside = PacketSideData(number, len(extradata))
        memoryview(beside)[:] = extradata
        second.set_sidedata(beside)
        for packet in (first, first, second, second):
            seen.look(one.streams.video[0], packet, memoryview(packet))
    assert seen.largest == (256, 96)


def test_the_key_of_a_size_tells_one_size_from_another(tmp_path):
    """Each codec whose size may change within a stream; the same size gives the same key."""
    for codec, suffix in (
        ("libx264", ".mp4"),
        ("libx265", ".mkv"),
        ("libvpx", ".webm"),
        ("libvpx-vp9", ".webm"),
        ("libsvtav1", ".mp4"),
        ("mjpeg", ".avi"),
        ("mpeg2video", ".mkv"),
        ("mpeg4", ".avi"),
        ("png", ".mov"),
        ("prores_ks", ".mov"),
    ):
        keys = {}
        for width in (128, 160, 128):
            formats = {"mjpeg": "yuvj420p", "png": "rgb24", "prores_ks": "yuv422p10le"}
            path = tmp_path / f"{codec}{width}{suffix}"
            write_clip(
                path,
                num_frames=2,
                width=width,
                codec=codec,
                b_frames=0,
                pixel_format=formats.get(codec),
            )
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                packet = next(container.demux(stream))
                name, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata
                key = size_key(name, extradata or b"", memoryview(packet)) or extradata
            assert key, codec
            assert keys.setdefault(width, key) == key, codec
        assert keys[128] != keys[160], codec


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_an_unknown_colour_matrix_is_read_as_untagged_and_said(clip, tmp_path, matrix):
    path = tmp_path / "tagged.mp4"
    with av.open(str(clip("every_frame_a_key.mp4"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        tagger = av.BitStreamFilterContext(
            f"h264_metadata=matrix_coefficients={matrix}", source.streams.video[0], stream
        )
        for packet in source.demux(video=0):
            for tagged in tagger.filter(packet if packet.size else None):
                tagged.stream = stream
                target.mux(tagged)
    tagged_batch, plain = take(path, num_frames=3), take(clip("every_frame_a_key.mp4"), num_frames=3)
    assert tagged_batch.notes == ("the colour matrix is unknown: converted as if there were no colour tags",)
    assert np.array_equal(tagged_batch.pixels, plain.pixels)


def test_the_plan_of_another_clip_is_refused(clip):
    plan = plan_frames(probe(clip("constant.mp4")).frame_times, SamplingRequest(num_frames=8), source="")
    with pytest.raises(UsageError, match=r"the plan asks for frame 59 of 12"):
        decode(probe(clip("variable.mp4")), plan)
    early = FramePlan((0.0,), (3,), (0.25,), "saved")
    with pytest.raises(UsageError, match="the plan's times are not this file's"):
        decode(probe(clip("variable.mp4")), early)


def test_more_than_the_memory_limit_is_refused_before_decoding(clip, monkeypatch):
    monkeypatch.setattr(decode_module, "MAX_BATCH_BYTES", 10 * 128 * 96 * 3)
    with pytest.raises(ResourceError, match=r"60 frames need .* over the limit .*at most 10 frames"):
        take(clip("constant.mp4"))
    assert len(take(clip("constant.mp4"), num_frames=10)) == 10


def test_memory_is_that_of_the_chosen_frames_after_resizing(clip):
    clip("constant.mp4")
    take(clip("constant.mp4"), num_frames=2, size=32)  # imports and caches
    tracemalloc.start()
    try:
        take(clip("constant.mp4"), num_frames=50, size=32)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    chosen, one_native_frame = 50 * 32 * 32 * 3, 128 * 96 * 3
    assert peak < chosen + 5 * one_native_frame


def test_backend_default_variable_and_flag(monkeypatch):
    monkeypatch.delenv("VIDLLAVA_VIDEO_BACKEND", raising=False)
    assert choose_backend(None)[0] == choose_backend("auto")[0] == "pyav"
    monkeypatch.setenv("VIDLLAVA_VIDEO_BACKEND", "pyav")
    assert choose_backend(None) == ("pyav", "asked for by VIDLLAVA_VIDEO_BACKEND")
    monkeypatch.setenv("VIDLLAVA_VIDEO_BACKEND", "vhs")
    with pytest.raises(
        UsageError, match=r"VIDLLAVA_VIDEO_BACKEND: 'vhs' is unknown \(auto, pyav, decord or torchcodec\)"
    ):
        choose_backend(None)
    assert choose_backend("pyav") == ("pyav", "asked for by --video-backend")
    with pytest.raises(UsageError, match="--video-backend: 'opencv' is unknown"):
        choose_backend("opencv")


def test_an_unknown_backend_of_decode_is_refused(clip):
    with pytest.raises(UsageError, match="'opencv' is unknown"):
        take(clip("constant.mp4"), backend="opencv")
