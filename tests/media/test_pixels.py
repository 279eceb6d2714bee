"""Resizing, tiles and normalising: the same arithmetic as transformers and Pillow, on uint8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.clips import numbered_picture
from vidllava.media.pixels import best_resolution, normalise, padded_square, picture_tiles, resize_frames

SIDE = 56
PINPOINTS = [(SIDE * rows, SIDE * columns) for rows in range(1, 7) for columns in range(1, 7)]
HALF = (0.5, 0.5, 0.5)

# Both kernels make two passes and round to uint8 after each. Torch's weights have 16 bits, Pillow's 22, and
# Pillow 13 does the cheaper pass first where torch always starts with the rows: a level or two.
MAX_LEVELS, MEAN_LEVELS = 2, 0.3


def detailed_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colour, hard bars and noise: what every resampling error shows up on.

    Kept off black and white, where bicubic overshoot is cut after the first pass and the order of the
    passes would show.
    """
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (60 + 0.4 * numbered_picture(seed, width, height) + noise).astype(np.uint8)


def assert_close_levels(found: torch.Tensor | np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(np.asarray(found, dtype=np.int64) - expected)
    assert difference.max() <= MAX_LEVELS
    assert difference.mean() <= MEAN_LEVELS


@pytest.mark.parametrize(("height", "width"), [(96, 128), (360, 640), (47, 31), (200, 50), (84, 84)])
def test_resizing_is_pillows_bicubic_to_two_levels(height, width):
    frames = np.stack([detailed_picture(height, width, seed) for seed in range(2)])
    found = resize_frames(frames, 84)
    assert (found.dtype, tuple(found.shape)) == (torch.uint8, (2, 3, 84, 84))
    expected = [
        np.asarray(Image.fromarray(frame).resize((84, 84), Image.Resampling.BICUBIC)) for frame in frames
    ]
    assert_close_levels(found.permute(0, 2, 3, 1), np.stack(expected))


def test_a_frame_of_the_right_size_is_a_copy_that_shares_nothing():
    frames = detailed_picture(84, 84)[None]
    found = resize_frames(frames, 84)
    found.zero_()
    assert frames.any()


def test_frames_are_resized_alike_alone_and_together_and_from_any_strides():
    frames = np.stack([detailed_picture(90, 120, seed) for seed in range(3)])
    together = resize_frames(frames, 48)
    for index, frame in enumerate(frames):
        assert torch.equal(resize_frames(frame[None], 48)[0], together[index])
    assert torch.equal(resize_frames(np.asfortranarray(frames), 48), together)


def test_normalise_is_the_checkpoints_formula():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    exact = (pixels.double() / 255 - torch.tensor(mean).double().view(1, 3, 1, 1)) / torch.tensor(
        std
    ).double().view(1, 3, 1, 1)
    found = normalise(pixels, mean, std, torch.float32)
    assert found.dtype == torch.float32
    assert (found.double() - exact).abs().max() < 1e-6
    half = normalise(pixels, HALF, HALF, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert (half.float() - (pixels.float() / 127.5 - 1)).abs().max() <= 2**-8


@pytest.fixture(scope="module")
def transformers_processor():
    from transformers import LlavaOnevisionImageProcessorPil

    return LlavaOnevisionImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[list(pair) for pair in PINPOINTS],
        image_mean=list(HALF),
        image_std=list(HALF),
    )


@pytest.mark.parametrize(
    ("height", "width"),
    [(56, 56), (40, 60), (100, 150), (90, 160), (150, 90), (33, 200), (341, 57), (97, 98)],
)
def test_tiles_are_transformers_tiles(transformers_processor, height, width):
    """Equal but for the rounding of two bicubic kernels (Pillow's there, torch's here)."""
    picture = detailed_picture(height, width, seed=height + width)
    theirs = transformers_processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
    ours = picture_tiles(picture, PINPOINTS, SIDE)
    assert ours.dtype == torch.uint8
    assert ours.shape == theirs.shape
    assert_close_levels(ours, np.rint((theirs + 1) * 127.5))
    normalised = normalise(ours, HALF, HALF, torch.float32).numpy()
    assert np.abs(normalised - theirs).max() <= MAX_LEVELS / 127.5 + 1e-6


@pytest.mark.parametrize(("height", "width"), [(56, 56), (40, 60), (150, 90), (33, 200)])
def test_one_of_several_pictures_is_transformers_padded_square(transformers_processor, height, width):
    picture = detailed_picture(height, width)
    images = [[Image.fromarray(picture), Image.fromarray(picture)]]
    theirs = transformers_processor(images, return_tensors="np")["pixel_values"][0]
    ours = padded_square(picture, SIDE)
    assert_close_levels(ours, np.rint((theirs[:1] + 1) * 127.5))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.integers(8, 200), st.integers(8, 200))
def test_tile_law_the_picture_lies_in_the_middle_of_black(height, width):
    tiles = picture_tiles(np.full((height, width, 3), 200, dtype=np.uint8), PINPOINTS, SIDE)
    high, wide = best_resolution(height, width, PINPOINTS)
    rows, columns = high // SIDE, wide // SIDE
    assert (tiles[0] == 200).all()
    canvas = tiles[1:].view(rows, columns, 3, SIDE, SIDE).permute(2, 0, 3, 1, 4).reshape(3, high, wide)
    inside = canvas[0] == 200
    down, across = inside.any(dim=1), inside.any(dim=0)
    assert torch.equal(canvas, 200 * (down[:, None] & across).to(torch.uint8).expand(3, -1, -1))
    assert down.all() or across.all()
    for line in (down, across):
        before, after = int(line.int().argmax()), int(line.flip(0).int().argmax())
        assert 0 <= after - before <= 1


def test_the_background_of_a_padded_square_is_the_towers_mean():
    picture = np.zeros((20, 60, 3), dtype=np.uint8)
    square = padded_square(picture, 60, background=(1, 2, 3))
    assert square[0, :, 0, 0].tolist() == [1, 2, 3]
    assert square[0, :, 30, 30].tolist() == [0, 0, 0]
    assert padded_square(picture, 60)[0, :, 59, 0].tolist() == [127, 127, 127]
