"""The rows of a visual: counts against published figures, windows against transformers' own functions."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.errors import MediaError, UsageError
from vidllava.prompting.layout import (
    best_resolution,
    parse_pinpoints,
    picture_layout,
    pooled_side,
    square_layout,
    video_layout,
)

PINPOINTS = parse_pinpoints("(1x1),...,(6x6)", 384)
SMALL_GRIDS = parse_pinpoints("(2x2),(1x2),(2x1),(1x3),(3x1)", 336)

# size (width, height) -> grid (columns, rows), un-padded (h, w), final (h, w), all tokens
ORACLE = {
    (384, 384): ((1, 1), (27, 27), (27, 27), 1485),
    (336, 336): ((1, 1), (27, 27), (27, 27), 1485),
    (300, 200): ((1, 1), (19, 27), (19, 27), 1261),
    (640, 480): ((2, 2), (40, 54), (40, 54), 2929),
    (800, 600): ((3, 2), (54, 73), (54, 73), 4725),
    (1280, 720): ((4, 2), (54, 96), (54, 96), 5967),
    (1000, 1000): ((3, 3), (81, 81), (81, 81), 7371),
    (2304, 2304): ((6, 6), (162, 162), (81, 81), 7371),
    (1920, 1080): ((5, 3), (75, 135), (60, 108), 7269),
    (3000, 500): ((6, 1), (27, 162), (27, 162), 5130),
    (500, 3000): ((1, 6), (162, 27), (162, 27), 5265),
}


def onevision_picture(width, height, max_tiles=9):
    return picture_layout(height, width, side=27, tile_size=384, pinpoints=PINPOINTS, max_tiles=max_tiles)


@pytest.mark.parametrize(("size", "expected"), ORACLE.items(), ids=lambda value: str(value))
def test_picture_agrees_with_the_anyres_oracle(size, expected):
    (columns, rows), unpadded, final, tokens = expected
    layout = onevision_picture(*size)
    base, tiles = layout.blocks
    assert (tiles.tiles_x, tiles.tiles_y) == (columns, rows)
    assert (tiles.in_h, tiles.in_w) == unpadded
    assert (tiles.out_h, tiles.out_w) == final
    assert tiles.mode == ("copy" if unpadded == final else "bilinear")
    assert layout.num_tokens == tokens
    assert layout.num_grids == 1 + columns * rows
    assert (base.first_grid, tiles.first_grid) == (0, 1)
    assert layout.kind == "picture"


def random_sizes(count):
    draw = random.Random(7)
    return [(draw.randint(20, 4000), draw.randint(20, 4000)) for _ in range(count)]


# (width, height): long pictures both ways, and sizes whose grid is another one where the scaled sides are
# rounded instead of cut, or where floats decide.
TELLING_SIZES = [
    *((832, 1872), (1872, 832), (420, 2304), (2304, 420)),
    *((2305, 1537), (1537, 2305), (2491, 2989), (2989, 2491), (1999, 2998), (2998, 1999)),
]


def test_picture_agrees_with_transformers_on_2000_sizes():
    import torch
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_onevision.modeling_llava_onevision import unpad_image
    from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

    pinpoints = [list(pinpoint) for pinpoint in PINPOINTS]
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=pinpoints),
        num_image_tokens=27 * 27,
        vision_aspect_ratio="anyres_max_9",
    )
    processor._get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features.__get__(processor)
    for width, height in [*random_sizes(2000), *TELLING_SIZES]:
        chosen = best_resolution(height, width, PINPOINTS)
        assert chosen == tuple(select_best_resolution((height, width), pinpoints)), (width, height)
        tokens = LlavaOnevisionProcessor._get_number_of_features(processor, height, width, 384, 384)
        layout = onevision_picture(width, height)
        assert layout.num_tokens == tokens, (width, height)
        tiles = layout.blocks[1]
        rows, columns = tiles.tiles_y * 27, tiles.tiles_x * 27
        cells = unpad_image(torch.arange(rows * columns).view(1, rows, columns), (height, width))
        assert tuple(cells.shape) == (1, tiles.in_h, tiles.in_w), (width, height)
        assert int(cells[0, 0, 0]) == tiles.crop_y * columns + tiles.crop_x, (width, height)


def test_pinpoints_are_transformers_own_in_its_order():
    from transformers import LlavaOnevisionConfig

    assert [list(pinpoint) for pinpoint in PINPOINTS] == LlavaOnevisionConfig().image_grid_pinpoints


def test_picture_without_a_cap_is_never_shrunk():
    layout = onevision_picture(2304, 2304, max_tiles=None)
    assert layout.blocks[1].mode == "copy"
    assert layout.num_tokens == 729 + 162 * 163


@pytest.mark.parametrize(
    ("mode", "side", "expected"),
    [
        ("bilinear", 27, {1: 27, 2: 14, 3: 9, 4: 7}),
        ("average", 27, {1: 27, 2: 13, 3: 9, 4: 6}),
        ("max", 24, {1: 24, 2: 12, 3: 8, 4: 6}),
        ("bilinear", 24, {1: 24, 2: 12, 3: 8, 4: 6}),
        ("average", 16, {2: 8, 4: 4}),
    ],
)
def test_pooled_side_is_ceil_for_bilinear_and_floor_otherwise(mode, side, expected):
    assert {stride: pooled_side(side, stride=stride, mode=mode) for stride in expected} == expected


@pytest.mark.parametrize(
    ("newline", "total"),
    [("grid", 32 * 14 * 15), ("frame", 32 * 197), ("one_token", 6273), ("no_token", 32 * 196)],
)
def test_video_totals_follow_the_newline_mode(newline, total):
    layout = video_layout(32, side=27, stride=2, mode="bilinear", newline=newline)
    assert layout.num_tokens == total
    assert layout.num_visual_tokens == 32 * 196


# The published budgets of the source systems, 8 / 16 / 32 / 64 frames.
@pytest.mark.parametrize(
    ("side", "stride", "mode", "newline", "totals"),
    [
        (24, 2, "average", "no_token", (1152, 2304, 4608, 9216)),
        (24, 4, "average", "no_token", (288, 576, 1152, 2304)),
        (27, 2, "bilinear", "one_token", (1569, 3137, 6273, 12545)),
        (27, 2, "bilinear", "grid", (1680, 3360, 6720, 13440)),
        (27, 2, "average", "grid", (1456, 2912, 5824, 11648)),
        (27, 1, "bilinear", "frame", (5840, 11680, 23360, 46720)),
    ],
)
def test_video_totals_of_the_presets(side, stride, mode, newline, totals):
    for num_frames, total in zip((8, 16, 32, 64), totals, strict=True):
        layout = video_layout(num_frames, side=side, stride=stride, mode=mode, newline=newline)
        assert layout.num_tokens == total


def test_stride_one_copies_whatever_the_mode():
    for mode in ("bilinear", "average", "max"):
        layout = video_layout(2, side=7, stride=1, mode=mode, newline="one_token")
        assert {block.mode for block in layout.blocks} == {"copy"}
        assert layout.num_tokens == 2 * 49 + 1


def test_one_of_several_pictures_costs_its_square_and_a_newline():
    layout = square_layout(side=27)
    assert (layout.num_tokens, layout.num_newline_tokens, layout.num_grids) == (730, 1, 1)
    assert layout.kind == "pictures"


def check_laws(layout):
    """What must hold for every layout: it counts its blocks, and reads only cells that exist."""
    assert layout.num_tokens == layout.num_visual_tokens + layout.num_newline_tokens
    assert layout.num_tokens == sum(block.num_tokens for block in layout.blocks) + layout.trailing_newline
    next_grid = 0
    for block in layout.blocks:
        assert block.first_grid == next_grid, "grids are read once each, in order"
        next_grid += block.tiles_y * block.tiles_x
        assert 0 <= block.crop_y <= block.crop_y + block.in_h <= block.tile_h * block.tiles_y
        assert 0 <= block.crop_x <= block.crop_x + block.in_w <= block.tile_w * block.tiles_x
        assert 1 <= block.out_h <= block.in_h
        assert 1 <= block.out_w <= block.in_w
        if block.mode in ("average", "max"):
            assert block.out_h * block.stride <= block.in_h
        if block.mode == "copy":
            assert (block.out_h, block.out_w) == (block.in_h, block.in_w)
    assert next_grid == layout.num_grids


@given(
    num_frames=st.integers(1, 40),
    side=st.integers(1, 30),
    stride=st.integers(1, 6),
    mode=st.sampled_from(["bilinear", "average", "max"]),
    newline=st.sampled_from(["one_token", "grid", "frame", "no_token"]),
)
@settings(deadline=None, derandomize=True)
def test_laws_of_video_layouts(num_frames, side, stride, mode, newline):
    if stride > side:
        with pytest.raises(UsageError, match=f"at most {side}"):
            pooled_side(side, stride=stride, mode=mode)
        return
    layout = video_layout(num_frames, side=side, stride=stride, mode=mode, newline=newline)
    check_laws(layout)
    assert layout.num_grids == num_frames
    more = video_layout(num_frames + 1, side=side, stride=stride, mode=mode, newline=newline)
    assert more.num_tokens - layout.num_tokens == layout.blocks[0].num_tokens
    assert more.blocks[:-1] == layout.blocks


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    side=st.sampled_from([7, 24, 27]),
    pinpoints=st.sampled_from([PINPOINTS, SMALL_GRIDS]),
    max_tiles=st.sampled_from([None, 4, 9, 16]),
)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_laws_of_picture_layouts(height, width, side, pinpoints, max_tiles):
    tile_size = min(min(pinpoint) for pinpoint in pinpoints)
    arguments = {"side": side, "tile_size": tile_size, "pinpoints": pinpoints, "max_tiles": max_tiles}
    try:
        layout = picture_layout(height, width, **arguments)
    except MediaError:
        assert max(height, width) > 40 * min(height, width), "only a very thin picture is refused"
        return
    check_laws(layout)
    tiles = layout.blocks[1]
    if max_tiles is not None:
        assert tiles.num_visual_tokens <= max_tiles * side**2 * 1.1**2, "the cap, with its tolerance"
    # The window is centred: as much padding before as after, to one cell.
    assert abs(tiles.tile_h * tiles.tiles_y - tiles.in_h - 2 * tiles.crop_y) <= 1
    assert abs(tiles.tile_w * tiles.tiles_x - tiles.in_w - 2 * tiles.crop_x) <= 1


@given(height=st.integers(20, 3000), width=st.integers(20, 3000))
@settings(deadline=None, derandomize=True)
def test_a_turned_picture_has_the_turned_grid(height, width):
    upright = onevision_picture(width, height, max_tiles=None).blocks[1]
    turned = onevision_picture(height, width, max_tiles=None).blocks[1]
    if height != width:  # a square may prefer one of two turned grids: the first in the list
        assert (upright.tiles_y, upright.tiles_x) == (turned.tiles_x, turned.tiles_y)


def test_best_resolution_prefers_the_first_of_equals():
    assert best_resolution(100, 100, [(50, 200), (200, 50)]) == (50, 200)
    assert best_resolution(100, 100, [(200, 50), (50, 200)]) == (200, 50)


def test_unusable_sizes_are_refused_with_their_values():
    with pytest.raises(MediaError, match="picture of 0x10 pixels: has no area"):
        best_resolution(10, 0, PINPOINTS)
    with pytest.raises(MediaError, match="picture of 10000x1 pixels: too thin"):
        onevision_picture(10000, 1)
    with pytest.raises(MediaError, match="too thin"):
        # 24 is even: the padding would take every row (transformers builds an empty picture here).
        picture_layout(20, 2000, side=24, tile_size=384, pinpoints=[(384, 384)])
    with pytest.raises(UsageError, match="the list is empty"):
        best_resolution(10, 10, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "--num-frames 0"),
        ({"stride": 0}, "--pool-stride 0"),
        ({"stride": 8}, "at most 7"),
        ({"mode": "median"}, "bilinear, average, max"),
        ({"newline": "none"}, "one_token, grid, frame, no_token"),
    ],
)
def test_video_values_that_cannot_be_meant_name_the_flag_and_the_bound(arguments, message):
    settings = {"num_frames": 4, "side": 7, "stride": 2, "mode": "bilinear", "newline": "grid"} | arguments
    num_frames = settings.pop("num_frames")
    with pytest.raises(UsageError, match=message):
        video_layout(num_frames, **settings)


def test_pinpoints_are_columns_by_rows():
    assert parse_pinpoints("(1x2),(3x1)", 10) == ((20, 10), (10, 30))
    assert parse_pinpoints(" (2x2), ... , (3x2) ", 10) == ((20, 20), (20, 30))
    assert len(PINPOINTS) == 36


@pytest.mark.parametrize("text", ["", "1x1", "(1x1),(x2)", "(0x1)", "(3x3),...,(2x2)", "(1x1),...", "(1,1)"])
def test_pinpoints_that_cannot_be_read_are_refused(text):
    with pytest.raises(UsageError, match="AnyRes grids"):
        parse_pinpoints(text, 384)
