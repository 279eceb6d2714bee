"""At OneVision's own settings the logits are transformers' own, to fp32 rounding.

Both run the same random weights in fp32. The orders of summation differ in pooling and rotation only, each
about 1e-7 relative; the layers and the head amplify that to about 1e-6 of logits of order 1.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from tests.tiny import IMAGE_SIZE, PINPOINTS
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.media.pixels import normalise
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.prompting.layout import VisualLayout, picture_layout, square_layout, video_layout

IMAGE, VIDEO, SIDE = 3, 4, 5
TOLERANCE = 5e-5  # logits have a standard deviation above 1


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> LlavaOnevisionForConditionalGeneration:
    return LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


def frames(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, generator=generator)


def video(num_frames: int, seed: int = 0) -> VisualInput:
    layout = video_layout(num_frames, side=SIDE, stride=2, mode="bilinear", newline="one_token")
    return VisualInput(frames(num_frames, seed), layout)


def picture(height: int, width: int, seed: int = 0) -> VisualInput:
    pinpoints = [tuple(pair) for pair in PINPOINTS]
    layout = picture_layout(height, width, side=SIDE, tile_size=IMAGE_SIZE, pinpoints=pinpoints, max_tiles=4)
    return VisualInput(frames(layout.num_grids, seed), layout)


def square(seed: int = 0) -> VisualInput:
    return VisualInput(frames(1, seed), square_layout(side=SIDE))


def sample(*parts: int | VisualInput) -> SampleInput:
    ids = tuple(part if isinstance(part, int) else SLOT for part in parts)
    visuals = tuple(part for part in parts if isinstance(part, VisualInput))
    return SampleInput(TokenizedPrompt(ids, (IGNORE,) * len(ids)), visuals)


def expand(item: SampleInput) -> torch.Tensor:
    """Token ids as transformers' processor writes them: a placeholder for every visual row."""
    visuals = iter(item.visuals)
    ids: list[int] = []
    for token in item.prompt.ids:
        if token != SLOT:
            ids.append(token)
            continue
        layout: VisualLayout = next(visuals).layout
        ids += [VIDEO if layout.kind == "video" else IMAGE] * layout.num_tokens
    return torch.tensor([ids])


def values(pixels: torch.Tensor) -> torch.Tensor:
    return normalise(pixels, (0.5,) * 3, (0.5,) * 3, torch.float32)


@torch.inference_mode()
def compare(ours: Backbone, item: SampleInput, expected: torch.Tensor) -> None:
    logits = ours.all_logits(collate([item]))
    assert logits.shape == expected.shape
    assert expected.std() > 1  # or the tolerance would mean nothing
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_video_logits_equal_transformers(
    ours: Backbone, theirs: LlavaOnevisionForConditionalGeneration
) -> None:
    clip = video(7)
    item = sample(10, 11, clip, 12, 13, 14)
    expected = theirs(expand(item), pixel_values_videos=values(clip.pixels)[None]).logits
    compare(ours, item, expected)


@pytest.mark.parametrize(("height", "width"), [(70, 70), (140, 190), (61, 300), (333, 210), (400, 395)])
@torch.inference_mode()
def test_anyres_picture_logits_equal_transformers(
    height: int, width: int, ours: Backbone, theirs: LlavaOnevisionForConditionalGeneration
) -> None:
    view = picture(height, width)
    item = sample(9, view, 10, 11)
    expected = theirs(
        expand(item), pixel_values=values(view.pixels)[None], image_sizes=torch.tensor([[height, width]])
    ).logits
    compare(ours, item, expected)


@torch.inference_mode()
def test_several_pictures_logits_equal_transformers(
    ours: Backbone, theirs: LlavaOnevisionForConditionalGeneration
) -> None:
    views = [square(seed) for seed in range(3)]
    item = sample(9, views[0], 10, views[1], views[2], 11, 12)
    expected = theirs(
        expand(item),
        pixel_values=torch.stack([values(view.pixels) for view in views]),
        image_sizes=torch.tensor([[70, 70]] * 3),
        batch_num_images=torch.tensor([3]),
    ).logits
    compare(ours, item, expected)


@torch.inference_mode()
def test_text_logits_equal_transformers(
    ours: Backbone, theirs: LlavaOnevisionForConditionalGeneration
) -> None:
    item = sample(*range(5, 40))
    compare(ours, item, theirs(expand(item)).logits)


@torch.inference_mode()
def test_a_mixed_batch_equals_its_samples_alone(ours: Backbone) -> None:
    items = [
        sample(10, video(3), 11, 12),
        sample(9, picture(140, 190), 10),
        sample(5, 6, 7),
        sample(8, video(6, seed=1), 9, square(), 10, video(2, seed=2), 11),
    ]
    batch = collate(items)
    together = ours.all_logits(batch)
    for number, item in enumerate(items):
        alone = ours.all_logits(collate([item]))[0]
        torch.testing.assert_close(together[number, : batch.lengths[number]], alone, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_a_runtime_factor_equals_transformers_linear_configuration(
    ours: Backbone, checkpoint: Path, tmp_path: Path
) -> None:
    config = LlavaOnevisionForConditionalGeneration.config_class.from_pretrained(checkpoint)
    theta = config.text_config.rope_parameters["rope_theta"]
    config.text_config.rope_parameters = {"rope_type": "linear", "factor": 2.5, "rope_theta": theta}
    scaled = LlavaOnevisionForConditionalGeneration.from_pretrained(
        checkpoint, config=config, dtype=torch.float32
    ).eval()
    item = sample(*range(5, 60))
    logits = ours.all_logits(collate([item]), rope_factor=2.5)
    torch.testing.assert_close(logits, scaled(expand(item)).logits, atol=TOLERANCE, rtol=0)
    plain = ours.all_logits(collate([item]))
    assert (logits - plain).abs().max() > 0.1  # the factor does something


@torch.inference_mode()
def test_another_model_in_the_process_is_untouched(ours: Backbone, checkpoint: Path) -> None:
    before = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = torch.arange(5, 30)[None]
    expected = before(ids).logits
    load_backbone(str(checkpoint))
    assert torch.equal(before(ids).logits, expected)
    assert type(before.model.language_model.layers[0].self_attn).__name__ == "Qwen2Attention"


def test_what_is_saved_loads_with_plain_from_pretrained(ours: Backbone, tmp_path: Path) -> None:
    ours.save(tmp_path / "saved")
    again, report = LlavaOnevisionForConditionalGeneration.from_pretrained(
        tmp_path / "saved", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for (name, mine), theirs in zip(ours.hf.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert load_backbone(str(tmp_path / "saved")).settings.preset.name == "nano"
