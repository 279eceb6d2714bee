"""Pooling before the projector's last layer: the same answer to rounding, for a quarter of that layer's work.

The weights of a pooled cell sum to 1, so pooling and a linear layer change places, its bias included:
pool(W h + b) = W pool(h) + b. A plan becomes two: one that pools the cells into rows close together, and one
that places these rows, by then projected, where the first plan would have.

    pooling, placing = split(plan)
"""

from __future__ import annotations

import torch

from vidllava.errors import UsageError
from vidllava.kernels import BLOCK_FIELDS, MODES, SplicePlan

_COLUMN = {name: place for place, name in enumerate(BLOCK_FIELDS)}


def split(plan: SplicePlan) -> tuple[SplicePlan | None, SplicePlan]:
    """(plan of the pooled rows, plan that places them); the first is None where there is nothing to pool.

    Raises UsageError for a block that takes the maximum, which is not a weighted mean.
    """
    if bool((plan.blocks[:, _COLUMN["mode"]] == MODES["max"]).any()):
        raise UsageError("--pool-first", "does not go with --pool-mode max", "bilinear or average")
    if not len(plan.blocks):
        return None, plan
    height, width = plan.blocks[:, _COLUMN["out_h"]], plan.blocks[:, _COLUMN["out_w"]]
    ends = torch.cumsum(height * width, 0).to(torch.int32)
    starts = ends - height * width
    pooled = plan.blocks.clone()
    pooled[:, _COLUMN["dst_row"]] = starts
    pooled[:, _COLUMN["dst_stride"]] = width
    num_rows = int(ends[-1])
    nothing = plan.newlines.new_empty(0)
    pooling = SplicePlan(
        blocks=pooled,
        text=plan.text.new_empty(0, 2),
        newlines=nothing,
        padding=nothing,
        positions=nothing.new_zeros(num_rows),
        num_rows=num_rows,
    )
    placed = plan.blocks.clone()
    for name, value in (
        ("src_row", starts), ("tile_h", height), ("tile_w", width), ("tiles_x", 1), ("crop_y", 0),
        ("crop_x", 0), ("in_h", height), ("in_w", width), ("mode", MODES["copy"]), ("stride", 1),
    ):  # fmt: skip
        placed[:, _COLUMN[name]] = value
    placing = SplicePlan(
        blocks=placed,
        text=plan.text,
        newlines=plan.newlines,
        padding=plan.padding,
        positions=plan.positions,
        num_rows=plan.num_rows,
    )
    return pooling, placing
