"""Input pixels of the vision tower: resized uint8, tiles of a large picture, normalised floats.

Shapes: T frames, N pictures, H x W pixels, S the tower's side. Everything stays uint8 until ``normalise``,
so that 32 frames travel to a GPU as 14 MB and not as 57.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch.nn.functional import interpolate

from vidllava.media.frames import FrameSize
from vidllava.prompting.layout import best_resolution

__all__ = ["best_resolution", "mean_colour", "normalise", "padded_square", "picture_tiles", "resize_frames"]

Picture = npt.NDArray[np.uint8]


def resize_frames(frames: Picture, size: FrameSize) -> torch.Tensor:
    """uint8 [T, H, W, 3] to uint8 [T, 3, S, S], bicubic, antialiased: squashed into S x S pixels, or the
    middle of the scaled picture (``CentreCrop``; the long edge and the corner of the cut are rounded down,
    as in transformers).

    Within a level or two of Pillow's bicubic, at a tenth of its time: torch's uint8 kernel reads the permuted
    channels-last view as it lies; making it contiguous first costs 2.5 times as much.
    """
    if isinstance(size, int):
        return _resize(frames, (size, size))
    height, width = frames.shape[1:3]
    short = min(height, width)
    inner = (size.edge * height // short, size.edge * width // short)
    top, left = (inner[0] - size.side) // 2, (inner[1] - size.side) // 2
    resized = _resize(frames, inner)
    return resized[:, :, top : top + size.side, left : left + size.side].contiguous()


def _resize(frames: Picture, size: tuple[int, int]) -> torch.Tensor:
    view = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w")
    if tuple(view.shape[2:]) == size:
        return view.clone()
    return interpolate(view, size=size, mode="bicubic", antialias=True)


def normalise(
    pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
) -> torch.Tensor:
    """uint8 [N, 3, S, S] to ``(pixels / 255 - mean) / std`` per channel, computed in fp32, cast to ``dtype``.

    ``mean`` and ``std`` are the checkpoint's own (its preprocessor_config): class defaults belong to CLIP.
    """
    spread = torch.tensor(std, dtype=torch.float64, device=pixels.device)
    scale = (1.0 / (255.0 * spread)).to(torch.float32).view(1, -1, 1, 1)
    shift = (torch.tensor(mean, dtype=torch.float64, device=pixels.device) / spread).to(torch.float32)
    return torch.addcmul(-shift.view(1, -1, 1, 1), pixels.to(torch.float32), scale).to(dtype)


def picture_tiles(picture: Picture, pinpoints: Sequence[tuple[int, int]], size: int) -> torch.Tensor:
    """uint8 [H, W, 3] to uint8 [1 + n, 3, size, size]: the whole picture squashed, then n AnyRes tiles.

    The picture is scaled to fit the best of the ``pinpoints`` (height, width), centred on black, and cut
    row by row (LLaVA-NeXT ``process_anyres_image``, transformers ``get_image_patches``). Without pinpoints
    there are no tiles.
    """
    if not pinpoints:
        return resize_frames(picture[None], size)
    height, width = picture.shape[:2]
    best_height, best_width = best_resolution(height, width, pinpoints)
    inner_height, inner_width = _fit(height, width, best_height, best_width)
    canvas = torch.zeros((3, best_height, best_width), dtype=torch.uint8)
    top, left = (best_height - inner_height) // 2, (best_width - inner_width) // 2
    resized = _resize(picture[None], (inner_height, inner_width))[0]
    canvas[:, top : top + inner_height, left : left + inner_width] = resized
    tiles = rearrange(canvas, "c (y h) (x w) -> (y x) c h w", h=size, w=size)
    return torch.cat([resize_frames(picture[None], size), tiles])


def _fit(height: int, width: int, best_height: int, best_width: int) -> tuple[int, int]:
    """(height, width) of the picture inside the canvas: the ratio kept, the free side rounded up.

    In floats as transformers' ``get_patch_output_size`` has it, so that both round the same way.
    """
    scale_w, scale_h = best_width / width, best_height / height
    if scale_w < scale_h:
        return min(math.ceil(height * scale_w), best_height), best_width
    return best_height, min(math.ceil(width * scale_h), best_width)


def mean_colour(image_mean: Sequence[float]) -> tuple[int, ...]:
    """The tower's mean colour, which pads a picture (LLaVA-NeXT ``expand2square``); 127s for SigLIP."""
    return tuple(int(value * 255) for value in image_mean)


def padded_square(picture: Picture, size: int, background: tuple[int, ...] = (127, 127, 127)) -> torch.Tensor:
    """uint8 [H, W, 3] to uint8 [1, 3, size, size], padded to a square first: one of several pictures."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = background
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return resize_frames(square[None], size)
