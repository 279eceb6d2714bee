"""A wrong --model is told in one line, before torch and without a network."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vidllava.backbone.load import load_backbone
from vidllava.backbone.locate import check_folder, locate
from vidllava.backbone.settings import named_settings, read_settings
from vidllava.errors import ModelError, UsageError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def cache_model(checkpoint: Path, hub_id: str) -> Path:
    """Put a checkpoint where a download of the hub would have put it."""
    repository = Path(os.environ["HF_HUB_CACHE"]) / ("models--" + hub_id.replace("/", "--"))
    snapshot = repository / "snapshots" / "0123abcd"
    shutil.copytree(checkpoint, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    return snapshot


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--model: is empty"),
        ("./nowhere", "./nowhere: no such folder"),
        ("/no/such/folder", "/no/such/folder: no such folder"),
        ("nonesuch", "nonesuch: unknown model"),
        ("onevision-7b", r"onevision-7b: not on this machine \(get it with: vidllava models pull"),
        ("someone/model", "someone/model: not on this machine"),
    ],
)
def test_a_model_that_is_not_here_names_the_next_step(name: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        locate(name)


def test_auto_prefers_onevision_where_it_is_cached(checkpoint: Path) -> None:
    snapshot = cache_model(checkpoint, "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    assert locate("auto") == ("onevision-0.5b", snapshot)
    assert locate("llava-hf/llava-onevision-qwen2-0.5b-ov-hf")[1] == snapshot


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(text)


def garbage_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((16).to_bytes(8, "little") + b"\xff" * 16)


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def escaping_index(folder: Path) -> None:
    index = {"weight_map": {"x": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def missing_shard(folder: Path) -> None:
    index = {"weight_map": {"x": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "model.safetensors: is torn"),
        (pointer, "Git LFS pointer"),
        (garbage_header, "damaged safetensors header"),
        (pickle_only, "pytorch_model.bin is a pickle"),
        (escaping_index, "outside the folder"),
        (missing_shard, "no model-00002-of-00002.safetensors"),
        (broken_config, "config.json: not JSON"),
        (empty_weights, "is not a safetensors file"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    damage: Callable[[Path], None], message: str, copy: Path
) -> None:
    check_folder(copy)
    damage(copy)
    with pytest.raises(ModelError, match=message) as caught:
        check_folder(copy)
    assert "\n" not in str(caught.value)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "blip"}, "model_type 'blip' is of no family"),
        ("config.json", {"auto_map": {"AutoModel": "evil.py"}}, "remote code"),
        ("config.json", {"vision_config": {"auto_map": {}}}, "remote code"),
        ("config.json", {"image_grid_pinpoints": []}, "no image_grid_pinpoints"),
        ("config.json", {"vision_aspect_ratio": "pad"}, "not anyres_max_N"),
        ("config.json", {"text_config": {"rope_parameters": {"rope_type": "yarn"}}}, "'yarn'"),
        ("preprocessor_config.json", {"image_mean": None}, "image_mean and image_std"),
        ("vidllava.json", {"preset": "nonesuch"}, "preset 'nonesuch' is unknown"),
    ],
)
def test_settings_that_we_cannot_honour_are_refused(
    file: str, changes: dict[str, object], message: str, copy: Path
) -> None:
    read_settings(copy, "copy")
    edit(copy / file, **changes)
    with pytest.raises(ModelError, match=message):
        read_settings(copy, "copy")


def test_a_factor_trained_in_is_the_least(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    (copy / "config.json").write_text(json.dumps(config))
    settings = read_settings(copy, "copy")
    assert (settings.trained_context, settings.least_factor) == (512, 2.0)


def test_missing_weights_are_never_left_random(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = copy / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if "multi_modal_projector" in name)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing weights: .*multi_modal_projector"):
        load_backbone(str(copy))


def test_named_models_have_the_published_sizes() -> None:
    settings = named_settings("onevision-7b")
    assert (settings.side, settings.trained_context, len(settings.pinpoints)) == (27, 32768, 36)


def test_the_device_that_is_asked_for_is_the_one_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current device may be another one, and a compiler for the CPU is wanted beside a GPU too."""
    import torch

    from vidllava.backbone.load import check_compiler, choose_dtype

    capabilities = {0: (9, 0), 1: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("vidllava.backbone.load.shutil.which", lambda _: None)
    assert choose_dtype("auto", torch.device("cuda", 0))[0] == torch.bfloat16
    assert choose_dtype("auto", torch.device("cuda", 1))[0] == torch.float16
    check_compiler(torch.device("cuda", 0))
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler on a CPU"):
        check_compiler(torch.device("cpu"))
