"""What a packet says of itself: shown or hidden, a clean start or not."""

from __future__ import annotations

import pytest

from vidllava.media.bitstream import CLEAN_START, NO_START, OPEN_START, is_hidden, start_kind
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
    ("codec", "extradata", "data", "kind"),
    [
        (
            "h264",
            bytes([1, 0, 0, 0, 0xFF]),
            bytes([0, 0, 0, 1, 0x06, 0, 0, 0, 1, 0x65]),
            CLEAN_START,
        ),  # SEI, IDR
        (
            "h264",
            bytes([1, 0, 0, 0, 0xFF]),
            bytes([0, 0, 0, 1, 0x06, 0, 0, 0, 1, 0x61]),
            NO_START,
        ),  # SEI, slice
        ("h264", b"", bytes([0, 0, 1, 0x09, 0, 0, 0, 1, 0x25, 7]), CLEAN_START),
        # A recovery point: at once and exact; at once but approximate; after some frames; behind another SEI.
        ("h264", b"", bytes([0, 0, 1, 0x06, 6, 1, 0b11000100, 0x80]), OPEN_START),
        ("h264", b"", bytes([0, 0, 1, 0x06, 6, 1, 0b10000100, 0x80]), NO_START),
        ("h264", b"", bytes([0, 0, 1, 0x06, 6, 1, 0b01000100, 0x80]), NO_START),
        ("h264", b"", bytes([0, 0, 1, 0x06, 5, 2, 9, 9, 6, 1, 0b11000100, 0x80]), OPEN_START),
        ("h264", b"", bytes([0, 0, 1, 0x06, 255, 255]), NO_START),
        # AV1: temporal delimiter, sequence header, frame that is a shown key frame; shown inter; hidden key.
        ("av1", b"", bytes([0x12, 0, 0x0A, 1, 0, 0x32, 1, 0b00010000]), CLEAN_START),
        ("av1", b"", bytes([0x12, 0, 0x0A, 1, 0, 0x32, 1, 0b00110000]), NO_START),
        ("av1", b"", bytes([0x12, 0, 0x0A, 1, 0, 0x32, 1, 0b00000000]), NO_START),
        ("av1", b"", bytes([0x12, 0, 0x32, 1, 0b00010000]), NO_START),  # no sequence header
        ("av1", b"", bytes([0x0A, 0xFF, 0xFF, 0xFF]), NO_START),
        ("mpeg2video", b"", b"x", OPEN_START),
        ("vp8", b"", bytes([0x10, 0, 0, 0x9D, 0x01, 0x2A]), CLEAN_START),
        ("vp8", b"", bytes([0x11, 0, 0, 0x9D, 0x01, 0x2A]), NO_START),
        ("vp8", b"", bytes([0x10, 0, 0, 0, 0, 0]), NO_START),
        ("vp9", b"", bytes([0b10000010, 0x49, 0x83, 0x42, 0]), CLEAN_START),
        ("vp9", b"", bytes([0b10000110, 0x49, 0x83, 0x42, 0]), NO_START),  # no key frame
        ("vp9", b"", bytes([0b10001000, 0x49, 0x83, 0x42, 0]), NO_START),  # shows an earlier one
        ("vp9", b"", bytes([0b10110001, 0x24, 0xC1, 0xA1, 0]), CLEAN_START),  # profile 3: a bit further
        ("vp9", b"", b"x", NO_START),
        ("hevc", bytes([1] + [0] * 20 + [3]), bytes([0, 0, 0, 1, 19 << 1]), CLEAN_START),
        ("hevc", bytes([1] + [0] * 20 + [3]), bytes([0, 0, 0, 1, 21 << 1]), OPEN_START),  # CRA
        (
            "h264",
            bytes([1, 0, 0, 0, 0xFF]),
            bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x65]),
            CLEAN_START,
        ),  # length beyond the end
        ("h264", bytes([1, 0, 0, 0, 0xFF]), bytes([0, 0]), NO_START),
        ("rv40", b"", b"x", NO_START),
    ],
)
def test_where_decoding_may_start(codec, extradata, data, kind):
    assert start_kind(codec, extradata, memoryview(data)) == kind


def test_a_zero_length_unit_does_not_loop_for_ever():
    assert start_kind("h264", bytes([1, 0, 0, 0, 0xFF]), memoryview(bytes(4000))) == NO_START
