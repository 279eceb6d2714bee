"""Pooling before the projector's last layer gives the same rows, gradients and answers, to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.backbone.test_parity import frames, picture, sample, square, video
from tests.backbone.test_splice import labelled
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import SampleInput, VisualInput, collate, split
from vidllava.errors import UsageError
from vidllava.prompting.conversation import IGNORE, SLOT
from vidllava.prompting.layout import video_layout

# Sums in another order: 1e-7 relative, which layers and head amplify as in test_parity.
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def usual(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


@pytest.fixture(scope="module")
def early(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint), pool_first=True)


def clip(mode: str, newline: str, stride: int = 2) -> VisualInput:
    layout = video_layout(3, side=5, stride=stride, mode=mode, newline=newline)  # type: ignore[arg-type]
    return VisualInput(frames(3, 1), layout)


CASES = {
    "bilinear": [sample(5, clip("bilinear", "one_token"), 6)],
    "average, a newline per row": [sample(5, clip("average", "grid"), 6)],
    "stride 3, a newline per frame": [sample(clip("bilinear", "frame", 3), 6)],
    "not pooled": [sample(clip("bilinear", "no_token", 1), 6)],
    "AnyRes, shrunk to the cap": [sample(5, picture(100, 190), 6)],
    "several visuals, samples and lengths": [
        sample(5, video(2), 6, square(3), 7),
        sample(8, 9),
        sample(picture(70, 140, 2), 4),
    ],
    "text alone": [sample(5, 6, 7)],
}


@pytest.mark.parametrize("items", CASES.values(), ids=CASES.keys())
@torch.inference_mode()
def test_logits_are_the_same_to_rounding(usual: Backbone, early: Backbone, items: list[SampleInput]) -> None:
    expected = usual.all_logits(collate(items))
    logits = early.all_logits(collate(items, pool_first=True))
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_gradients_are_the_same_to_rounding(checkpoint: Path) -> None:
    # Some are zero but for rounding (the bias of k, which a softmax cannot feel): hence the fixed part.
    items = [labelled([10, SLOT, 11, 12], [IGNORE, IGNORE, 11, 12], video(3))]
    gradients = []
    for pool_first in (False, True):
        backbone = load_backbone(str(checkpoint), pool_first=pool_first).train()
        backbone(collate(items, pool_first=pool_first)).loss.backward()
        gradients.append({name: value.grad for name, value in backbone.named_parameters()})
    for name, expected in gradients[0].items():
        found = gradients[1][name]
        assert (found is None) == (expected is None), name
        if expected is not None and found is not None:
            torch.testing.assert_close(
                found, expected, atol=1e-5 * float(expected.abs().max()) + 1e-6, rtol=0
            )


def test_a_training_step_without_visuals_still_reaches_every_parameter(checkpoint: Path) -> None:
    backbone = load_backbone(str(checkpoint), pool_first=True).train()
    backbone(collate([labelled([5, 6, 7], [IGNORE, 6, 7])], pool_first=True)).loss.backward()
    trained = [
        name for name, value in backbone.named_parameters() if value.requires_grad and value.grad is None
    ]
    assert trained == []


def test_the_last_layer_sees_pooled_rows_only(early: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    layer = early.hf.model.multi_modal_projector.linear_2
    handle = layer.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    with torch.inference_mode():
        early.all_logits(collate([sample(5, video(3), 6)], pool_first=True))
    handle.remove()
    assert rows == [3 * 3 * 3]  # three frames of 5 x 5 cells, pooled to 3 x 3


def test_a_maximum_is_refused_in_words(early: Backbone) -> None:
    with pytest.raises(UsageError, match="--pool-first: does not go with --pool-mode max"):
        collate([sample(5, clip("max", "one_token"), 6)], pool_first=True)


@pytest.mark.parametrize("pool_first", [False, True])
def test_a_batch_of_the_other_order_is_refused(usual: Backbone, early: Backbone, pool_first: bool) -> None:
    backbone = usual if pool_first else early
    with pytest.raises(ValueError, match="collated"):
        backbone.all_logits(collate([sample(5, video(2), 6)], pool_first=pool_first))


def test_a_plan_without_blocks_stays_as_it_is() -> None:
    plan = collate([sample(5, 6)]).plan
    assert split(plan) == (None, plan, None)
