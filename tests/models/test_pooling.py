"""Features are pooled where the family pools them, at every stride and mode, learned ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaNextVideoForConditionalGeneration

from tests.clips import write_clip
from tests.models.checkpoints import CLIP_GRID, PUBLISHED, hf_checkpoint
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.settings import read_settings
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.errors import UsageError
from vidllava.media.decode import decode
from vidllava.media.pixels import normalise, resize_frames
from vidllava.models import presets
from vidllava.prompting.conversation import SLOT
from vidllava.visuals.options import AskOptions, PoolingOptions
from vidllava.visuals.planner import VisualPlanner
from vidllava.visuals.question import Question, plan_question

NAME, VIDEO = "next-video-7b", "<video>"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", num_frames=12, width=128, height=96))


def pooled_as(folder: Path, mode: str, stride: int) -> Path:
    """The tiny NeXT-Video checkpoint with another ``spatial_pool_mode`` and stride."""
    hf_checkpoint(NAME, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"spatial_pool_mode": mode, "spatial_pool_stride": stride, "spatial_pool_out_channels": 32}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if mode == "conv":
        kind = PUBLISHED[NAME].hf_class
        model = kind.from_pretrained(folder)
        torch.manual_seed(1)
        torch.nn.init.normal_(model.model.vision_resampler.pool.weight, std=0.2)
        model.save_pretrained(folder)
    return folder


def asked(ours: Backbone, clip: str, **options: Any) -> Question:
    given = AskOptions(num_frames=3, rope_factor=ours.settings.least_factor, **options)
    return plan_question([clip], "what happens", ours.settings, ours.codec, given, require_fit=False)


def sample_of(ours: Backbone, question: Question) -> SampleInput:
    (item,) = question.items
    assert item.info is not None
    assert item.plan is not None
    pixels = resize_frames(decode(item.info, item.plan).pixels, ours.settings.frame_size)
    return SampleInput(question.prompt, (VisualInput(pixels, item.layout),))


@torch.inference_mode()
def their_logits(ours: Backbone, theirs: Any, sample: SampleInput) -> torch.Tensor:
    place = ours.codec.special(VIDEO)
    count = sample.layouts[0].num_tokens
    ids = [one for id_ in sample.prompt.ids for one in ([place] * count if id_ == SLOT else [id_])]
    settings, pixels = ours.settings, sample.visuals[0].pixels
    values = normalise(pixels, settings.image_mean, settings.image_std, torch.float32)
    return theirs(input_ids=torch.tensor([ids]), pixel_values_videos=values[None]).logits


@pytest.mark.parametrize("mode", ["average", "max", "conv"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@torch.inference_mode()
def test_next_video_pools_before_the_projector(tmp_path: Path, clip: str, mode: str, stride: int):
    folder = pooled_as(tmp_path, mode, stride)
    ours = load_backbone(str(folder))
    theirs = LlavaNextVideoForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    assert (ours.settings.preset.pool_mode, ours.settings.preset.pool_stride) == (mode, stride)
    sample = sample_of(ours, asked(ours, clip))
    assert sample.layouts[0].num_tokens == 3 * (CLIP_GRID // stride) ** 2
    expected = their_logits(ours, theirs, sample)
    found = ours.all_logits(collate([sample]))
    assert float((found - expected).norm() / expected.norm()) < 1e-4


@torch.inference_mode()
def test_before_and_after_the_projector_are_two_things(tmp_path: Path, clip: str):
    ours = load_backbone(str(hf_checkpoint(NAME, tmp_path)))
    before = sample_of(ours, asked(ours, clip))
    pooling = PoolingOptions(pool_mode="average", newline_mode="no_token")
    after = VisualPlanner.of(ours.settings, pooling, preset=presets()["onevision"]).video(3)
    assert (before.layouts[0].pool_at, after.pool_at) == ("tower", "projected")
    pixels = before.visuals[0].pixels
    assert ours.encode(pixels, at="tower").shape[1] == ours.hf.config.vision_config.hidden_size
    moved = SampleInput(before.prompt, (VisualInput(pixels, after),))
    assert moved.num_tokens == before.num_tokens
    one, two = (ours.all_logits(collate([sample])) for sample in (before, moved))
    assert not torch.allclose(one, two, atol=1e-2), "between pooling and projecting stands a GELU"
    with pytest.raises(ValueError, match="before the projector"):
        collate([before, moved])


def test_a_convolution_is_asked_for_only_where_the_checkpoint_holds_it(tmp_path: Path):
    without = read_settings(hf_checkpoint(NAME, tmp_path / "average"), "average")
    with pytest.raises(UsageError, match="holds no convolution that pools"):
        VisualPlanner.of(without, AskOptions(pool_mode="conv"))
    holding = read_settings(pooled_as(tmp_path / "conv", "conv", 2), "conv")
    with pytest.raises(UsageError, match="convolution of conv has stride 2"):
        VisualPlanner.of(holding, AskOptions(pool_stride=3))
    assert VisualPlanner.of(holding, AskOptions(pool_mode="max", pool_stride=3)).pooling.mode == "max"


def test_the_convolution_learns(tmp_path: Path, clip: str):
    ours = load_backbone(str(pooled_as(tmp_path, "conv", 2))).train()
    sample = sample_of(ours, asked(ours, clip))
    prompt = type(sample.prompt)(sample.prompt.ids, sample.prompt.ids)
    ours(collate([SampleInput(prompt, sample.visuals)])).loss.backward()
    learned = ours.hf.model.vision_resampler.pool.weight.grad
    assert learned is not None
    assert float(learned.abs().max()) > 0
    ours.zero_grad()
    words = type(prompt)((5, 6, 7), (-100, 6, 7))
    ours(collate([SampleInput(words, ())])).loss.backward()
    unread = [name for name, p in ours.named_parameters() if p.requires_grad and p.grad is None]
    assert unread == [], "a parameter without a gradient makes other processes wait"


def test_a_preset_whose_template_the_tokenizer_cannot_write_is_spoken_in_the_models_own(
    tmp_path: Path, clip: str
):
    ours = load_backbone(str(hf_checkpoint(NAME, tmp_path)))
    question = asked(ours, clip, preset="onevision")
    assert question.items[0].layout.pool_at == "projected"
    assert question.prompt == asked(ours, clip).prompt
    (note,) = question.notes
    assert "has no <|im_end|>: its own template is spoken, not chatml" in note
