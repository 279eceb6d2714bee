"""A plan that does not give every row exactly one source cannot be built."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.kernels.plans import CASES, int32
from vidllava.kernels import BLOCK_FIELDS, MODES, SplicePlan

# Two 4x4 grids, halved, to rows 1-8; text in row 0, a newline in row 9, padding in row 10.
BLOCK = {
    "src_row": 0, "tile_h": 4, "tile_w": 4, "tiles_x": 1, "crop_y": 0, "crop_x": 0, "in_h": 4, "in_w": 4,
    "out_h": 2, "out_w": 2, "mode": MODES["bilinear"], "stride": 2, "dst_row": 1, "dst_stride": 2,
}  # fmt: skip


def plan(first: dict | None = None, second: dict | None = None, **tables: object) -> SplicePlan:
    """The plan above, with changes to its blocks or tables."""
    blocks = [{**BLOCK, **(first or {})}, {**BLOCK, "src_row": 16, "dst_row": 5, **(second or {})}]
    given = {
        "blocks": int32([[block[name] for name in BLOCK_FIELDS] for block in blocks]),
        "text": int32([[0, 3]]),
        "newlines": int32([9]),
        "padding": int32([10]),
        "positions": torch.arange(11, dtype=torch.int32),
        "num_rows": 11,
        **tables,
    }
    return SplicePlan(**given)  # type: ignore[arg-type]


def test_a_plan_says_what_it_needs():
    built = plan()
    assert (built.num_feature_rows, built.num_vocabulary, built.uses_max) == (32, 4, False)
    assert repr(built) == "SplicePlan(11 rows: 2 blocks, 1 text, 1 newlines, 1 padding; on cpu)"
    assert built.table_positions.tolist() == [*range(10), -1]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"num_rows": 0}, "num_rows is 0"),
        ({"num_rows": 12}, "positions has 11 entries for 12 rows"),
        ({"text": int32([[0, 3], [1, 3]])}, "row 1 has 2 sources"),
        ({"newlines": int32([])}, "row 9 has 0 sources"),
        ({"padding": int32([11])}, "row 11 is outside the plan's 0 to 10"),
        ({"padding": int32([-1])}, "row -1 is outside"),
        ({"text": int32([[0, -200]])}, "text holds -200"),
        ({"positions": int32([-3] * 11)}, "positions holds -3"),
        ({"padding": torch.tensor([10])}, r"padding is torch.int64 \[1\], expected torch.int32 \[n\]"),
        ({"text": int32([0, 3])}, r"text is torch.int32 \[2\], expected torch.int32 \[n, 2\]"),
        (
            {"padding": torch.empty(1, dtype=torch.int32, device="meta")},
            "padding is on meta: build a plan on",
        ),
    ],
)
def test_tables_at_fault_are_named(tables: dict, message: str):
    with pytest.raises(ValueError, match=message):
        plan(**tables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_w": 0}, "a size or a stride below 1"),
        ({"stride": 0}, "a size or a stride below 1"),
        ({"src_row": -1}, "a negative row or crop"),
        ({"crop_x": 1}, "a window that is wider than its tiles"),
        ({"mode": 4}, "a mode that is none of"),
        ({"mode": -1}, "a mode that is none of"),
        ({"dst_stride": 1}, "a dst_stride below out_w"),
        ({"mode": MODES["copy"]}, "mode copy with a stride or with different sizes"),
        ({"mode": MODES["max"], "stride": 3}, "not the floor of input / stride"),
        ({"dst_row": 4}, "row 1 has 0 sources"),
    ],
)
def test_a_block_at_fault_is_named(change: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        plan(first=change)
    assert "block 0" in str(caught.value) or "row" in message


def test_blocks_may_share_tiles_but_not_cut_them_differently():
    shared = plan(second={"src_row": 0})
    assert len(shared.readers) == 2
    assert shared.tiles.tolist() == [[0, 4, 4, 0, 2]]
    cut = {"src_row": 8, "tile_h": 2, "tile_w": 8, "in_h": 2, "in_w": 8, "out_h": 2, "out_w": 2}
    with pytest.raises(ValueError, match=r"different tiles .*: \[0, 4, 4\], \[8, 2, 8\]"):
        plan(second=cut)


@pytest.mark.parametrize("name", CASES)
def test_work_lists_cover_every_output_row_and_every_tile_row_once(name: str):
    built = CASES[name].plan
    out_h = built.blocks[:, BLOCK_FIELDS.index("out_h")]
    assert built.items.tolist() == [[b, y] for b, height in enumerate(out_h.tolist()) for y in range(height)]
    heights = built.tiles[:, 1].tolist()
    assert built.tile_rows.tolist() == [[t, y] for t, height in enumerate(heights) for y in range(height)]
    assert built.num_tile_cells == sum(h * w for _, h, w, *_ in built.tiles.tolist())


def test_a_plan_moves_in_one_piece():
    built = CASES["mixed-batch"].plan
    assert built.to("cpu") is built
    moved = built.to("meta")
    assert moved.device.type == "meta"
    assert moved.num_feature_rows == built.num_feature_rows
    for here, there in zip(built.operands, moved.operands, strict=True):
        assert (there.device.type, there.shape, there.dtype) == ("meta", here.shape, torch.int32)


def test_a_plan_cannot_be_changed():
    built = plan()
    with pytest.raises(AttributeError):
        built.num_rows = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="positions has 11 entries"):
        replace(built, num_rows=10)
