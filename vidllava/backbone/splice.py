"""Prompts and layouts packed into one batch: where every row of the language model's input comes from.

The table is built here, on the CPU, while tokenising: the kernel scans no ids, needs no mask and waits for
nothing. Samples may mix videos, pictures and text, with different frame counts.

    rows = pack([(prompt, layouts)])        # rows of sample b are b * length ... b * length + its own length
    batch = collate([sample, other])        # the same with the pixels that the tower is to read
    output = backbone(batch.to(device))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import torch

from vidllava.errors import UsageError
from vidllava.kernels import BLOCK_FIELDS, MODES, SplicePlan
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.prompting.layout import Block, VisualLayout

FeaturesAt = Literal["tower", "hidden", "projected"]
"""Where features are taken: of the tower, before the projector's last layer (``pool_first``), projected."""


@dataclass(frozen=True, eq=False)
class VisualInput:
    """One visual, ready for the tower: ``pixels`` uint8 [layout.num_grids, 3, S, S]."""

    pixels: torch.Tensor
    layout: VisualLayout

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[0] != self.layout.num_grids:
            raise ValueError(
                f"pixels {tuple(self.pixels.shape)} do not fit a layout of {self.layout.num_grids} grids"
            )


@dataclass(frozen=True, eq=False)
class SampleInput:
    """One conversation: token ids with a SLOT for each of ``visuals``, in order."""

    prompt: TokenizedPrompt
    visuals: tuple[VisualInput, ...]

    def __post_init__(self) -> None:
        _check_slots(self.prompt, self.visuals)

    @property
    def num_tokens(self) -> int:
        """Rows in the language model's input."""
        return _num_rows(self.prompt, self.layouts)

    @property
    def layouts(self) -> tuple[VisualLayout, ...]:
        """The rows of each visual: all that the splice needs of it."""
        return tuple(visual.layout for visual in self.visuals)


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedRows:
    """B samples, padded on the right to a common length S and packed into B * S rows.

    plan         where each row comes from
    at           where the features are taken that the plan reads
    pooling      unless projected: the plan that pools features into the rows that ``plan`` then places
    convolved    int32 [C, 14]: blocks that a convolution pools, as ``BLOCK_FIELDS``; padding in ``pooling``
    lengths      rows of each sample that are not padding
    length       S
    label_rows   int64 [L]: rows whose NEXT token is a label
    label_ids    int64 [L]: those labels
    """

    plan: SplicePlan
    lengths: tuple[int, ...]
    length: int
    label_rows: torch.Tensor
    label_ids: torch.Tensor
    pooling: SplicePlan | None = None
    at: FeaturesAt = "projected"
    convolved: torch.Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in values.items()
            if isinstance(value, torch.Tensor | SplicePlan)
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedBatch(PackedRows):
    """Packed rows with the ``pixels`` of their visuals: uint8 [N, 3, S', S'], all frames and tiles of all
    samples, for ONE call of the tower."""

    pixels: torch.Tensor


class _Rows:
    """The plan's lists while they grow."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, ...]] = []
        self.learned: list[bool] = []
        """For each block, whether a convolution takes the place of the average that its numbers say."""
        self.text: list[tuple[int, int]] = []
        self.newlines: list[int] = []
        self.padding: list[int] = []
        self.label_rows: list[int] = []
        self.label_ids: list[int] = []
        self.num_feature_rows = 0

    def place_visual(self, layout: VisualLayout, row: int) -> int:
        """Place one visual's rows from ``row`` on; returns the row after them."""
        for block in layout.blocks:
            row_stride = block.out_w + (block.newline == "row")
            self.blocks.append(self._fields(block, row, row_stride))
            self.learned.append(block.mode == "conv")
            end = row + block.out_h * row_stride
            if block.newline == "row":
                self.newlines.extend(range(row + block.out_w, end, row_stride))
            elif block.newline == "end":
                self.newlines.append(end)
                end += 1
            row = end
        if layout.trailing_newline:
            self.newlines.append(row)
            row += 1
        first = layout.blocks[0]
        self.num_feature_rows += layout.num_grids * first.tile_h * first.tile_w
        return row

    def _fields(self, block: Block, row: int, row_stride: int) -> tuple[int, ...]:
        source = self.num_feature_rows + block.first_grid * block.tile_h * block.tile_w
        return (
            source,
            block.tile_h,
            block.tile_w,
            block.tiles_x,
            block.crop_y,
            block.crop_x,
            block.in_h,
            block.in_w,
            block.out_h,
            block.out_w,
            MODES["average" if block.mode == "conv" else block.mode],
            block.stride,
            row,
            row_stride,
        )


def collate(
    samples: Sequence[SampleInput], *, pad_to_multiple: int = 1, pool_first: bool = False
) -> PackedBatch:
    """Pack samples with their pixels into one batch. See ``pack``."""
    packed = pack(
        [(sample.prompt, sample.layouts) for sample in samples],
        pad_to_multiple=pad_to_multiple,
        pool_first=pool_first,
    )
    pixels = _stack([visual.pixels for sample in samples for visual in sample.visuals])
    return PackedBatch(**vars(packed), pixels=pixels)


