"""Samples -> one packed batch: where every row of the language model's input comes from.

The table is built here, on the CPU, while tokenising: the kernel scans no ids, needs no mask and waits for
nothing. Samples may mix videos, pictures and text, with different frame counts.

    batch = collate([sample, other])        # rows of sample b are b * length ... b * length + its own length
    output = backbone(batch.to(device))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from vidllava.backbone.pool_first import split
from vidllava.kernels import MODES, SplicePlan
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.prompting.layout import Block, VisualLayout


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
        slots = sum(token == SLOT for token in self.prompt.ids)
        if slots != len(self.visuals):
            raise ValueError(f"the prompt has {slots} slots for {len(self.visuals)} visuals")

    @property
    def num_tokens(self) -> int:
        """Rows in the language model's input."""
        text = len(self.prompt.ids) - len(self.visuals)
        return text + sum(visual.layout.num_tokens for visual in self.visuals)


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """B samples, padded on the right to a common length S and packed into B * S rows.

    pixels       uint8 [N, 3, S', S']: all frames and tiles of all samples, for ONE call of the tower
    plan         where each row comes from
    pooling      with ``pool_first``: the plan that pools features into the rows that ``plan`` then places
    lengths      rows of each sample that are not padding
    length       S
    label_rows   int64 [L]: rows whose NEXT token is a label
    label_ids    int64 [L]: those labels
    """

    pixels: torch.Tensor
    plan: SplicePlan
    lengths: tuple[int, ...]
    length: int
    label_rows: torch.Tensor
    label_ids: torch.Tensor
    pooling: SplicePlan | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """The same batch on another device."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=non_blocking),
            plan=self.plan.to(device, non_blocking=non_blocking),
            pooling=self.pooling and self.pooling.to(device, non_blocking=non_blocking),
            label_rows=self.label_rows.to(device, non_blocking=non_blocking),
            label_ids=self.label_ids.to(device, non_blocking=non_blocking),
        )


class _Rows:
    """The plan's lists while they grow."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, ...]] = []
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
            MODES[block.mode],
            block.stride,
            row,
            row_stride,
        )


def collate(
    samples: Sequence[SampleInput], *, pad_to_multiple: int = 1, pool_first: bool = False
) -> PackedBatch:
    """Pack samples into one batch. Positions count 0, 1, 2, ... in every sample, padding included.

    Padding stands on the right, so causal attention never reads it and no mask is needed in a prefill or a
    training step. ``pool_first`` is the backbone's own (see ``pool_first``).
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    lengths = tuple(sample.num_tokens for sample in samples)
    length = -(-max(lengths) // pad_to_multiple) * pad_to_multiple
    rows = _Rows()
    for number, sample in enumerate(samples):
        start = number * length
        _place_sample(rows, sample, start)
        rows.padding.extend(range(start + lengths[number], start + length))
    plan = SplicePlan(
        blocks=_int32(rows.blocks, 14),
        text=_int32(rows.text, 2),
        newlines=_int32(rows.newlines),
        padding=_int32(rows.padding),
        positions=torch.arange(length, dtype=torch.int32).repeat(len(samples)),
        num_rows=len(samples) * length,
    )
    pooling, plan = split(plan) if pool_first else (None, plan)
    return PackedBatch(
        pixels=_stack([visual.pixels for sample in samples for visual in sample.visuals]),
        plan=plan,
        lengths=lengths,
        length=length,
        label_rows=torch.tensor(rows.label_rows, dtype=torch.int64),
        label_ids=torch.tensor(rows.label_ids, dtype=torch.int64),
        pooling=pooling,
    )


def _place_sample(rows: _Rows, sample: SampleInput, start: int) -> None:
    visuals: Iterator[VisualInput] = iter(sample.visuals)
    row = start
    for token, label in zip(sample.prompt.ids, sample.prompt.labels, strict=True):
        if token == SLOT:
            row = rows.place_visual(next(visuals).layout, row)
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
