"""Stages and recipes set the published figures, what is given wins, and each value says where it is from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import PINPOINTS
from tests.training.conftest import Heard, Run, metrics
from tests.worlds import World
from vidllava.backbone.load import load_backbone
from vidllava.backbone.settings import named_settings, read_settings
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import UsageError
from vidllava.media.timeline import SamplingRequest
from vidllava.training import recipe as recipes
from vidllava.training.recipe import Resolved, llm_parameters, resolve
from vidllava.training.settings import TrainingSettings
from vidllava.visuals.planner import ModelSettings

ONEVISION = named_settings("onevision-0.5b")
SIX_BY_SIX = tuple((rows * 384, columns * 384) for rows in range(1, 7) for columns in range(1, 7))


def resolved(
    encode: EncodeOptions | None = None, model: ModelSettings = ONEVISION, **options: Any
) -> Resolved:
    return resolve(TrainingSettings(**options), encode or EncodeOptions(), model)


# LLaVA-OneVision, Table 1: trainable, rates of (llm, vision, projector), most tokens of a picture.
@pytest.mark.parametrize(
    ("stage", "freeze", "rates", "tiles", "length"),
    [
        ("1", ("vision", "llm"), (None, None, 1e-3), None, 8192),
        ("1.5", (), (1e-5, 2e-6, 1e-5), 4, 32768),
        ("2-si", (), (1e-5, 2e-6, 1e-5), 9, 32768),
        ("2-ov", (), (1e-5, 2e-6, 1e-5), 9, 32768),
    ],
)
def test_a_stage_is_what_the_paper_says(stage, freeze, rates, tiles, length):
    found = resolved(stage=stage)
    settings = found.settings
    assert settings.freeze == freeze
    named = (settings.learning_rate, settings.vision_lr, settings.projector_lr)
    for rate, wanted in zip(named, rates, strict=True):
        assert wanted is None or rate == pytest.approx(wanted)
    assert found.encode.max_length == length
    assert found.encode.anyres_max_tiles == tiles
    assert bool(found.encode.plain) == (stage == "1")
    assert (settings.warmup_ratio, settings.lr_scheduler_type, settings.weight_decay) == (0.03, "cosine", 0.0)


def test_the_grids_of_a_stage():
    assert resolved(stage="1").tuning.pinpoints == ()
    five = resolved(stage="1.5").tuning.pinpoints
    assert sorted(five or ()) == [(384, 768), (384, 1152), (768, 384), (768, 768), (1152, 384)]
    assert resolved(stage="2-ov").tuning.pinpoints == SIX_BY_SIX


def test_what_is_given_wins_and_keeps_the_proportions():
    found = resolved(
        EncodeOptions(max_length=100, anyres_grids="(1x1),(2x2)", placement="front"),
        stage="1.5",
        recipe="interleave",
        learning_rate=5e-5,
        freeze=("vision",),
    )
    settings = found.settings
    assert (settings.learning_rate, settings.freeze) == (5e-5, ("vision",))
    assert settings.vision_lr == pytest.approx(1e-5)
    assert settings.projector_lr == 5e-5
    assert (found.encode.max_length, found.encode.placement) == (100, "front")
    assert found.tuning.pinpoints == ((384, 384), (768, 768))
    origins = {name: origin for name, _, origin in found.rows}
    assert origins["learning_rate"] == origins["placement"] == origins["model_max_length"] == "given"
    assert "Interleave" in origins["pool_stride"]
    assert resolved(stage="2-si", freeze=()).settings.freeze == ()
    assert resolved(stage="1", freeze=()).settings.freeze == ()
    assert resolved(stage="2-si", vision_lr=0.0).settings.vision_lr == 0.0


@pytest.mark.parametrize(
    ("recipe", "frames", "stride", "mode", "newline", "placement"),
    [
        ("onevision", 32, 2, "bilinear", "one_token", "in-place"),
        ("next-video", 32, 2, "average", "no_token", "in-place"),
        ("interleave", 16, 1, "bilinear", "no_token", "mixed"),
    ],
)
def test_a_recipe_reads_clips_as_its_system_does(recipe, frames, stride, mode, newline, placement):
    found = resolved(recipe=recipe)
    assert found.encode.request == SamplingRequest(num_frames=frames)
    assert (found.encode.pool_stride, found.encode.pool_mode) == (stride, mode)
    assert (found.encode.newline_mode, found.encode.placement) == (newline, placement)
    assert found.settings.stage == "2-ov"
    assert found.settings.mix == "in-batch"
    tuned = found.tuning.applied(ONEVISION).preset
    assert (tuned.num_frames, tuned.pool_stride, tuned.newline_mode) == (frames, stride, newline)
    assert tuned.template == "chatml", "the language model's own"


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [(0.5e9, 2e-5), (7e9, 2e-5), (14e9, 2e-5), (32e9, 1e-5), (110e9, 1e-5)],
)
def test_the_rate_falls_with_the_size_of_the_language_model(parameters: float, rate: float):
    found = recipes.stage_figures("ablations", "2-si", llm_parameters=int(parameters))
    assert found.learning_rate == rate
    assert found.learning_rate * found.vision_share == pytest.approx(2e-6)


def test_the_size_of_a_language_model_is_read_from_its_configuration(checkpoint: Path):
    backbone = load_backbone(str(checkpoint), device="cpu")
    true = sum(p.numel() for p in backbone.hf.model.language_model.parameters())
    assert llm_parameters(read_settings(checkpoint, "tiny")) == pytest.approx(true, rel=0.02)


def test_without_stage_and_recipe_nothing_is_changed():
    found = resolved()
    settings = found.settings
    assert (settings.learning_rate, settings.freeze) == (1e-5, ())
    assert settings.vision_lr == pytest.approx(2e-6)
    assert found.tuning.applied(ONEVISION) == ONEVISION
    assert found.encode == EncodeOptions(max_length=32768)


def test_a_resolved_run_resolves_to_itself():
    for options in (
        {"stage": "1"},
        {"recipe": "interleave"},
        {"lora": True},
        {"stage": "2-ov", "lora": True},
    ):
        first = resolved(**options)
        again = resolve(first.settings, first.encode, ONEVISION)
        assert (again.settings, again.encode) == (first.settings, first.encode)


def test_the_context_grows_with_the_rope_factor():
    assert resolved(rope_factor=2.0).encode.max_length == 65536
    assert resolved(rope_factor=2.0, stage="2-ov").encode.max_length == 32768
    small = replace(ONEVISION, trained_context=512)
    assert resolved(model=small, stage="2-ov").encode.max_length == 512


def test_lora_has_rates_and_modules_of_its_own():
    settings = resolved(lora=True).settings
    assert settings.freeze == ("vision", "llm")
    assert (settings.learning_rate, settings.projector_lr) == (2e-4, pytest.approx(2e-5))
    given = resolved(lora=True, learning_rate=1e-4, freeze=("projector",)).settings
    assert given.freeze == ("projector", "llm")
    assert (given.learning_rate, given.projector_lr) == (1e-4, pytest.approx(1e-5))


@pytest.mark.parametrize(
    ("encode", "options", "message"),
    [
        ({"anyres_grids": "6x6"}, {}, "AnyRes grids '6x6'"),
        ({"anyres_max_tiles": 0}, {}, "--anyres-max-tiles: must be at least 1"),
        ({"pool_mode": "max"}, {"pool_first": True}, "--pool-first: does not go with --pool-mode max"),
        ({"labels": "upstream"}, {"stage": "1"}, "--upstream-labels: are those of a chat"),
    ],
)
def test_what_does_not_go_together_is_one_line(encode, options, message):
    with pytest.raises(UsageError) as caught:
        resolved(EncodeOptions(**encode), **options)
    assert str(caught.value).startswith(message)


def test_stage_1_learns_the_projector_from_captions_and_leaves_the_grids(run: Run, tmp_path: Path):
    class Captions(World):
        def sample(self, index: int):
            sample = super().sample(index)
            return replace(sample, turns=sample.turns[:2])

    _, heard = run(tmp_path, world=Captions(("picture", "video"), 6), stage="1", max_steps=2)
    learning = {row["module"]: row["trainable"] for row in heard.modules}
    assert learning["vision"] == learning["llm"] == 0 < learning["projector"]
    assert metrics(tmp_path)[0]["loss"] > 0
    saved = read_settings(tmp_path, "saved")
    assert [list(pair) for pair in saved.pinpoints] == PINPOINTS
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["freeze"] == ["vision", "llm"]


def test_a_recipe_goes_through_training_into_the_folder(run: Run, tmp_path: Path):
    _, heard = run(tmp_path, recipe="next-video", max_steps=2, rope_factor=2.0)
    saved = read_settings(tmp_path, "saved")
    preset = saved.preset
    assert (preset.name, preset.pool_mode, preset.newline_mode) == ("nano", "average", "no_token")
    assert (preset.num_frames, saved.trained_context, saved.least_factor) == (32, 512, 2.0)
    assert len(saved.pinpoints) == 5
    assert isinstance(heard, Heard)
    assert ("recipe", "next-video", "given") in heard.resolved_rows


def test_a_run_with_a_rope_factor_goes_on_bit_for_bit(run: Run, tmp_path: Path):
    options: dict[str, Any] = {"max_steps": 4, "save_steps": 2, "rope_factor": 1.5}
    run(tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept" / "checkpoint-4")
    run(tmp_path / "kept", resume="latest", **options)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "kept")]
    assert files[0] == files[1]
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("whole", "kept")]
    assert configs[0]["text_config"]["rope_parameters"]["factor"] == 1.5
    assert configs[0] == configs[1]