def pack(
    samples: Sequence[tuple[TokenizedPrompt, Sequence[VisualLayout]]],
    *,
    pad_to_multiple: int = 1,
    pool_first: bool = False,
) -> PackedRows:
    """Pack prompts, each with the layouts of its visuals. Positions count 0, 1, 2, ... in every sample,
    padding included.

    Padding stands on the right, so causal attention never reads it and no mask is needed in a prefill or a
    training step. ``pool_first`` is the backbone's own (see ``pool_first``).
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    for prompt, layouts in samples:
        _check_slots(prompt, layouts)
    lengths = tuple(_num_rows(prompt, layouts) for prompt, layouts in samples)
    length = -(-max(lengths) // pad_to_multiple) * pad_to_multiple
    rows = _Rows()
    for number, (prompt, layouts) in enumerate(samples):
        start = number * length
        _place_sample(rows, prompt, layouts, start)
        rows.padding.extend(range(start + lengths[number], start + length))
    plan = SplicePlan(
        blocks=_int32(rows.blocks, 14),
        text=_int32(rows.text, 2),
        newlines=_int32(rows.newlines),
        padding=_int32(rows.padding),
        positions=torch.arange(length, dtype=torch.int32).repeat(len(samples)),
        num_rows=len(samples) * length,
    )
    at = features_at([layout for _, layouts in samples for layout in layouts], pool_first=pool_first)
    pooling, convolved = None, None
    if at != "projected":
        learned = torch.tensor(rows.learned, dtype=torch.bool)
        pooling, plan, convolved = split(plan, learned, linear=at == "hidden")
    elif any(rows.learned):
        raise ValueError("a convolution pools the tower's features, not projected ones")
    return PackedRows(
        plan=plan,
        lengths=lengths,
        length=length,
        label_rows=torch.tensor(rows.label_rows, dtype=torch.int64),
        label_ids=torch.tensor(rows.label_ids, dtype=torch.int64),
        pooling=pooling,
        at=at,
        convolved=convolved,
    )


def features_at(layouts: Sequence[VisualLayout], *, pool_first: bool) -> FeaturesAt:
    """Where the features of these visuals are taken. Raises ValueError for pooling in two places."""
    places = {layout.pool_at for layout in layouts}
    if len(places) > 1:
        raise ValueError("a batch holds visuals that are pooled before the projector, and others after it")
    if places == {"tower"}:
        return "tower"
    return "hidden" if pool_first else "projected"


def _check_slots(prompt: TokenizedPrompt, visuals: Sequence[object]) -> None:
    slots = prompt.ids.count(SLOT)
    if slots != len(visuals):
        raise ValueError(f"the prompt has {slots} slots for {len(visuals)} visuals")


def _num_rows(prompt: TokenizedPrompt, layouts: Sequence[VisualLayout]) -> int:
    return len(prompt.ids) - len(layouts) + sum(layout.num_tokens for layout in layouts)


def _place_sample(rows: _Rows, prompt: TokenizedPrompt, layouts: Sequence[VisualLayout], start: int) -> None:
    waiting: Iterator[VisualLayout] = iter(layouts)
    row = start
    for token, label in zip(prompt.ids, prompt.labels, strict=True):
        if token == SLOT:
            row = rows.place_visual(next(waiting), row)
            continue
        rows.text.append((row, token))
        # The row before a labelled token predicts it; the first row of a sample has none before it.
        if label != IGNORE and row > start:
            rows.label_rows.append(row - 1)
            rows.label_ids.append(label)
        row += 1


def _int32(values: Sequence[object], columns: int | None = None) -> torch.Tensor:
    shape = (-1,) if columns is None else (-1, columns)
    return torch.tensor(values, dtype=torch.int32).reshape(shape)


def _stack(pixels: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(pixels)) if pixels else torch.empty(0, 3, 1, 1, dtype=torch.uint8)


_COLUMN = {name: place for place, name in enumerate(BLOCK_FIELDS)}


def split(
    plan: SplicePlan, learned: torch.Tensor | None = None, *, linear: bool = True
) -> tuple[SplicePlan | None, SplicePlan, torch.Tensor | None]:
    """(plan of the pooled rows, plan that places them, blocks that are convolved); the first is None where
    there is nothing to pool, the last where there is no such block. ``learned``: bool per block.

    Raises UsageError where pooling must be ``linear`` and a block takes the maximum.
    """
    if linear and bool((plan.blocks[:, _COLUMN["mode"]] == MODES["max"]).any()):
        raise UsageError("--pool-first", "does not go with --pool-mode max", "bilinear or average")
    if not len(plan.blocks):
        return None, plan, None
    height, width = plan.blocks[:, _COLUMN["out_h"]], plan.blocks[:, _COLUMN["out_w"]]
    ends = torch.cumsum(height * width, 0).to(torch.int32)
    starts = ends - height * width
    pooled = plan.blocks.clone()
    pooled[:, _COLUMN["dst_row"]] = starts
    pooled[:, _COLUMN["dst_stride"]] = width
    num_rows = int(ends[-1])
    nothing = plan.newlines.new_empty(0)
    learned = torch.zeros(len(pooled), dtype=torch.bool) if learned is None else learned
    convolved = pooled[learned] if bool(learned.any()) else None
    pooling = SplicePlan(
        blocks=pooled[~learned],
        text=plan.text.new_empty(0, 2),
        newlines=nothing,
        padding=nothing if convolved is None else rows_of(convolved),
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
    return pooling, placing, convolved


def rows_of(blocks: torch.Tensor) -> torch.Tensor:
    """int32 [sum of out_h * out_w]: the rows that pooled blocks fill, block by block."""
    first, count = blocks[:, _COLUMN["dst_row"]], blocks[:, _COLUMN["out_h"]] * blocks[:, _COLUMN["out_w"]]
    starts = torch.repeat_interleave(first - (torch.cumsum(count, 0) - count), count)
    return (starts + torch.arange(len(starts), device=blocks.device)).to(torch.int32)


def grids_of(blocks: torch.Tensor) -> torch.Tensor:
    """int64 [C, tile_h * tile_w]: the feature rows of the grid that each block reads."""
    cells = int(blocks[0, _COLUMN["tile_h"]]) * int(blocks[0, _COLUMN["tile_w"]])
    return blocks[:, _COLUMN["src_row"]].long()[:, None] + torch.arange(cells, device=blocks.device)
