"""``models verify`` passes what is whole, and names each thing that differs from what was published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.models.checkpoints import PUBLISHED, hf_checkpoint, image_processor, original_checkpoint
from vidllava.backbone import settings
from vidllava.backbone import verify as verifying
from vidllava.backbone.load import config_object, load_backbone
from vidllava.backbone.published import Slice
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.backbone.verify import Check, verify
from vidllava.errors import UsageError
from vidllava.models import named_models
from vidllava.visuals.planner import VisualPlanner


def wrong(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.holds is False]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("layout", ["hf", "original"])
def test_what_is_whole_holds(name: str, layout: str, tmp_path: Path):
    folder = (hf_checkpoint if layout == "hf" else original_checkpoint)(name, tmp_path)
    checks = verify(str(folder))
    assert wrong(checks) == []
    assert sum(check.holds is True for check in checks) >= 4


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def test_a_tensor_that_is_missing_or_odd_is_named(tmp_path: Path):
    folder = hf_checkpoint("next-video-7b", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["language_model.model.layers.7.mlp.up_proj.weight"] = torch.zeros(96, 64)
    del weights["image_newline"]
    save_file(weights, folder / "model.safetensors")
    named = {check.name: check.found for check in verify(str(folder)) if check.holds is False}
    assert named.keys() == {"tensors", "missing tensor", "unexpected tensor"}
    assert named["missing tensor"] == "model.image_newline"
    assert named["unexpected tensor"] == "model.language_model.layers.7.mlp.up_proj.weight"


def test_a_missing_file_and_a_template_that_is_not_followed_are_named(tmp_path: Path):
    folder = hf_checkpoint("next-video-7b", tmp_path)
    (folder / "generation_config.json").unlink()
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "{{ 1/0 }}USER:", encoding="utf-8")
    assert wrong(verify(str(folder))) == ["file", "chat template"]


def test_a_published_model_is_held_against_its_published_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The tiny one under the name of the large: tensors, positions, pixels all differ."""
    folder = hf_checkpoint("next-video-7b", tmp_path)
    monkeypatch.setattr(verifying, "find_folder", lambda name: folder)
    for name in ("next-video-7b", "llava-hf/LLaVA-NeXT-Video-7B-hf"):
        named = {*wrong(verify(name))}
        assert {"tensors", "shapes that differ", "trained positions", "frames become"} <= named
        assert {"ids of a prompt", "id of <image>", "text_config.num_attention_heads"} <= named
        right = {"stored RoPE factor", "mean of pixels", "pooling", "text_config.rope_theta"}
        right |= {"vision_feature_layer", "ids before a text", "id that ends an answer"}
        assert not right & named


