"""`bench frames`: which cells were asked for, each once, and every wrong word told by its flag."""

from __future__ import annotations

import pytest

from vidllava.bench.frames.request import (
    FramesRequest,
    parse_factors,
    parse_modes,
    parse_numbers,
    parse_rates,
)
from vidllava.errors import UsageError


def test_cells_are_every_combination_in_order() -> None:
    request = FramesRequest(
        num_frames=(2, 8), pool_strides=(1, 2), pool_modes=("bilinear",), rope_factors=("off", "auto")
    )
    assert [cell.name for cell in request.cells[:3]] == [
        "2 frames, stride 1, bilinear, factor off",
        "2 frames, stride 1, bilinear, factor auto",
        "2 frames, stride 2, bilinear, factor off",
    ]
    assert len(request.cells) == 8


def test_without_pooling_a_mode_is_no_setting() -> None:
    request = FramesRequest(num_frames=(4,), pool_strides=(1, 2), pool_modes=("bilinear", "max"))
    assert [(cell.pool_stride, cell.pool_mode) for cell in request.cells] == [
        (1, "bilinear"),
        (2, "bilinear"),
        (2, "max"),
    ]


def test_rates_stand_beside_numbers_of_frames() -> None:
    request = FramesRequest(
        num_frames=(4,), fps=(0.5, 2.0), pool_strides=(2,), pool_modes=("bilinear",), rope_factors=(2,)
    )
    assert [cell.frames for cell in request.cells] == ["4 frames", "0.5 fps", "2 fps"]
    assert request.cells[1].flags == "--fps 0.5 --pool-stride 2 --pool-mode bilinear --rope-factor 2"


def test_lists_are_read_each_word_once() -> None:
    assert parse_numbers("--num-frames", "8, 2,8") == (2, 8)
    assert parse_rates("--fps", "2,0.5") == (0.5, 2.0)
    assert parse_factors("off,auto,2,off,1.5") == ("off", "auto", 2, 1.5)
    assert parse_modes("max,bilinear") == ("max", "bilinear")
    assert parse_numbers("--num-frames", None) == parse_rates("--fps", None) == parse_modes(None) == ()


@pytest.mark.parametrize("text", ["", "0", "-2", "2,,4", "2.5", "ten", "100001", "9" * 5000, "\u0663"])
def test_a_wrong_number_of_frames_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--num-frames"):
        parse_numbers("--num-frames", text)


@pytest.mark.parametrize("text", ["", "0", "nan", "inf", "-1", "1001", "fast"])
def test_a_wrong_rate_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--fps"):
        parse_rates("--fps", text)


def test_other_wrong_words_are_told() -> None:
    with pytest.raises(UsageError, match=r"--rope-factor 0\.5"):
        parse_factors("off,0.5")
    with pytest.raises(UsageError, match="--pool-mode 'mean'"):
        parse_modes("mean")
    with pytest.raises(UsageError, match="give --num-frames or --fps"):
        FramesRequest()
    with pytest.raises(UsageError, match="--timing-clips -1"):
        FramesRequest(num_frames=(2,), num_timed=-1)
    with pytest.raises(UsageError, match="cells, over the limit"):
        FramesRequest(
            num_frames=tuple(range(1, 200)), pool_strides=tuple(range(1, 100)), pool_modes=("bilinear",)
        )
