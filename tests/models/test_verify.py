"""``models verify`` passes what is whole, and names each thing that differs from what was published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoints import PUBLISHED, hf_checkpoint, original_checkpoint
from vidllava.backbone import verify as verifying
from vidllava.backbone.load import load_backbone
from vidllava.backbone.verify import Check, verify
from vidllava.models import named_models


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
    monkeypatch.setattr(verifying, "locate", lambda name: (name, folder))
    named = wrong(verify("next-video-7b"))
    assert {"tensors", "shapes that differ", "trained positions", "frames become", "ids of a prompt"} <= {
        *named
    }
    assert "stored RoPE factor" not in named
    assert "mean of pixels" not in named
    assert "pooling" not in named


def test_the_first_logits_are_those_of_the_published_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = hf_checkpoint("onevision-7b", tmp_path)
    monkeypatch.setattr(verifying, "locate", lambda name: (name, folder))
    monkeypatch.setattr(verifying, "load_backbone", lambda name, **how: load_backbone(str(folder)))
    model = PUBLISHED["onevision-7b"].hf_class.from_pretrained(folder).eval()
    tokenizer = verifying.read_codec(folder)
    ids = [tokenizer.special("<|im_start|>"), *tokenizer.encode("system\n")][:3]
    with torch.inference_mode():
        rows = model(input_ids=torch.tensor([ids])).logits[0, :3, :3].tolist()
    expected = tuple(tuple(row) for row in rows)
    monkeypatch.setitem(verifying.SLICES, "onevision-7b", expected)
    checks = {check.name: check for check in verify("onevision-7b", logits=True)}
    assert [checks[f"logits of row {number}"].holds for number in range(3)] == [True] * 3
    off = tuple(tuple(value + (0.1 if at == 1 else 0) for value in row) for at, row in enumerate(expected))
    monkeypatch.setitem(verifying.SLICES, "onevision-7b", off)
    checks = {check.name: check for check in verify("onevision-7b", logits=True)}
    assert [checks[f"logits of row {number}"].holds for number in range(3)] == [True, False, True]
    assert "off by 0.1" in checks["logits of row 1"].found


def test_slices_belong_to_models_that_have_names():
    assert verifying.SLICES.keys() <= named_models().keys()
    assert verifying.FUNNY_IDS.keys() <= named_models().keys()
    assert all(len(rows) == 3 and all(len(row) == 3 for row in rows) for rows in verifying.SLICES.values())
