"""What does a file hold? Size, turn, times and count, whatever its headers say."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import add_to_sample_entry, numbered_picture, read_number, write_clip
from tests.media.conftest import QUARTER_TURNS, VARIABLE_MS
from vidllava.media.decode import decode
from vidllava.media.probe import media_kind, probe
from vidllava.media.structure import StreamEntry, mapped, stream_entry
from vidllava.media.timeline import SamplingRequest, plan_frames


def all_frames(path: Path) -> np.ndarray:
    info = probe(path)
    return decode(info, plan_frames(info.frame_times, SamplingRequest(), source="")).pixels


def test_an_ordinary_clip(clip):
    info = probe(clip("constant.mp4"))
    assert (info.width, info.height, info.rotation, info.mirrored) == (128, 96, 0, False)
    assert (info.num_frames, info.duration_seconds, info.average_fps) == (60, 2.0, 30.0)
    assert info.frame_times == pytest.approx(np.arange(60) / 30, abs=1e-12)
    assert (info.codec, info.pixel_format, info.notes) == ("h264", "yuv420p", ())
    assert info.path == str(clip("constant.mp4"))


def test_frame_times_cannot_be_changed(clip):
    with pytest.raises(ValueError, match="read-only"):
        probe(clip("constant.mp4")).frame_times[0] = 1.0


@pytest.mark.parametrize(
    "name", ["constant.mkv", "constant.webm", "constant.ts", "constant.avi", "constant.gif"]
)
def test_the_count_and_duration_do_not_depend_on_the_container(clip, name):
    info = probe(clip(name))
    assert info.num_frames == 60
    assert info.duration_seconds == pytest.approx(2.0, abs=2e-3)
    assert info.average_fps == pytest.approx(30.0, abs=0.03)


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv", "variable.webm"])
def test_a_variable_rate_keeps_its_times(clip, name):
    assert probe(clip(name)).frame_times == pytest.approx(np.array(VARIABLE_MS) / 1000, abs=1e-9)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_a_late_start_is_taken_off(clip, name):
    info = probe(clip(name))
    assert info.frame_times[0] == 0.0
    assert info.duration_seconds == pytest.approx(2.0, abs=2e-3)
    assert info.notes == ()


@pytest.mark.parametrize("name", ["raw.h264", "h264.avi", "interlaced.ts"])
def test_where_stamps_name_no_frames_they_are_counted(clip, name):
    info = probe(clip(name))
    assert info.frame_ticks is None
    assert info.num_frames == 60
    assert np.diff(info.frame_times) == pytest.approx(np.full(59, info.frame_times[1]), abs=1e-9)
    assert [read_number(picture) for picture in all_frames(clip(name))] == list(range(60))


def test_interlaced_pictures_are_counted_only_where_a_packet_may_hold_half_of_one(clip):
    assert probe(clip("interlaced.mp4")).frame_ticks is not None
    assert any("interlaced" in note for note in probe(clip("interlaced.mp4")).notes)


def test_a_stream_without_times_says_what_is_assumed(clip):
    info = probe(clip("raw.h264"))
    assert "the frames carry no usable times: 25 frames per second are assumed" in info.notes
    assert info.frame_times[50] == 2.0


def test_frames_hidden_by_an_edit_list_are_not_counted_and_said(clip):
    info = probe(clip("edit_list.mp4"))
    assert info.num_frames == 55
    assert info.notes == ("an edit list hides 5 frames: they are not counted",)


def test_packets_that_show_nothing_are_not_counted(clip, tmp_path):
    """VP8 keeps alt-ref pictures in packets of their own; here every tenth frame is made such a one."""
    path = tmp_path / "hidden.webm"
    with av.open(str(clip("vp8.webm"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            data = bytearray(bytes(packet))
            if not data:
                continue
            if number % 10 == 5:
                data[0] &= ~0x10  # RFC 6386, 9.1: show_frame
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            copy.is_keyframe = packet.is_keyframe
            target.mux(copy)
    info = probe(path)
    assert info.frame_ticks is not None
    assert [read_number(picture) for picture in all_frames(path)] == [n for n in range(60) if n % 10 != 5]
    assert info.num_frames == 54


def test_frames_before_the_first_decodable_picture_are_not_counted(tmp_path, clip):
    """A cut before an open GOP: its leading pictures refer to frames that were cut off."""
    cut = tmp_path / "cut.mkv"
    with av.open(str(clip("open_gop_hevc.mp4"))) as source, av.open(str(cut), "w") as target:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        stream = target.add_stream_from_template(source.streams.video[0])
        second_key = [index for index, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second_key:]:
            packet.stream = stream
            target.mux(packet)
    info = probe(cut)
    numbers = [read_number(picture) for picture in all_frames(cut)]
    assert len(numbers) == info.num_frames == numbers[-1] - numbers[0] + 1
    assert any("need a picture that is missing" in note for note in info.notes)


@pytest.mark.parametrize("degrees", sorted(QUARTER_TURNS))
@pytest.mark.parametrize("mirrored", [False, True])
def test_every_view_of_a_display_matrix_comes_out_upright(turned, degrees, mirrored):
    a, b, c, d = QUARTER_TURNS[degrees]
    sign = -1 if mirrored else 1
    path = turned(sign * a, b, sign * c, d)
    info = probe(path)
    assert (info.rotation, info.mirrored) == (int(degrees), mirrored)
    stored = np.stack([numbered_picture(number) for number in range(6)])
    expected = np.rot90(stored, k=-(int(degrees) // 90), axes=(1, 2))
    expected = expected[:, :, ::-1] if mirrored else expected
    assert (info.height, info.width) == expected.shape[1:3]
    difference = all_frames(path).astype(float) - expected
    assert np.abs(difference).mean() < 12, "lossy, but the right way up: any other view is off by 60 or more"
    assert np.abs(difference[:, ::-1] - expected + expected[:, ::-1]).mean() > 12


@pytest.mark.parametrize(
    ("a", "b", "note"),
    [
        (58, 1, None),
        (57, 1, "turned by 1 degrees: shown turned by 0"),
        (6, 1, "turned by 9 degrees: shown turned by 0"),
    ],
)
def test_a_view_a_degree_or_more_off_is_said(turned, a, b, note):
    info = probe(turned(a, b, -b, a))
    assert (info.rotation, info.mirrored) == (0, False)
    assert info.notes == (() if note is None else (note,))


def test_a_degenerate_matrix_is_ignored_and_said(turned):
    info = probe(turned(0, 0, 0, 0))
    assert (info.rotation, info.width) == (0, 128)
    assert info.notes == ("the display matrix is degenerate: ignored",)


def two_streams(path: Path, *, default: int | None) -> Path:
    """A small stream of the numbers 0 to 9 and a larger one of 100 to 109."""
    with av.open(str(path), "w") as target:
        streams = []
        for index, (width, height) in enumerate([(128, 96), (192, 144)]):
            stream = target.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = (
                av.stream.Disposition.default if index == default else av.stream.Disposition(0)
            )
            streams.append(stream)
        for number in range(10):
            for index, stream in enumerate(streams):
                picture = numbered_picture(number + 100 * index, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number
                target.mux(stream.encode(frame))
        for stream in streams:
            target.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("default", "first"), [(0, 0), (1, 100), (None, 100)])
def test_of_several_streams_the_default_one_is_meant_else_the_largest(tmp_path, default, first):
    path = two_streams(tmp_path / "two.mkv", default=default)
    assert probe(path).num_video_streams == 2
    assert read_number(all_frames(path)[0]) == first


def test_what_is_odd_about_the_picture_is_noted(tmp_path):
    options = {"x265-params": "log-level=none:pools=1:transfer=smpte2084:sar=16"}
    path = tmp_path / "hdr.mp4"
    write_clip(path, codec="libx265", pixel_format="yuv420p10le", num_frames=3, options=options)
    notes = probe(path).notes
    assert any(note.startswith("HDR (PQ)") for note in notes)
    assert any(note.startswith("pixels are not square") for note in notes)


CLEAN_APERTURES = {(64, 96): True, (128, 96): False, (127, 95): True}


@pytest.mark.parametrize("size", sorted(CLEAN_APERTURES))
def test_a_clean_aperture_that_is_not_cropped_to_is_noted(tmp_path, size):
    path = write_clip(tmp_path / "a.mp4", num_frames=3)
    fields = (size[0] * 2, 2, size[1], 1, 0, 1, 0, 1)
    add_to_sample_entry(path, b"clap", struct.pack(">8I", *fields))
    note = f"only {size[0]}x{size[1]} of 128x96 is meant to be shown (clean aperture): not cropped"
    assert (note in probe(path).notes) == CLEAN_APERTURES[size]
    assert not [other for other in probe(path).notes if "aperture" in other and other != note]


@pytest.mark.parametrize(("profile", "kind"), [(5, b"dvcC"), (8, b"dvvC"), (5, b"dvvC")])
def test_dolby_vision_that_nothing_here_can_show_is_noted(tmp_path, profile, kind):
    path = write_clip(
        tmp_path / "a.mp4", num_frames=3, codec="libx265", pixel_format="yuv420p10le", options={}
    )
    add_to_sample_entry(path, kind, bytes([1, 0, profile << 1, 0b101]) + bytes(20))
    assert any("Dolby Vision profile 5" in note for note in probe(path).notes) == (profile == 5)


@pytest.mark.parametrize("cut", [1, 40, 200, 400, 600])
def test_a_sample_entry_that_is_cut_or_garbled_raises_nothing(tmp_path, cut):
    path = write_clip(tmp_path / "a.mp4", num_frames=3)
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    for each in (data[: start + cut], data[: start + cut] + b"\xff" * 40 + data[start + cut + 40 :]):
        path.write_bytes(each)
        with mapped(path) as whole:
            assert stream_entry(whole, 1) in (None, StreamEntry(None, None))


def test_a_header_that_promises_more_is_noted(clip, tmp_path):
    data = clip("constant.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: len(data) // 2])
    info = probe(path)
    assert 5 < info.num_frames < 55
    assert any(note.startswith("the header promises 2.00 s, the frames end at") for note in info.notes)


def test_probing_twice_reads_once_until_the_file_changes(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", num_frames=5)
    first = probe(path)
    assert probe(path) is first
    write_clip(path, num_frames=9)
    assert probe(path).num_frames == 9


@pytest.mark.parametrize(("frames", "kind"), [(1, "picture"), (2, "video"), (5, "video")])
@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_animations_are_videos_and_single_frames_pictures(tmp_path, frames, kind, suffix):
    from PIL import Image

    pictures = [Image.fromarray(numbered_picture(number)) for number in range(frames)]
    path = tmp_path / f"a.{suffix}"
    more = {"save_all": True, "append_images": pictures[1:], "duration": 100} if frames > 1 else {}
    pictures[0].save(path, **more)
    assert media_kind(path) == kind
    if kind == "video":
        assert [read_number(picture) for picture in all_frames(path)] == list(range(frames))


def test_opening_many_files_leaves_nothing_open(clip):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        probe.__globals__["_probe"].cache_clear()
        all_frames(clip("one_frame.mp4"))
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before
