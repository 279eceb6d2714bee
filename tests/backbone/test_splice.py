"""The packed batch: rows in order, labels one row before their token, one tower call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.backbone.test_parity import frames, picture, sample, video
from vidllava.backbone.load import load_backbone
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.prompting.layout import video_layout


def labelled(ids: list[int], labels: list[int], *visuals: VisualInput) -> SampleInput:
    return SampleInput(TokenizedPrompt(tuple(ids), tuple(labels)), visuals)


def test_every_label_stands_one_row_before_its_token() -> None:
    clip = video(2)  # 2 x 3 x 3 rows and a newline
    item = labelled([10, SLOT, 11, 12], [IGNORE, IGNORE, 11, 12], clip)
    batch = collate([sample(5), item])
    assert batch.lengths == (1, 22)
    assert batch.length == 22
    # Sample 1 starts at row 22: token 11 stands at 22 + 1 + 19 = 42, so row 41 (the newline) predicts it.
    assert batch.label_rows.tolist() == [41, 42]
    assert batch.label_ids.tolist() == [11, 12]


@pytest.mark.parametrize(
    ("newline", "expected"), [("one_token", [18]), ("frame", [9, 19]), ("grid", [3, 7, 11, 15, 19, 23])]
)
def test_newline_rows_stand_where_the_mode_says(newline: str, expected: list[int]) -> None:
    layout = video_layout(2, side=5, stride=2, mode="bilinear", newline=newline)  # type: ignore[arg-type]
    batch = collate([sample(VisualInput(frames(2, 0), layout))])
    assert batch.plan.newlines.tolist() == expected
    assert batch.length == layout.num_tokens


def test_the_loss_is_the_shifted_cross_entropy_over_labels_only(checkpoint: Path) -> None:
    backbone = load_backbone(str(checkpoint))
    items = [
        labelled([10, SLOT, 11, 12, 13], [IGNORE, IGNORE, IGNORE, 12, 13], video(3)),
        labelled([9, SLOT, 20], [IGNORE, IGNORE, 20], picture(70, 140)),
    ]
    batch = collate(items)
    output = backbone(batch)
    logits = backbone.all_logits(batch)
    first, second = batch.lengths
    picked = [logits[0, first - 3], logits[0, first - 2], logits[1, second - 2]]
    expected = F.cross_entropy(torch.stack(picked), torch.tensor([12, 13, 20]))
    torch.testing.assert_close(output.loss, expected)
    assert output.num_labels == 3


def test_a_training_step_without_visuals_still_reaches_every_parameter(checkpoint: Path) -> None:
    backbone = load_backbone(str(checkpoint)).train()
    backbone(collate([labelled([5, 6, 7], [IGNORE, 6, 7])])).loss.backward()
    trained = {name: value for name, value in backbone.named_parameters() if value.requires_grad}
    assert [name for name, value in trained.items() if value.grad is None] == []
    assert len(trained) > 50


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_and_newlines_that_nobody_reads_leave_the_loss_alone(
    checkpoint: Path, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(checkpoint)).train()
    batch = collate([labelled([5, 6, 7], [IGNORE, 6, 7])])
    sound = backbone(batch).loss
    assert sound.isfinite()
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda pixels, at: encode(pixels, at=at) + wrong)
    torch.nn.init.constant_(backbone.hf.model.image_newline, wrong)
    assert torch.equal(backbone(batch).loss, sound)


def test_the_tower_gives_the_same_in_chunks(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(str(checkpoint))
    pixels = frames(7, 0)
    with torch.inference_mode():
        whole = backbone.encode(pixels)
        monkeypatch.setattr("vidllava.backbone.tower.CELLS_PER_CHUNK", 3 * 25)
        torch.testing.assert_close(backbone.encode(pixels), whole, atol=1e-5, rtol=1e-5)


def test_a_layout_that_does_not_fit_its_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit a layout of 2 grids"):
        VisualInput(frames(3, 0), video(2).layout)
    with pytest.raises(ValueError, match="1 slots for 0 visuals"):
        SampleInput(TokenizedPrompt((SLOT,), (IGNORE,)), ())
