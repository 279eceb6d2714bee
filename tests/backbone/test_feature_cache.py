"""A key names all that can change a feature, and an entry that is not whole is not an entry."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.clips import write_clip
from tests.tiny import tiny_checkpoint
from vidllava.backbone.feature_cache import Entry, FeatureCache, Key, pack, unpack
from vidllava.backbone.load import load_backbone
from vidllava.backbone.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS, weights_files, weights_identity
from vidllava.backbone.model import Backbone
from vidllava.files.cache_folder import CacheFolder
from vidllava.prompting.template import Template
from vidllava.visuals.options import AskOptions
from vidllava.visuals.planner import ModelSettings
from vidllava.visuals.question import MediaItem, plan_media, visual_planner

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
    (item,) = plan_media([str(path)], visual_planner(backbone.settings, asked), asked)
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


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("seeing"), preset="nano")
    return load_backbone(str(folder))


@pytest.fixture(scope="module")
def planned(seeing: Backbone, tmp_path_factory: pytest.TempPathFactory) -> MediaItem:
    return item_of(seeing, write_clip(tmp_path_factory.mktemp("planned") / "a.mp4", num_frames=12))


def text_of(backbone: Backbone, item: MediaItem, *, reuse: bool = True) -> str:
    key = FeatureCache(backbone, None).key(item, reuse_frames=reuse)
    assert key is not None
    return key.text


def with_info(**changes: object) -> Callable[[MediaItem], MediaItem]:
    return lambda item: replace(item, info=replace(item.info, **changes))  # type: ignore[type-var, arg-type]


def other_indices(item: MediaItem) -> MediaItem:
    """Frames of other numbers and the same stamps, as in a clip that repeats them."""
    assert item.plan is not None
    assert item.info is not None
    ticks = np.zeros_like(item.info.frame_ticks)
    plan = replace(item.plan, indices=(*(index + 1 for index in item.plan.indices[:-1]), 11))
    return replace(item, plan=plan, info=replace(item.info, frame_ticks=ticks))


def same_stamps(item: MediaItem) -> MediaItem:
    return with_info(frame_ticks=np.zeros(12, np.int64))(item)


def other_times(item: MediaItem) -> MediaItem:
    assert item.plan is not None
    times = tuple(time + 0.001 for time in item.plan.timestamps_seconds)
    return replace(item, plan=replace(item.plan, timestamps_seconds=times))


def other_ticks(item: MediaItem) -> MediaItem:
    assert item.info is not None
    return with_info(frame_ticks=item.info.frame_ticks + 1)(item)  # type: ignore[operator]


OF_A_CLIP: dict[str, Callable[[MediaItem], MediaItem]] = {
    "timestamps": other_times,
    "ticks": other_ticks,
    "no ticks": with_info(frame_ticks=None),
    "time base": with_info(time_base=Fraction(1, 7)),
    "stream": with_info(stream_index=3),
    "width": with_info(width=1),
    "height": with_info(height=1),
    "rotation": with_info(rotation=90),
    "mirrored": with_info(mirrored=True),
    "backend": lambda item: replace(item, backend="another"),
    "kind": lambda item: replace(item, layout=replace(item.layout, kind="picture")),
}


@pytest.mark.parametrize("field", OF_A_CLIP)
def test_each_fact_about_a_clip_is_in_its_key(seeing: Backbone, planned: MediaItem, field: str) -> None:
    assert text_of(seeing, OF_A_CLIP[field](planned)) != text_of(seeing, planned)


def test_the_numbers_of_frames_are_in_a_key_where_their_stamps_are_the_same(
    seeing: Backbone, planned: MediaItem
) -> None:
    assert text_of(seeing, other_indices(planned)) != text_of(seeing, same_stamps(planned))


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_the_version_of_another_decoder_is_in_the_key(
    seeing: Backbone, planned: MediaItem, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, texts = replace(planned, backend=backend), []
    for version in ("1.0", "1.1"):
        monkeypatch.setattr("importlib.metadata.version", lambda _, version=version: version)
        texts.append(text_of(seeing, item))
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    "change", [{"pinpoints": ((70, 140),)}, {"kind": "pictures"}, {"picture": "other"}], ids=str
)
def test_each_fact_about_a_picture_is_in_its_key(
    seeing: Backbone, tmp_path: Path, change: dict[str, object]
) -> None:
    pixels = np.full((40, 60, 3), 9, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    item = item_of(seeing, tmp_path / "a.png")
    if "kind" in change:
        other = replace(item, layout=replace(item.layout, kind="pictures"))
    elif "picture" in change:
        pixels[20, 30, 1] = 10
        other = replace(item, picture=pixels)
    else:
        other = replace(item, **change)  # type: ignore[arg-type]
    assert text_of(seeing, other) != text_of(seeing, item)


def test_other_reuse_and_pooling_before_the_projector_are_other_keys(
    seeing: Backbone, planned: MediaItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = text_of(seeing, planned)
    assert text_of(seeing, planned, reuse=False) != before
    monkeypatch.setattr(seeing, "pool_first", True)
    assert text_of(seeing, planned) != before


def changed(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if value is None or value == ():
        return 2
    if isinstance(value, tuple):
        return (*value[:-1], changed(value[-1]))
    if isinstance(value, Template):
        return replace(value, answer_lead=" ")
    return replace(value, pool_stride=value.pool_stride + 1)  # type: ignore[type-var, attr-defined]


@pytest.mark.parametrize("name", [one.name for one in fields(ModelSettings) if one.name != "folder"])
def test_each_setting_of_the_model_is_in_the_key(
    seeing: Backbone, planned: MediaItem, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """image_mean, image_std, pinpoints and the others, whatever files they were read from."""
    before, settings = text_of(seeing, planned), seeing.settings
    monkeypatch.setattr(seeing, "settings", replace(settings, **{name: changed(getattr(settings, name))}))
    assert text_of(seeing, planned) != before


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("torch.__version__", "99.0"),
        ("transformers.__version__", "99.0"),
        ("vidllava.backbone.feature_cache._device_name", lambda _: "another"),
    ],
)
def test_each_library_and_device_is_in_the_key(
    seeing: Backbone, planned: MediaItem, where: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = text_of(seeing, planned)
    monkeypatch.setattr(where, value)
    assert text_of(seeing, planned) != before


def test_the_attention_is_in_the_key(
    seeing: Backbone, planned: MediaItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = text_of(seeing, planned)
    monkeypatch.setattr(seeing.hf.config.vision_config, "_attn_implementation", "eager", raising=False)
    assert text_of(seeing, planned) != before


def touch(path: Path) -> None:
    """One byte in the middle of weights, a line end in JSON; size of weights and time of writing stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    if path.suffix == ".safetensors":
        data[len(data) // 2] ^= 1
    else:
        data += b"\n"
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("place", ["adapter", "base"])
def test_an_adapter_is_known_by_its_files_and_those_of_its_base(tmp_path: Path, place: str) -> None:
    base = tiny_checkpoint(tmp_path / "base", preset="nano")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(base / name, adapter / name)
    (adapter / ADAPTER_CONFIG).write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(base)})
    )
    save_file({"a": torch.zeros(999)}, adapter / ADAPTER_WEIGHTS)
    shown = [path.name for path in weights_files(adapter) if path.parent == base]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(shown)
    folder = {"adapter": adapter, "base": base}[place]
    for path in [path for path in weights_files(adapter) if path.parent == folder]:
        before = weights_identity(adapter)
        touch(path)
        assert weights_identity(adapter) != before, path.name


def test_every_file_of_a_model_that_decides_an_answer_is_in_its_identity_and_its_place_is_not(
    model: Path, tmp_path: Path
) -> None:
    (model / "chat_template.jinja").write_text("{{ x }}", encoding="utf-8")
    for name in ("optimizer.safetensors", "trainer_state.json", "metrics.jsonl", "README.md"):
        before = weights_identity(model)
        (model / name).write_bytes(b"of a run")
        assert weights_identity(model) == before
    shutil.copytree(model, tmp_path / "elsewhere")
    assert weights_identity(tmp_path / "elsewhere") == weights_identity(model)
    seen = weights_files(model)
    wanted = {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "vidllava.json",
    }
    assert wanted | {"chat_template.jinja"} <= {path.name for path in seen}
    for path in seen:
        before = weights_identity(model)
        touch(path)
        assert weights_identity(model) != before, path.name
