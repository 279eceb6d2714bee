"""Every family is trained: what learns, at which rates, saved as transformers reads it, and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from tests.models.checkpoints import PUBLISHED, hf_checkpoint, original_checkpoint
from tests.models.test_convert import without_placeholders, without_spare_rows
from tests.training.conftest import Run, weights
from vidllava.backbone.load import load_backbone
from vidllava.backbone.settings import read_settings
from vidllava.data.mixing import Mix
from vidllava.errors import ModelError

FAMILIES = ("next-video-7b", "next-video-7b-32k", "next-vicuna-7b", "interleave-0.5b", "onevision-7b")
LONG = {"max_steps": 2, "save_steps": 1}


def opened(folder: Path) -> object:
    """Plain transformers' view of what a run left. No weight missing, none left over."""
    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    model, told = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert {kind: list(keys) for kind, keys in told.items() if keys} == {}
    return model


def ready(name: str, folder: Path) -> str:
    """A checkpoint whose context holds the samples of the tests."""
    hf_checkpoint(name, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 2048
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_and_clips_are_learned_saved_and_resumed(name: str, run: Run, tmp_path: Path):
    model = ready(name, tmp_path / "model")
    _, heard = run(tmp_path / "whole", model=model, **LONG)
    rates = {row["module"]: row["learning_rate"] for row in heard.modules}
    assert rates == {"vision": pytest.approx(2e-4), "projector": 1e-3, "llm": 1e-3}
    assert all(row["trainable"] for row in heard.modules)
    run(tmp_path / "parts", model=model, **(LONG | {"max_steps": 1}))
    run(tmp_path / "parts", model=model, resume="latest", **LONG)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    opened(tmp_path / "whole")
    before, after = read_settings(Path(model), "before"), read_settings(tmp_path / "whole", "after")
    assert (before.family, before.preset.name) == (after.family, after.preset.name)
    assert before.template == after.template
    assert before.least_factor == after.least_factor


@pytest.mark.parametrize("mix", get_args(Mix))
def test_every_mix_trains_what_pools_before_the_projector(mix: Mix, run: Run, tmp_path: Path):
    model = ready("next-video-7b", tmp_path / "model")
    end, heard = run(tmp_path / "out", model=model, mix=mix, max_steps=2)
    assert end.step == 2
    assert all(row["loss"] > 0 for row in heard.rows)


@pytest.mark.parametrize("name", ["next-video-7b", "interleave-0.5b"])
def test_an_adapter_reaches_every_linear_layer_of_its_language_model(name: str, run: Run, tmp_path: Path):
    model = ready(name, tmp_path / "model")
    run(tmp_path / "out", model=model, max_steps=1, lora=True, lora_rank=2, learning_rate=1e-2)
    backbone = load_backbone(model)
    layers = backbone.hf.model.language_model.layers
    linear = sum(isinstance(one, torch.nn.Linear) for one in layers.modules())
    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "adapter_model.safetensors", framework="pt") as file:
        added = [key for key in file.keys() if ".lora_A." in key]  # noqa: SIM118  no mapping
    assert len(added) == linear == 7 * len(layers)
    merged = load_backbone(str(tmp_path / "out"))
    assert not torch.equal(
        merged.hf.model.language_model.layers[0].mlp.up_proj.weight, layers[0].mlp.up_proj.weight
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_that_sharding_wraps_are_in_the_model(name: str, tmp_path: Path):
    backbone = load_backbone(str(hf_checkpoint(name, tmp_path)))
    names = {type(module).__name__ for module in backbone.hf.modules()}
    tower = (
        "SiglipEncoderLayer"
        if "siglip" in str(type(backbone.hf.model.vision_tower)).lower()
        else "CLIPEncoderLayer"
    )
    assert set(backbone.wrap_classes) <= names
    assert tower in backbone.wrap_classes
    assert len(backbone.wrap_classes) == 2


def test_next_videos_recipe_begins_from_next_and_saves_its_factor(run: Run, tmp_path: Path):
    """The stage of the blog: pictures' model, linear factor, clips pooled before the projector."""
    model = ready("next-vicuna-7b", tmp_path / "model")
    _, heard = run(tmp_path / "out", model=model, recipe="next-video", stage="2-ov", **LONG)
    rows = {name: (value, origin) for name, value, origin in heard.resolved_rows}
    assert rows["rope_factor"] == ("2", "LLaVA-NeXT-Video, 34B at 8192 tokens")
    saved = read_settings(tmp_path / "out", "saved")
    assert (saved.family, saved.preset.name, saved.preset.pool_at) == ("next-video", "next-video", "tower")
    assert (saved.trained_context, saved.least_factor) == (2048, 2.0)
    theirs = opened(tmp_path / "out")
    assert type(theirs).__name__ == "LlavaNextVideoForConditionalGeneration"
    assert theirs.config.text_config.rope_parameters["factor"] == 2.0  # type: ignore[attr-defined]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids("<video>") == theirs.config.video_token_id  # type: ignore[attr-defined]
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what happens?"}]}
    shown = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert shown == "USER: <video>\nwhat happens? ASSISTANT:"
    run(
        tmp_path / "out",
        model=model,
        recipe="next-video",
        stage="2-ov",
        resume="latest",
        **(LONG | {"max_steps": 3}),
    )


def test_next_videos_recipe_gives_each_placeholder_of_lmms_labs_vicuna_an_id(run: Run, tmp_path: Path):
    model = original_checkpoint("next-vicuna-7b", tmp_path / "model")
    without_placeholders(model)
    without_spare_rows(model)
    run(tmp_path / "out", model=str(model), recipe="next-video", rope_factor=8.0, max_steps=1)
    theirs, tokenizer = opened(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    assert ids == [theirs.config.image_token_id, theirs.config.video_token_id]  # type: ignore[attr-defined]
    assert ids[0] != ids[1]
    load_backbone(str(tmp_path / "out"))


def test_a_factor_that_is_given_takes_the_place_of_the_recipes(run: Run, tmp_path: Path):
    model = ready("next-vicuna-7b", tmp_path / "model")
    run(tmp_path / "out", model=model, recipe="next-video", rope_factor=3.0, max_steps=1)
    assert read_settings(tmp_path / "out", "saved").least_factor == 3.0


def test_what_is_trained_from_lmms_labs_layout_is_saved_in_transformers(run: Run, tmp_path: Path):
    model = original_checkpoint("onevision-7b", tmp_path / "model")
    run(tmp_path / "out", model=str(model), max_steps=1)
    opened(tmp_path / "out")
    before, after = read_settings(model, "model").template, read_settings(tmp_path / "out", "out").template
    assert replace(after, name=before.name) == before, "or a resumed run would read other prompts"
    load_backbone(str(tmp_path / "out"))
    assert PUBLISHED["onevision-7b"].hf_class.__name__ in (tmp_path / "out" / "config.json").read_text()


def test_a_checkpoint_becomes_one_of_another_family_only_where_its_weights_do(tmp_path: Path):
    folder = hf_checkpoint("onevision-7b", tmp_path)
    with pytest.raises(ModelError, match="cannot be made a checkpoint of next-video"):
        load_backbone(str(folder), family="next-video")
