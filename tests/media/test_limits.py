"""Files that are too large in any way are refused by name of the limit, wherever they are decoded."""

from __future__ import annotations

import av
import pytest
from PIL import Image

from tests.clips import numbered_picture, write_clip
from vidllava.errors import ResourceError, UsageError
from vidllava.media.limits import Limits, parse_size
from vidllava.media.picture import load_picture
from vidllava.media.probe import probe
from vidllava.media.worker import WorkerSampler


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_frame_pixels=100), "has frames of 128x96, over the limit of 100 pixels"),
        (Limits(max_file_frames=59), "has 60 frames, over the limit of 59 (raise --max-file-frames"),
        (Limits(max_file_bytes=1000), "over the limit of 1,000 (raise --max-file-size"),
        (Limits(max_streams=1), "has 2 streams, over the limit of 1 (raise --max-streams"),
    ],
)
def test_limits_hold_there_as_here(limits, words, tmp_path):
    path = write_clip(tmp_path / "plain.mp4")
    with av.open(str(tmp_path / "two.mp4"), "w") as target, av.open(str(path)) as first:
        streams = [target.add_stream_from_template(first.streams.video[0]) for _ in range(2)]
        for stream in streams:
            with av.open(str(path)) as source:
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        target.mux(packet)
    with WorkerSampler(limits) as one, pytest.raises(ResourceError) as caught:
        one.probe(str(tmp_path / "two.mp4"))
    assert words in str(caught.value)


def test_a_limit_is_reached_beyond_its_value_and_not_at_it():
    limits = Limits(max_frame_pixels=128 * 96, max_file_frames=60, max_file_bytes=1000, max_streams=2)
    checks = [
        (lambda more: limits.check_picture("a", 128, 96 + more), "has frames of 128x97, over the limit"),
        (lambda more: limits.check_picture("a", 96 + more, 128), "has frames of 97x128, over the limit"),
        (lambda more: limits.check_picture("a", 128 * 96 + more, 1), "has frames of 12289x1, over the limit"),
        (lambda more: limits.check_frames("a", 60 + more), "has 61 frames, over the limit of 60"),
        (lambda more: limits.check_frames("a", 60 + more, counted_all=False), "has more than 60 frames"),
        (lambda more: limits.check_file("a", 1000 + more), "has 1,001 bytes, over the limit of 1,000"),
        (lambda more: limits.check_streams("a", 2 + more), "has 3 streams, over the limit of 2"),
    ]
    for check, words in checks:
        check(0)
        with pytest.raises(ResourceError, match=words):
            check(1)


def test_limits_of_exactly_what_a_file_holds_let_it_through(tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    exact = Limits(
        max_frame_pixels=128 * 96, max_file_frames=60, max_file_bytes=path.stat().st_size, max_streams=1
    )
    assert probe(path, exact).num_frames == 60
    picture = tmp_path / "p.png"
    Image.fromarray(numbered_picture(3)).save(picture)
    exact = Limits(max_frame_pixels=128 * 96, max_file_bytes=picture.stat().st_size)
    assert load_picture(picture, exact).shape == (96, 128, 3)


def test_a_stream_that_grows_over_the_limit_on_its_way_is_refused(tmp_path):
    parts = [write_clip(tmp_path / f"{w}.ts", num_frames=6, width=w) for w in (128, 160)]
    (tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(ResourceError, match="has frames of 160x96, over the limit"):
        probe(tmp_path / "joined.ts", Limits(max_frame_pixels=128 * 96))


def test_limits_hold_for_pictures(tmp_path):
    Image.fromarray(numbered_picture(3)).save(tmp_path / "p.png")
    for limits in (Limits(max_frame_pixels=100), Limits(max_file_bytes=10)):
        with WorkerSampler(limits) as one, pytest.raises(ResourceError, match="over the limit of"):
            one.picture(str(tmp_path / "p.png"))


@pytest.mark.parametrize("field", ["max_frame_pixels", "max_file_frames", "max_streams", "decode_seconds"])
def test_a_limit_of_nothing_is_wrong_usage(field):
    with pytest.raises(UsageError, match=r"^--"):
        Limits(**{field: 0})


def test_sizes_are_read():
    assert [parse_size(text) for text in ("1000", "2K", "1.5 GiB", "3mb")] == [1000, 2048, 3 << 29, 3 << 20]
    with pytest.raises(UsageError, match=r"--max-file-size: 'much' is not a size \(for example"):
        parse_size("much")
