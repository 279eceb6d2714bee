"""What a packet says of itself: shown or hidden, a clean start or not."""

from __future__ import annotations

import pytest

from vidllava.media.bitstream import is_clean_key, is_hidden
from vidllava.media.probe import probe


@pytest.mark.parametrize(
    ("codec", "data", "hidden"),
    [
        ("vp8", [0b0000_0001], True),
        ("vp8", [0b0001_0001], False),
        ("vp8", [0, 0, 0, 0x9D, 0x01, 0x2A], True),
        ("vp8", [0, 0, 0, 0, 0, 0], False),  # a key frame without its start code is damage
        ("vp9", [0, 0], False),
        ("vp9", [0b1000_0000, 0], True),
        ("vp9", [0b1000_0010, 0], False),
        ("vp9", [0b1000_1000, 0], False),  # show_existing_frame
        ("vp9", [0b1011_0000, 0], True),  # profile 3 has a reserved bit
        ("vp9", [0b1011_0001, 0], False),
        ("vp9", [0b1000_0000, 0xC0], False),  # a superframe shows its last frame
        ("h264", [0, 0], False),
    ],
)
def test_which_packets_show_nothing(codec, data, hidden):
    assert is_hidden(codec, memoryview(bytes(data))) is hidden


@pytest.mark.parametrize("name", ["constant.mp4", "constant.mkv", "constant.ts", "one_key.mp4", "vp8.webm"])
def test_closed_gops_have_clean_keys(clip, name):
    assert probe(clip(name)).clean_keys


@pytest.mark.parametrize("name", ["open_gop.mp4", "open_gop_hevc.mp4"])
def test_open_gops_have_not(clip, name):
    assert not probe(clip(name)).clean_keys


@pytest.mark.parametrize(
    ("codec", "extradata", "data", "clean"),
    [
        ("h264", bytes([1, 0, 0, 0, 0xFF]), bytes([0, 0, 0, 1, 0x06, 0, 0, 0, 1, 0x65]), True),  # SEI, IDR
        ("h264", bytes([1, 0, 0, 0, 0xFF]), bytes([0, 0, 0, 1, 0x06, 0, 0, 0, 1, 0x61]), False),  # SEI, slice
        ("h264", b"", bytes([0, 0, 1, 0x09, 0, 0, 0, 1, 0x25, 7]), True),
        ("hevc", bytes([1] + [0] * 20 + [3]), bytes([0, 0, 0, 1, 19 << 1]), True),
        ("hevc", bytes([1] + [0] * 20 + [3]), bytes([0, 0, 0, 1, 21 << 1]), False),  # CRA
        (
            "h264",
            bytes([1, 0, 0, 0, 0xFF]),
            bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x65]),
            True,
        ),  # length beyond the end
        ("h264", bytes([1, 0, 0, 0, 0xFF]), bytes([0, 0]), False),
        ("rv40", b"", b"x", False),
    ],
)
def test_only_a_reset_is_clean(codec, extradata, data, clean):
    assert is_clean_key(codec, extradata, memoryview(data)) is clean


def test_a_zero_length_unit_does_not_loop_for_ever():
    assert not is_clean_key("h264", bytes([1, 0, 0, 0, 0xFF]), memoryview(bytes(4000)))
