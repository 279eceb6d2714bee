"""The tiny checkpoints are what is published: transformers' own classes open every layout without rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.models.checkpoints import PUBLISHED, hf_checkpoint, original_checkpoint

# From lmms-lab's names to those that transformers 5 has in memory.
FROM_ORIGINAL = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.vision_model.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.(layers|embed_tokens|norm)\b": r"model.language_model.\1",
}


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(name: str, folder: Path, **how: object) -> dict[str, torch.Tensor]:
    hf, told = PUBLISHED[name].hf_class.from_pretrained(folder, output_loading_info=True, **how)
    assert {kind: list(keys) for kind, keys in told.items() if keys} == {}
    return dict(hf.state_dict())


def test_the_names_of_transformers_4_hold_the_same_weights(name: str, tmp_path: Path):
    today = opened(name, hf_checkpoint(name, tmp_path / "today"))
    before = opened(name, hf_checkpoint(name, tmp_path / "before", legacy_keys=True))
    assert today.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in today.items())


def test_lmms_labs_names_hold_the_same_weights(name: str, tmp_path: Path):
    if PUBLISHED[name].family == "interleave":
        pytest.skip("its file holds a newline that its class has not")
    today = opened(name, hf_checkpoint(name, tmp_path / "hf"))
    folder = original_checkpoint(name, tmp_path / "original")
    own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert own["model_type"].startswith("llava")
    assert own["mm_vision_tower"]
    theirs = (tmp_path / "hf" / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(theirs, encoding="utf-8")
    sample = next(key for key in today if "vision_tower" in key)
    tower = "model.vision_tower.vision_model." if ".vision_model." in sample else "model.vision_tower."
    mapping = {key: tower if "vision_tower" in key else value for key, value in FROM_ORIGINAL.items()}
    found = opened(name, folder, key_mapping=mapping)
    assert all(torch.equal(value, found[key]) for key, value in today.items())


def test_a_llama_tokenizer_puts_its_control_tokens_where_the_hub_has_them(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(hf_checkpoint("next-video-7b", tmp_path / "hf"))
    ids = tokenizer("USER: <video>\nwhat happens? ASSISTANT:").input_ids
    assert ids[0] == tokenizer.bos_token_id == 1
    assert ids.count(tokenizer.convert_tokens_to_ids("<video>")) == 1
    assert tokenizer.decode(ids, skip_special_tokens=False).startswith("<s>")
