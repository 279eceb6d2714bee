"""A key names all that can change a feature, and an entry that is not whole is no entry."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import write_clip
from vidllava.backbone.feature_cache import Entry, FeatureCache, Key, pack, unpack
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.question import AskOptions, MediaItem, plan_media, visual_rules
from vidllava.cache_folder import CacheFolder

ENTRY = Entry(torch.randn(2, 8), (0, 1, 0), (0, 3, 5), (0.0, 0.1, 0.2), ("a note",))
KEY = Key('{"content": "ab"}', "clip.mp4", None)


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", num_frames=12)


def item_of(backbone: Backbone, path: Path, **options: object) -> MediaItem:
    asked = AskOptions(**options)  # type: ignore[arg-type]
    (item,) = plan_media([str(path)], visual_rules(backbone.settings, asked), asked)
    return item


def name_of(model: Path, path: Path, *, dtype: str = "float32", reuse: bool = True, **options: object) -> str:
    """The name of an entry as a process that starts now would call it."""
    backbone = load_backbone(str(model), dtype=dtype)
    key = FeatureCache(backbone, None).key(item_of(backbone, path, **options), reuse_frames=reuse)
    assert key is not None
    return key.name


def test_the_name_is_the_same_for_the_same_content_under_another_name(
    model: Path, clip: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other name.bin"
    shutil.copy(clip, other)
    assert name_of(model, clip) == name_of(model, clip) == name_of(model, other)


def test_what_does_not_reach_the_tower_does_not_change_the_name(model: Path, clip: Path) -> None:
    assert name_of(model, clip, pool_stride=4, rope_factor=2) == name_of(model, clip)


@pytest.mark.parametrize(
    "change",
    [{"num_frames": 4}, {"end_seconds": 0.2}, {"dtype": "bfloat16"}, {"reuse": False}],
    ids=lambda change: next(iter(change)),
)
def test_another_plan_or_type_is_another_name(model: Path, clip: Path, change: dict[str, object]) -> None:
    assert name_of(model, clip, **change) != name_of(model, clip)  # type: ignore[arg-type]


def rewrite(model: Path, clip: Path) -> None:
    write_clip(clip, num_frames=12, options={"crf": "30"})


def retrain(model: Path, clip: Path) -> None:
    """One byte in the middle: the size and the time of writing stay."""
    weights = model / "model.safetensors"
    status, data = weights.stat(), bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))


def reconfigure(model: Path, clip: Path) -> None:
    config = model / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def use_threads(model: Path, clip: Path) -> None:
    torch.set_num_threads(3)


@pytest.mark.parametrize("change", [rewrite, retrain, reconfigure, use_threads])
def test_another_content_or_model_is_another_name(
    model: Path, clip: Path, change: Callable[[Path, Path], None]
) -> None:
    threads = torch.get_num_threads()
    before = name_of(model, clip)
    try:
        change(model, clip)
        assert name_of(model, clip) != before
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("vidllava.__version__", "99.0"),
        ("vidllava.backbone.feature_cache.FORMAT", -1),
        ("vidllava.backbone.feature_cache.decoder_versions", lambda: {"av": "99.0"}),
        ("torch.backends.cpu.get_cpu_capability", lambda: "another"),
    ],
)
def test_another_program_or_machine_is_another_name(
    model: Path, clip: Path, where: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = name_of(model, clip)
    monkeypatch.setattr(where, value)
    assert name_of(model, clip) != before


def test_a_picture_is_named_by_its_pixels(model: Path, tmp_path: Path) -> None:
    pixels = np.full((40, 60, 3), 9, np.uint8)
    for name, values in (("a.png", pixels), ("b.bmp", pixels), ("c.png", pixels.reshape(60, 40, 3))):
        Image.fromarray(values).save(tmp_path / name)
    names = [name_of(model, tmp_path / name) for name in ("a.png", "b.bmp", "c.png")]
    assert names[0] == names[1] != names[2]


def test_a_file_that_changed_while_it_was_decoded_is_not_kept(
    model: Path, clip: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(model))
    cache = FeatureCache(backbone, CacheFolder(tmp_path / "cache"))
    key = cache.key(item_of(backbone, clip), reuse_frames=True)
    assert key is not None
    clip.write_bytes(clip.read_bytes() + b"more")
    cache.keep(key, ENTRY)
    cache.flush()
    assert cache.find(key) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_entry_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    entry = replace(ENTRY, features=ENTRY.features.to(dtype))
    back = unpack(pack(entry, KEY), KEY)
    assert back is not None
    assert torch.equal(back.features, entry.features)
    for name in ("source", "indices", "timestamps_seconds", "notes"):
        assert getattr(back, name) == getattr(entry, name)


DATA = pack(ENTRY, KEY)


@pytest.mark.parametrize(
    "damaged",
    [b"", DATA[:7], DATA[:100], DATA[:-1], DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA + b"x", b"\xff" * 400],
    ids=["empty", "cut in its length", "cut in its header", "cut", "one bit", "longer", "noise"],
)
def test_a_damaged_entry_is_a_miss(damaged: bytes) -> None:
    assert unpack(damaged, KEY) is None


def test_every_flipped_byte_is_a_miss_or_changes_nothing() -> None:
    for place in range(0, len(DATA), 7):
        data = bytearray(DATA)
        data[place] ^= 0x10
        found = unpack(bytes(data), KEY)
        if found is not None:
            assert torch.equal(found.features, ENTRY.features)
            assert (found.source, found.indices) == (ENTRY.source, ENTRY.indices)


def test_another_keys_entry_is_a_miss() -> None:
    assert unpack(DATA, Key('{"content": "cd"}', "clip.mp4", None)) is None


def test_memory_holds_what_was_used_last(checkpoint: Path) -> None:
    backbone = load_backbone(str(checkpoint))
    cache = FeatureCache(backbone, None, memory_bytes=2 * ENTRY.features.nbytes)
    keys = [Key(f'"{name}"', "", None) for name in "abc"]
    cache.keep(keys[0], ENTRY)
    cache.keep(keys[1], ENTRY)
    assert cache.find(keys[0]) is not None
    cache.keep(keys[2], ENTRY)
    assert [cache.find(key) is not None for key in keys] == [True, False, True]


def test_a_full_disk_is_a_note_and_no_more(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: CacheFolder, name: str, data: bytes) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CacheFolder, "write", full)
    cache = FeatureCache(load_backbone(str(checkpoint)), CacheFolder(tmp_path))
    for name in "ab":
        cache.keep(Key(name, "", None), ENTRY)
    cache.flush()
    (note,) = cache.take_notes()
    assert "No space left on device" in note
    assert cache.take_notes() == ()
    assert cache.find(Key("a", "", None)) is not None
