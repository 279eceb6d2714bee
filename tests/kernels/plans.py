"""Small plans that between them use every part of a splice, with the tensors to run them on.

case = CASES["anyres-capped"]        # a plan, and the feature rows it reads
inputs = case.inputs(torch.float64)  # features, embedding, newline, inv_freq: seeded, requiring gradients
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from vidllava.kernels import MODES, SplicePlan

VOCABULARY = 11
# Triton's interpreter cuts off where the hardware rounds to bf16: `test_ahead_of_time.py` looks at the
# instruction instead.
INTERPRETED = os.environ.get("KERNELS_UNDER_TEST") == "interpreter"
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


@dataclass(frozen=True)
class Visual:
    """`count` blocks over tiles of `tile` cells, `tiles` of them joined; consecutive features and rows."""

    tile: tuple[int, int]
    mode: str
    stride: int = 1
    count: int = 1
    tiles: tuple[int, int] = (1, 1)
    crop: tuple[int, int, int, int] | None = None
    """y, x, height, width of the window; None for all of it."""
    out: tuple[int, int] | None = None
    """Size of the output where it does not follow from the stride."""
    newline: str = "none"
    """row: after each row of output; end: after each block; one: after the last block."""
    again: bool = False
    """Read the features of the visual before, not new ones."""

    @property
    def window(self) -> tuple[int, int, int, int]:
        return self.crop or (0, 0, self.tile[0] * self.tiles[0], self.tile[1] * self.tiles[1])

    @property
    def size(self) -> tuple[int, int]:
        if self.out:
            return self.out
        round_to = math.ceil if self.mode == "bilinear" else math.floor
        return round_to(self.window[2] / self.stride), round_to(self.window[3] / self.stride)

    @property
    def cells(self) -> int:
        """Feature rows of one block."""
        return math.prod(self.tile) * math.prod(self.tiles)


@dataclass(frozen=True)
class Case:
    plan: SplicePlan
    num_features: int

    def inputs(self, dtype: torch.dtype, channels: int = 5, device: str = "cpu") -> tuple[Tensor, ...]:
        """features, embedding, newline, inv_freq; the first three require gradients."""
        generator = torch.Generator().manual_seed(0)
        shapes = ((self.num_features, channels), (VOCABULARY, channels), (channels,))
        leaves = [
            torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
            for shape in shapes
        ]
        return *leaves, (10_000.0 ** -(torch.arange(3) / 3)).to(device)


def int32(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def case(*samples: tuple[int | Visual, ...], spare: int = 0) -> Case:
    """One packed batch. A number in a sample is so many text rows; shorter samples are padded at the end.

    `spare` feature rows at the end are read by nobody.
    """
    blocks, text, newlines, padding, ends, row, feature = [], [], [], [], [], 0, 0
    for sample in samples:
        for part in sample:
            if isinstance(part, int):
                text += [(row + i, (7 * (row + i)) % VOCABULARY) for i in range(part)]
                row += part
                continue
            feature -= part.cells * part.count * part.again
            for number in range(part.count):
                height, width = part.size
                pitch = width + (part.newline == "row")
                fields = (*part.tile, part.tiles[1], *part.window, height, width)
                blocks.append((feature, *fields, MODES[part.mode], part.stride, row, pitch))
                feature += part.cells
                if part.newline == "row":
                    newlines += range(row + width, row + height * pitch, pitch)
                    newlines.append(row + height * pitch - 1)
                row += height * pitch
                if part.newline == "end" or (part.newline == "one" and number == part.count - 1):
                    newlines.append(row)
                    row += 1
        ends.append(row)
        # A row of padding after every sample: more would show nothing else.
        padding.append(row)
        row += 1
    positions = [r - max([0, *(e + 1 for e in ends if e < r)]) for r in range(row)]
    plan = SplicePlan(
        blocks=int32(blocks).reshape(-1, 14),
        text=int32(text).reshape(-1, 2),
        newlines=int32(sorted(set(newlines))),
        padding=int32(padding),
        positions=int32(positions),
        num_rows=row,
    )
    return Case(plan, feature + spare)


SQUARE = (5, 5)
CASES = {
    "text-only": case((4,)),
    "bilinear-odd": case((2, Visual(SQUARE, "bilinear", 2, count=3, newline="one"), 1)),
    "bilinear-even-rows": case((Visual((6, 4), "bilinear", 2, count=2, newline="row"),)),
    "bilinear-stride-3": case((1, Visual((7, 5), "bilinear", 3, newline="end"))),
    "bilinear-stride-4": case((1, Visual((9, 9), "bilinear", 4))),
    "bilinear-enlarged": case((Visual((3, 4), "bilinear", out=(7, 6)),)),
    "average-2": case((2, Visual(SQUARE, "average", 2, count=2, newline="end"), 2)),
    "average-3": case((Visual((7, 8), "average", 3),)),
    # LLaVA-NeXT-Video: CLIP's 24 x 24 cells to 12 x 12, pooled on their own, then placed without a newline.
    "clip-average": case((Visual((24, 24), "average", 2, count=2),)),
    "clip-max": case((Visual((24, 24), "max", 2),)),
    "clip-placed": case((3, Visual((12, 12), "copy", count=2), 4)),
    "max-2": case((Visual(SQUARE, "max", 2, count=2), 1)),
    "max-3": case((Visual((4, 7), "max", 3, newline="row"),)),
    "copy": case((1, Visual((3, 4), "copy", count=2, newline="row"), 1)),
    "anyres": case(
        (1, Visual((3, 3), "copy"), Visual((3, 3), "copy", tiles=(2, 3), crop=(1, 0, 4, 9), newline="row"), 1)
    ),
    "anyres-capped": case(
        (1, Visual((4, 4), "bilinear", tiles=(2, 3), crop=(0, 1, 8, 10), out=(5, 7), newline="row"), 1)
    ),
    "crop-in-one-tile": case((Visual((5, 6), "bilinear", 2, count=2, crop=(1, 2, 3, 3)),)),
    "max-across-tiles": case((Visual((3, 3), "max", 2, tiles=(2, 2), crop=(1, 0, 5, 6)),)),
    "slow-and-fast": case(
        (
            Visual(SQUARE, "bilinear", 2, count=2),
            1,
            Visual(SQUARE, "average", 4, again=True, newline="one"),
            Visual(SQUARE, "max", 2, again=True),
        )
    ),
    # The same features, in blocks of one shape and evenly spaced rows: no view of both may be added to.
    "same-source": case(
        (1, *[Visual(SQUARE, "average", 2)], *[Visual(SQUARE, "average", 2, again=True)] * 3, 1)
    ),
    "mixed-batch": case(
        (2, Visual(SQUARE, "bilinear", 2, count=2, newline="one"), 3),
        (3,),
        (1, Visual((3, 3), "copy", newline="end"), 1, Visual((4, 4), "average", 2, count=2), 1),
        spare=4,
    ),
}