@pytest.mark.parametrize(
    ("at", "key", "value", "check"),
    [
        ("text_config", "num_attention_heads", 8, "text_config.num_attention_heads"),
        ("text_config", "rms_norm_eps", 1e-3, "text_config.rms_norm_eps"),
        ("vision_config", "num_attention_heads", 4, "vision_config.num_attention_heads"),
        ("", "vision_feature_layer", -1, "vision_feature_layer"),
        (
            "text_config",
            "rope_parameters",
            {"rope_type": "default", "rope_theta": 5e5},
            "text_config.rope_theta",
        ),
        (
            "text_config",
            "rope_parameters",
            {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
            "stored RoPE factor",
        ),
        ("text_config", "max_position_embeddings", 512, "text_config.max_position_embeddings"),
    ],
)
def test_what_leaves_no_trace_in_a_shape_is_compared(
    at: str, key: str, value: object, check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A tiny model that was published, and one whose configuration says something else."""
    folder = publish("next-video-7b", hf_checkpoint("next-video-7b", tmp_path), monkeypatch)
    odd = {"trained positions", "ids of a prompt", "id of <image>", "id of <video>"}  # the tiny tokenizer's
    assert {*wrong(verify("next-video-7b"))} <= odd
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (content[at] if at else content)[key] = value
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert check in wrong(verify("next-video-7b"))


def publish(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the model in ``folder`` the published one of this name."""
    model = replace(named_models()[name], config=config_object(folder).to_dict())
    for module in (verifying, settings):
        monkeypatch.setattr(module, "named_models", lambda: {**named_models(), name: model})
    monkeypatch.setattr(verifying, "find_folder", lambda asked: folder)
    monkeypatch.setattr(verifying, "load_backbone", lambda asked, **how: load_backbone(str(folder), **how))
    return folder


def test_embeddings_of_an_original_need_no_rows_for_placeholders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """lmms-lab/LLaVA-Video-7B-Qwen2 has 152064, its form in transformers' layout 152128."""
    folder = publish("llava-video-7b", original_checkpoint("llava-video-7b", tmp_path), monkeypatch)
    weights = load_file(folder / "model.safetensors")
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[key] = weights[key][:300].contiguous()
    save_file(weights, folder / "model.safetensors")
    edit(folder / "config.json", vocab_size=300)
    named = {check.name: check for check in verify("llava-video-7b")}
    assert named["tensors"].holds
    assert named["shapes that differ"].holds
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:290].contiguous()
    save_file(weights, folder / "model.safetensors")
    faults = [check.found for check in verify("llava-video-7b") if check.name == "tensors"]
    assert "the embeddings (290, 64)" in faults[0]


def test_what_cannot_be_read_is_a_check_that_fails_and_the_others_are_made(tmp_path: Path):
    folder = hf_checkpoint("onevision-7b", tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    checks = verify(str(folder))
    assert {*wrong(checks)} == {"weights files", "configuration", "tensors"}
    assert "is torn" in next(check.found for check in checks if check.name == "weights files")
    assert any(check.name == "id of <image>" and check.holds for check in checks)


@pytest.mark.parametrize(
    ("file", "text", "check"),
    [
        ("config.json", "{", "configuration"),
        ("tokenizer.json", "{}", "tokenizer"),
        ("preprocessor_config.json", "{}", "prompt"),
        ("chat_template.jinja", "{{ messages[0]['role'] }}", "prompt"),
    ],
)
def test_damaged_files_are_named(file: str, text: str, check: str, tmp_path: Path):
    folder = hf_checkpoint("onevision-7b", tmp_path)
    (folder / file).write_text(text, encoding="utf-8")
    checks = verify(str(folder))
    assert check in wrong(checks)
    assert all("\n" not in one.found for one in checks)


def test_ids_of_the_placeholders_are_those_of_the_tokenizer(tmp_path: Path):
    folder = hf_checkpoint("next-video-7b", tmp_path)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    key = next(key for key in ("image_token_index", "image_token_id") if key in content)
    edit(folder / "config.json", **{key: content[key] - 1})
    assert {"id of <image>", "configuration"} <= {*wrong(verify(str(folder)))}


def logits_of(name: str, folder: Path, ids: list[int], **inputs: torch.Tensor) -> Slice:
    """Of transformers' own class, at the first three rows."""
    model = PUBLISHED[name].hf_class.from_pretrained(folder).eval()
    with torch.inference_mode():
        rows = model(input_ids=torch.tensor([ids]), **inputs).logits[0, :3, :3].tolist()
    return tuple((row[0], row[1], row[2]) for row in rows)


def held(name: str, **more: object) -> dict[str, Check]:
    return {check.name: check for check in verify(name, logits=True, **more)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("onevision-7b", "<|im_start|>system\nYou are a helpful assistant."),
        ("next-vicuna-7b", "A chat between a curious human"),
        ("next-mistral-7b", "[INST] "),
    ],
)
def test_the_first_logits_are_those_of_the_published_prompt(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = publish(name, hf_checkpoint(name, tmp_path), monkeypatch)
    ids = AutoTokenizer.from_pretrained(folder)(text).input_ids
    expected = logits_of(name, folder, ids)
    for table in (verifying.PLACEHOLDERS, verifying.ENDS, verifying.FUNNY_IDS):
        monkeypatch.delitem(table, name, raising=False)  # the large vocabulary's
    monkeypatch.setattr(verifying, "named_settings", lambda asked: read_settings(folder, asked))
    monkeypatch.setitem(verifying.SLICES, name, expected)
    checks = held(name)
    assert {check.name for check in checks.values() if check.holds is False} == set()
    assert [checks[f"logits of row {number}"].holds for number in range(3)] == [True] * 3
    off = tuple(tuple(value + (0.1 if at == 1 else 0) for value in row) for at, row in enumerate(expected))
    monkeypatch.setitem(verifying.SLICES, name, off)
    checks = held(name)
    assert [checks[f"logits of row {number}"].holds for number in range(3)] == [True, False, True]
    assert "off by 0.1" in checks["logits of row 1"].found
    # What is known to differ is not loaded.
    edit(folder / "generation_config.json", eos_token_id=10**6)
    assert "not compared" in held(name)["first logits"].found


def test_a_pictures_first_row_is_compared_where_there_is_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Against transformers' class, with pixels of the processor's own."""
    name = "onevision-0.5b"
    folder = publish(name, hf_checkpoint(name, tmp_path / "model"), monkeypatch)
    for table in (verifying.PLACEHOLDERS, verifying.ENDS):
        monkeypatch.delitem(table, name)
    monkeypatch.setattr(verifying, "named_settings", lambda asked: read_settings(folder, asked))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    size = verifying.PICTURE_SIZE
    picture = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "radar.png")
    model, tokenizer = load_backbone(str(folder)), AutoTokenizer.from_pretrained(folder)
    rows = VisualPlanner.of(model.settings).picture(*size).num_tokens
    before, after = (tokenizer(text).input_ids for text in ("u", "\nWhat do you see in this image?"))
    ids = [*before, *[model.hf.config.image_token_id] * rows, *after]
    values = image_processor(folder)(picture, return_tensors="pt")
    expected = logits_of(name, folder, ids, **values)
    monkeypatch.setitem(
        verifying.SLICES, name, logits_of(name, folder, tokenizer("<|im_start|>sy").input_ids)
    )
    monkeypatch.setitem(verifying.PICTURE_SLICES, name, expected)
    # The toy vocabulary has a token a letter: the picture's first row is the third again.
    monkeypatch.setattr(verifying, "AROUND_PICTURE", (("u",), verifying.AROUND_PICTURE[1]))
    monkeypatch.setattr(verifying, "TOLERANCES", {"float32": 0.2})  # their resizing is Pillow's, ours torch's
    words = read_codec(folder)
    tail = len(words.encode("\nWhat do you see in this image?\nassistant\n")) + 2
    monkeypatch.setattr(verifying, "PICTURE_IDS", 1 + rows + tail)
    checks = held(name, picture=tmp_path / "radar.png")
    assert {one.name for one in checks.values() if one.holds is False} == set()
    assert [checks[f"logits with a picture, row {number}"].holds for number in range(3)] == [True] * 3
    assert checks["ids with the picture"].holds
    moved = (expected[0], (expected[1][0] + 1, *expected[1][1:]), expected[2])
    monkeypatch.setitem(verifying.PICTURE_SLICES, name, moved)
    checks = held(name, picture=tmp_path / "radar.png")
    assert checks["logits with a picture, row 1"].holds is False
    Image.fromarray(pixels).save(tmp_path / "other.png")
    other = held(name, picture=tmp_path / "other.png")
    assert other["size of the picture"].found == "9 high, 12 wide"
    assert other["size of the picture"].holds is False
    assert "logits with a picture, row 0" not in other
    assert verifying.PICTURE_URL in held(name)["logits with a picture"].expected


def test_a_picture_is_for_what_was_published_with_one(tmp_path: Path):
    folder = hf_checkpoint("next-vicuna-7b", tmp_path)
    with pytest.raises(UsageError, match=r"onevision-0\.5b"):
        verify(str(folder), logits=True, picture=tmp_path / "radar.png")


def test_figures_belong_to_models_that_have_names():
    names = named_models().keys()
    for table in (verifying.SLICES, verifying.PICTURE_SLICES, verifying.FUNNY_IDS, verifying.PLACEHOLDERS):
        assert table.keys() <= names
    assert verifying.ENDS.keys() <= names
    assert verifying.OPENINGS.keys() <= verifying.SLICES.keys()
    slices = [*verifying.SLICES.values(), *verifying.PICTURE_SLICES.values()]
    assert all(len(rows) == 3 and all(len(row) == 3 for row in rows) for rows in slices)
    # The ids of the published prompt and of the placeholders are of one vocabulary.
    assert all(verifying.PLACEHOLDERS[name]["<video>"] in ids for name, ids in verifying.FUNNY_IDS.items())
