"""Parts of a checkpoint that contradict each other are told when it is located: one line, both figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidllava.backbone.headers import read_tensors
from vidllava.backbone.load import load_weights
from vidllava.backbone.locate import locate
from vidllava.backbone.parts import plain_name
from vidllava.errors import ModelError


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    for key, value in changes.items():
        section, _, inner = key.partition("__")
        if inner:
            content[section][inner] = value
        else:
            content[section] = value
    path.write_text(json.dumps(content))


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        held = load_file(path)
        change(held)
        save_file({name: one.contiguous() for name, one in held.items()}, path, metadata={"format": "pt"})

    return apply


def reshaped(name: str, *shape: int) -> Callable[[Path], None]:
    def change(held: dict[str, torch.Tensor]) -> None:
        (found,) = [full for full in held if plain_name(full) == name]
        held[found] = torch.zeros(shape)

    return tensors(change)


def token(number: int, content: str = "<event>") -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        held = json.loads(path.read_text())
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        held["added_tokens"].append({"id": number, "content": content, **flags})
        path.write_text(json.dumps(held))

    return apply


def file(name: str, **content: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, **content)


def text(name: str, content: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(content)

    return apply


LAYER = "language_model.layers.1."
TOWER = "vision_tower.encoder.layers.2."
CONTRADICTIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a token beyond the embeddings": (token(264), r"the id 264 \('<event>'\), the embeddings have 264 rows"),
    "vocabulary": (config(text_config__vocab_size=265), r"is \[264, 48\], .* asks for \[265, 48\]"),
    "width": (config(text_config__hidden_size=52), r"is \[264, 48\], .* asks for \[264, 52\]"),
    "norm": (reshaped("language_model.norm.weight", 47), r"norm.weight is \[47\], .* asks for \[48\]"),
    "heads": (config(text_config__num_attention_heads=3), r"k_proj.weight is \[24, 48\], .* \[32, 48\]"),
    "q": (reshaped(f"{LAYER}self_attn.q_proj.weight", 47, 48), r"q_proj.weight is \[47, 48\]"),
    "kv heads": (config(text_config__num_key_value_heads=4), r"k_proj.weight is \[24, 48\], .* \[48, 48\]"),
    "v": (reshaped(f"{LAYER}self_attn.v_proj.weight", 24, 47), r"v_proj.weight is \[24, 47\]"),
    "o": (reshaped(f"{LAYER}self_attn.o_proj.weight", 48, 47), r"o_proj.weight is \[48, 47\]"),
    "inner": (config(text_config__intermediate_size=90), r"gate_proj.weight is \[96, 48\], .* \[90, 48\]"),
    "up": (reshaped(f"{LAYER}mlp.up_proj.weight", 95, 48), r"up_proj.weight is \[95, 48\]"),
    "down": (reshaped(f"{LAYER}mlp.down_proj.weight", 48, 95), r"down_proj.weight is \[48, 95\]"),
    "rank": (reshaped(f"{LAYER}mlp.down_proj.weight", 48 * 96), r"down_proj.weight is \[4608\]"),
    "patch": (config(vision_config__patch_size=7), r"patch_embedding.weight is .* asks for \[32, 3, 7, 7\]"),
    "colours": (
        config(vision_config__num_channels=1),
        r"patch_embedding.weight .* asks for \[32, 1, 14, 14\]",
    ),
    "image size": (
        config(vision_config__image_size=84),
        r"position_embedding.weight is \[25, 32\], .* asks for \[36, 32\]",
    ),
    "tower width": (reshaped(f"{TOWER}self_attn.k_proj.weight", 32, 31), r"k_proj.weight is \[32, 31\]"),
    "tower out": (reshaped(f"{TOWER}self_attn.out_proj.weight", 31, 32), r"out_proj.weight is \[31, 32\]"),
    "tower inner": (config(vision_config__intermediate_size=60), r"fc1.weight is \[64, 32\], .* \[60, 32\]"),
    "tower fc2": (reshaped(f"{TOWER}mlp.fc2.weight", 32, 63), r"fc2.weight is \[32, 63\]"),
    "projector": (
        reshaped("multi_modal_projector.linear_1.weight", 48, 64),
        r"linear_1.weight is \[48, 64\]",
    ),
    "projector out": (
        reshaped("multi_modal_projector.linear_2.weight", 40, 48),
        r"linear_2.weight is \[40, 48\]",
    ),
    "two layers taken": (
        config(vision_feature_layer=[-1, -2]),
        r"linear_1.weight is \[48, 32\], .* asks for \[48, 64\]",
    ),
    "newline": (reshaped("image_newline", 40), r"image_newline is \[40\], .* asks for \[48\]"),
    "layer too deep": (
        config(vision_feature_layer=4),
        "vision_feature_layer is 4, and the tower has 3 layers",
    ),
    "layer before the first": (config(vision_feature_layer=-5), "is -5, and the tower has 3 layers"),
    "layer in words": (config(vision_feature_layer="last"), "'last', not a layer's number"),
    "no layer": (config(vision_feature_layer=[]), "an empty list"),
    "image token": (config(image_token_index=5), "image_token_index is 5, and <image> is 3"),
    "video token": (config(video_token_index=5), "video_token_index is 5, and <video> is 4"),
    "eos": (file("generation_config.json", eos_token_id=264), "eos_token_id is 264, and the embeddings"),
    "one of two eos": (file("generation_config.json", eos_token_id=[2, 400]), "eos_token_id is 400"),
    "pad": (file("generation_config.json", pad_token_id=-1), "pad_token_id is -1"),
    "bos": (file("generation_config.json", bos_token_id="x"), 'bos_token_id is "x"'),
    "processor": (
        file("preprocessor_config.json", size={"height": 84, "width": 84}),
        "its pictures are 84 x 84, the tower's image_size is 70",
    ),
    "template": (
        text("chat_template.jinja", "{{ '[INST]' }}"),
        r"is left out.*not chatml.*no '<\|im_start\|>'",
    ),
    "template in the tokenizer's settings": (
        file("tokenizer_config.json", chat_template="USER: {{ x }}"),
        "tokenizer_config.json: cannot be followed .*is not chatml",
    ),
    "one of several templates": (
        file("chat_template.json", chat_template=[{"name": "default", "template": "[INST]"}]),
        "chat_template.json: cannot be followed .*is not chatml",
    ),
    "preset": (
        lambda folder: (
            file("vidllava.json", preset="next-video")(folder),
            text("chat_template.jinja", "<|im_start|>")(folder),
        ),
        "is not vicuna.*no 'USER:'",
    ),
    "an index that names another file": (
        file("model.safetensors.index.json", weight_map={"model.nothing.weight": "model.safetensors"}),
        "says that model.nothing.weight is in model.safetensors, which does not hold it",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_parts_that_contradict_each_other_are_told_when_the_model_is_located(name: str, copy: Path):
    damage, what = CONTRADICTIONS[name]
    locate(str(copy))
    damage(copy)
    with pytest.raises(ModelError, match=what) as caught:
        locate(str(copy))
    assert "\n" not in str(caught.value)


def old_names(held: dict[str, torch.Tensor]) -> None:
    for name in list(held):
        new = name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
        new = new.replace("lm_head", "language_model.lm_head")
        held[new.replace("vision_tower.", "vision_tower.vision_model.", 1)] = held.pop(name)


def shards(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, table = sorted(held), {}
    for part, chosen in enumerate((names[::2], names[1::2]), 1):
        path = f"model-{part}.safetensors"
        save_file({name: held[name] for name in chosen}, folder / path)
        table |= dict.fromkeys(chosen, path)
    edit(folder / "model.safetensors.index.json", weight_map=table)


AGREEING: dict[str, Callable[[Path], None]] = {
    "old names": tensors(old_names),
    "shards": shards,
    "the last token": token(263),
    "more rows than tokens": lambda folder: None,  # 264 rows for 261 tokens
    "the first layer": config(vision_feature_layer=-4),
    "the last layer": config(vision_feature_layer=3),
    "the last row ends an answer": file("generation_config.json", eos_token_id=[2, 263]),
    "the first row pads": file("generation_config.json", pad_token_id=0),
    "no size in the processor": file("preprocessor_config.json", size={"shortest_edge": 70}),
    "a template of its own": text("chat_template.jinja", "<|im_start|>user {{ x }}<|im_end|>"),
}


@pytest.mark.parametrize("name", AGREEING)
def test_what_agrees_is_taken(name: str, copy: Path):
    AGREEING[name](copy)
    assert locate(str(copy)) == (str(copy), copy)


def test_a_vocabulary_that_is_a_list_is_counted_too(copy: Path):
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = [[word, -1.0] for word in content["model"]["vocab"]] + [["more", -1.0]] * 4
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="the id 264"):
        locate(str(copy))


def test_headers_tell_shape_type_and_size(checkpoint: Path):
    found = read_tensors(checkpoint)
    held = load_file(checkpoint / "model.safetensors")
    assert found.keys() == held.keys()
    for name, tensor in held.items():
        assert found[name].shape == tuple(tensor.shape)
        assert (found[name].dtype, found[name].num_bytes) == ("F32", tensor.numel() * 4)


def test_what_only_the_loader_sees_names_both_shapes_too(copy: Path):
    reshaped(f"{LAYER}self_attn.k_proj.bias", 23)(copy)
    with pytest.raises(ModelError, match=r"k_proj.bias is \[23\], the configuration asks for \[24\]"):
        load_weights(copy, dtype=torch.float32)
