"""What training changes of a model besides its weights is saved, and read wherever the folder is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, LlavaOnevisionForConditionalGeneration

from tests.backbone.test_adapter import logits
from tests.tiny import tiny_checkpoint
from vidllava.backbone.load import load_backbone
from vidllava.backbone.settings import OWN_FILE, Tuning, read_settings
from vidllava.errors import ModelError, UsageError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), preset="next-video")


def test_pooling_frames_grids_and_context_are_those_of_the_training(base: Path, tmp_path: Path):
    backbone = load_backbone(str(base), device="cpu")
    before = backbone.settings
    grids = ((70, 70), (70, 140))
    backbone.tune(Tuning(num_frames=5, pool_stride=3, newline_mode="frame", pinpoints=grids, max_tiles=2))
    backbone.save(tmp_path)
    saved = read_settings(tmp_path, "saved")
    preset = saved.preset
    assert (preset.name, preset.num_frames, preset.pool_stride) == ("next-video", 5, 3)
    assert (preset.newline_mode, preset.pool_mode) == ("frame", before.preset.pool_mode)
    assert (saved.pinpoints, saved.max_tiles) == (grids, 2)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["image_grid_pinpoints"] == [
        [70, 70],
        [70, 140],
    ]
    assert saved.trained_context == before.trained_context == 4096


def test_an_untuned_model_is_saved_as_it_was(base: Path, tmp_path: Path):
    load_backbone(str(base), device="cpu").save(tmp_path)
    assert json.loads((tmp_path / OWN_FILE).read_text()) == {"preset": "next-video"}
    assert (tmp_path / "preprocessor_config.json").read_bytes() == (
        base / "preprocessor_config.json"
    ).read_bytes()


def test_the_whole_picture_is_for_the_run_alone(base: Path, tmp_path: Path):
    backbone = load_backbone(str(base), device="cpu")
    grids = backbone.settings.pinpoints
    backbone.tune(Tuning(pinpoints=()))
    assert backbone.settings.pinpoints == ()
    backbone.save(tmp_path)
    assert read_settings(tmp_path, "saved").pinpoints == grids


@pytest.mark.parametrize("factor", [2.0, 1.5])
def test_the_rope_factor_is_saved_where_transformers_reads_it(base: Path, tmp_path: Path, factor: float):
    backbone = load_backbone(str(base), device="cpu")
    plain = logits(backbone)
    backbone.tune(Tuning(rope_factor=factor))
    wanted = logits(backbone)
    assert not torch.allclose(wanted, plain, atol=1e-3)
    backbone.save(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path).text_config
    assert config.rope_parameters["rope_type"] == "linear"
    assert config.rope_parameters["factor"] == factor
    before = AutoConfig.from_pretrained(base).text_config.rope_parameters
    assert config.rope_parameters["rope_theta"] == before["rope_theta"]
    assert torch.equal(logits(load_backbone(str(tmp_path), device="cpu")), wanted)
    saved = read_settings(tmp_path, "saved")
    assert (saved.trained_context, saved.least_factor) == (4096, factor)
    hf = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(hf.model.language_model.rotary_emb.inv_freq, backbone.rotary.inv_freq / factor)


def test_a_second_factor_takes_the_place_of_the_first(base: Path, tmp_path: Path):
    backbone = load_backbone(str(base), device="cpu")
    backbone.tune(Tuning(rope_factor=2.0))
    backbone.save(tmp_path)
    again = load_backbone(str(tmp_path), device="cpu")
    again.tune(Tuning(rope_factor=3.0))
    assert again.hf.config.text_config.rope_parameters["factor"] == 3.0
    assert (again.settings.trained_context, again.settings.least_factor) == (4096, 3.0)


@pytest.mark.parametrize(
    "content", [{"pool_stride": "2"}, {"pool_mode": "best"}, {"x": 1}, {"num_frames": True}]
)
def test_a_setting_that_means_nothing_is_refused(base: Path, tmp_path: Path, content: dict):
    load_backbone(str(base), device="cpu").save(tmp_path)
    (tmp_path / OWN_FILE).write_text(json.dumps({"preset": "nano", **content}))
    with pytest.raises(ModelError, match="is not a setting of a preset"):
        read_settings(tmp_path, "saved")


def test_an_attention_that_does_not_exist_is_wrong_usage(base: Path):
    with pytest.raises(UsageError, match="--attn-implementation bogus: no such attention"):
        load_backbone(str(base), device="cpu", attn_implementation="bogus")
    with pytest.raises(UsageError, match="flash_attention_2: its package is not installed"):
        load_backbone(str(base), device="cpu", attn_implementation="flash_attention_2")
