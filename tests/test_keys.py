"""Every resume key and every cache key changes with each of its fields, and with each byte of each file.

The features' keys have their own tests in ``tests/backbone/test_feature_cache.py``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiny import tiny_checkpoint
from vidllava.backbone.folders import nano_folder
from vidllava.backbone.locate import weights_files, weights_identity
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.bench.frames.measure import _IN_KEY, Sweep
from vidllava.bench.frames.request import Cell, FramesRequest
from vidllava.cli.asking import Weights
from vidllava.cli.batch import Row, settings_key
from vidllava.cli.bench_frames_run import _stamp
from vidllava.data import measure as text_lengths
from vidllava.data.measure import TextLengths
from vidllava.data.token_counter import EncodeOptions
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.judge import request_key
from vidllava.files.identity import content_hash, media_identity
from vidllava.media.timeline import SamplingRequest
from vidllava.training.job import Job, run_state
from vidllava.training.settings import FIXED, TrainingSettings
from vidllava.visuals.options import AskOptions, GenerateOptions

_LARGE = 400_000
"""Bytes of a file whose middle lies far from both ends."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("keys"), preset="nano")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(_LARGE))
    return path


def touch(path: Path) -> None:
    """One byte in the middle; the size and the time of writing stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def item_of(path: Path, **others: Any) -> EvalItem:
    about: dict[str, Any] = {"id": "1", "row": 1, "media": ("clip.mp4",), "paths": (str(path),)}
    about |= {"question": "what?", "prompt": "what?", "scoring": "exact"}
    return EvalItem(**about | others)


def row_of(path: Path, **others: Any) -> Row:
    about: dict[str, Any] = {"id": "1", "media": ("clip.mp4",), "paths": (str(path),), "question": "what?"}
    return Row(**about | {"own": ()} | others)


MEDIA: dict[str, Callable[[Path], object]] = {
    "media_identity": media_identity,
    "content_hash": lambda path: content_hash(str(path)),
    "eval and bench frames": lambda path: item_of(path).content_key,
    "eval, subtitles": lambda path: item_of(Path("none"), subtitles=str(path)).content_key,
    "ask --batch": lambda path: row_of(path).key,
    "a folder of frames": lambda path: media_identity(path.parent),
    "eval, a folder of frames": lambda path: item_of(path.parent).content_key,
}


@pytest.mark.parametrize("key", MEDIA.values(), ids=MEDIA.keys())
def test_one_byte_in_the_middle_of_a_medium_is_another_key(clip: Path, key: Callable[[Path], object]) -> None:
    before = key(clip)
    assert key(clip) == before
    touch(clip)
    assert key(clip) != before


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        for name in ("1.jpg", "2.jpg"):
            (folder / name).write_bytes(name.encode())
    assert media_identity(one) == media_identity(other)
    (other / "2.jpg").rename(other / "3.jpg")
    assert media_identity(one) != media_identity(other)


@pytest.mark.parametrize("name", ["missing", "fifo", "folder/below", "nul\0", "\ud800"])
def test_what_cannot_be_read_has_no_identity_and_blocks_nobody(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert media_identity(f"{tmp_path}/{name}") is None


def copied(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "copy"))


def stamped(folder: Path) -> object:
    return _stamp(SimpleNamespace(settings=read_settings(folder, "x")), "checkpoint")  # type: ignore[arg-type]


def of_settings(folder: Path) -> object:
    return settings_key(Weights(), AskOptions(), GenerateOptions(), folder)


@pytest.mark.parametrize("key", [weights_identity, of_settings, stamped])
def test_one_byte_of_a_model_is_another_key(
    model: Path, tmp_path: Path, key: Callable[[Path], object]
) -> None:
    folder = copied(model, tmp_path)
    assert key(folder) == key(model), "where it lies changes nothing"
    for path in weights_files(folder):
        before = key(folder)
        if path.suffix == ".safetensors":
            touch(path)
        else:
            path.write_bytes(path.read_bytes() + b"\n")
        assert key(folder) != before, path.name


ASKED: dict[str, object] = {
    **{"num_frames": 3, "fps": 2.0, "max_frames": 9, "sampling": "index", "keyframes": "nearest"},
    **{"start_seconds": 1.0, "end_seconds": 2.0, "frame_rate": 3.0, "video_backend": "pyav"},
    **{
        "preset": "onevision",
        "pool_stride": 4,
        "pool_mode": "max",
        "newline_mode": "grid",
        "rope_factor": 2.0,
    },
    **{"context_limit": 99, "time_instruction": True, "system": "be brief"},
}
CHOSEN: dict[str, object] = {"max_new_tokens": 3, "temperature": 0.5, "top_p": 0.5, "seed": 3}
LOADED: dict[str, object] = {
    **{"device": "cpu", "dtype": "bfloat16", "attn_implementation": "eager", "pool_first": True},
}
OTHERS: dict[str, object] = {"task": "mvbench", "blind": True, "reuse_frames": False}
BY_CONTENT = {"model", "revision", "download"}
"""Of the weights' options: they say where the files are, and the files are read."""


def test_the_tables_name_every_option() -> None:
    """A new option must be thought of here."""
    for table, kind, known in (
        (ASKED, AskOptions, set()),
        (CHOSEN, GenerateOptions, set()),
        (LOADED, Weights, BY_CONTENT),
    ):
        assert set(table) | known == {one.name for one in fields(kind)}


@pytest.mark.parametrize("name", [*ASKED, *CHOSEN, *LOADED, *OTHERS])
def test_each_option_is_in_the_key_of_answers(model: Path, name: str) -> None:
    usual = {"task": "own", "blind": False, "reuse_frames": True}

    def key(changed: str | None) -> str:
        def taken(table: dict[str, Any]) -> dict[str, Any]:
            return {changed: table[changed]} if changed in table else {}

        asked, chosen = AskOptions(**taken(ASKED)), GenerateOptions(**taken(CHOSEN))
        return settings_key(Weights(**taken(LOADED)), asked, chosen, model, **usual | taken(OTHERS))

    assert key(name) != key(None)


def test_a_run_of_eval_and_of_ask_name_how_frames_are_reused() -> None:
    folder = Path(__file__).parents[1] / "cli"
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in ("batch", "eval_run")}
    assert "reuse = not self.flags.seeing.no_reuse_frames" in sources["batch"]
    assert "reuse_frames=reuse, **others" in sources["batch"]
    assert "asker.batch(" in sources["eval_run"]  # the one place where a run's settings are named


ITEM: dict[str, Any] = {
    **{"id": "2", "media": ("b.mp4",), "question": "why?", "prompt": "why?", "scoring": "choice"},
    **{"options": ("a",), "answer": "x", "alternatives": ("y",), "groups": (("g", "h"),)},
    **{"own": (("num_frames", 2),), "max_new_tokens": 5, "earlier": ("before?",)},
}


@pytest.mark.parametrize("name", ITEM)
def test_each_field_of_a_question_is_in_its_key(clip: Path, name: str) -> None:
    by_content = {"row", "paths", "subtitles"}
    assert set(ITEM) | by_content == {one.name for one in fields(EvalItem)}
    assert item_of(clip, **{name: ITEM[name]}).content_key != item_of(clip).content_key


@pytest.mark.parametrize(
    "change",
    [{"id": "2"}, {"id": 1}, {"media": ("b.mp4",)}, {"question": "why?"}, {"own": (("fps", 2),)}],
    ids=str,
)
def test_each_field_of_a_row_is_in_its_key(clip: Path, change: dict[str, Any]) -> None:
    assert row_of(clip, **change).key != row_of(clip).key


CELL = Cell(num_frames=2, fps=None, pool_stride=2, pool_mode="bilinear", rope_factor="auto")
TOLD = dict.fromkeys(_IN_KEY, "a")


def row_key(model: Path, clip: Path, /, **changed: Any) -> str:
    """The key of a row of the sweep, with one fact changed."""
    settings = read_settings(model, "tiny")
    request = FramesRequest(
        num_frames=(2,), pool_strides=(2,), pool_modes=("bilinear",), rope_factors=("auto",)
    )
    request = replace(request, **{name: value for name, value in changed.items() if name in asdict(request)})
    base = AskOptions(
        **{name: value for name, value in changed.items() if name in ("context_limit", "preset")}
    )
    told = TOLD | {name: value for name, value in changed.items() if name in _IN_KEY}
    items = [item_of(changed.get("path", clip))]
    sweep = Sweep(SimpleNamespace(settings=settings), request, items, base=base, told=told)  # type: ignore[arg-type]
    return sweep._key(0, changed.get("cell", CELL))


def test_each_condition_of_a_sweep_is_in_the_key_of_its_rows(model: Path, clip: Path) -> None:
    wanted = {"pool_first", "attn_implementation", "kernels", "weights_stamp", "dtype", "threads", "device"}
    assert wanted <= set(_IN_KEY)
    other = clip.with_name("other.mp4")
    other.write_bytes(b"other")
    changes: list[dict[str, Any]] = [{name: "b"} for name in _IN_KEY]
    changes += [{"max_new_tokens": 3}, {"max_frames": 7}, {"num_timed": 0}, {"context_limit": 99}]
    changes += [{"preset": "onevision"}, {"path": other}, {"cell": None}]
    cells = ({"num_frames": 3}, {"num_frames": None, "fps": 2.0}, {"pool_stride": 3}, {"pool_mode": "max"})
    changes += [{"cell": replace(CELL, **change)} for change in (*cells, {"rope_factor": 2.0})]  # type: ignore[arg-type]
    keys = [row_key(model, clip), *(row_key(model, clip, **change) for change in changes)]
    assert len(set(keys)) == len(keys)


def lengths_key(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> str:
    codec = changed.get("codec", read_codec(nano_folder()))
    options = replace(EncodeOptions(placement="mixed"), **changed.get("options", {}))
    template = SimpleNamespace(name=changed.get("template", "chatml"))
    counter = SimpleNamespace(codec=codec, template=template, options=options)
    source = SimpleNamespace(name=changed.get("name", "a.json"), fingerprint=changed.get("fingerprint", "0"))
    monkeypatch.setattr(text_lengths, "__version__", changed.get("version", "1"))
    return TextLengths(None, counter)._key(source)  # type: ignore[arg-type]


def test_each_rule_that_decides_the_length_of_a_text_is_in_its_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(nano_folder(), tmp_path / "nano")
    tokenizer = tmp_path / "nano" / "tokenizer.json"
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Lowercase"}
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    prompts = {"formatting_prompts": True}
    changes: list[dict[str, Any]] = [
        {"codec": read_codec(tmp_path / "nano")},
        *({"template": "plain"}, {"fingerprint": "1"}, {"version": "2"}),
        *({"options": {"placement": "front"}}, {"options": {"seed": 3}}, {"options": {"plain": True}}),
        *({"options": prompts}, {"options": prompts, "name": "b.json"}),
    ]
    keys = [lengths_key(monkeypatch, **change) for change in ({}, *changes)]
    assert len(set(keys)) == len(keys)


TRAINED: dict[str, Any] = {
    **{"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "mix": "separate", "data_seed": 9},
    **{"learning_rate": 9e-4, "vision_lr": 9e-4, "projector_lr": 9e-4, "weight_decay": 0.3},
    **{"adam_beta1": 0.5, "adam_beta2": 0.5, "adam_epsilon": 1e-3, "max_grad_norm": 0.3},
    **{"warmup_ratio": 0.3, "warmup_steps": 3, "lr_scheduler_type": "constant", "freeze": ("llm",)},
    **{"optim": "muon", "muon_lr_scale": 3.0, "rope_factor": 2.0, "lora": True, "lora_modules": ("vision",)},
    **{"lora_rank": 3, "lora_alpha": 3.0, "lora_dropout": 0.3, "dtype": "bfloat16", "bf16": True},
    **{"fp16": True, "pool_first": True},
}


def state_of(model: Path, settings: dict[str, Any], encode: dict[str, Any], data: object = "d") -> Any:
    job = Job(model=str(model), data=("a.json",), output_dir=Path("out"), encode=EncodeOptions(**encode))
    mixture = SimpleNamespace(fingerprint=lambda: data)
    return run_state(job, TrainingSettings(**settings).resolved(), mixture, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FIXED)
def test_each_setting_of_a_run_is_in_what_a_checkpoint_remembers(model: Path, name: str) -> None:
    assert set(TRAINED) == set(FIXED), "a new setting must be thought of here"
    assert state_of(model, {name: TRAINED[name]}, {})["settings"] != state_of(model, {}, {})["settings"]


ENCODED: dict[str, Any] = {
    **{"request": SamplingRequest(num_frames=3), "sampling": "index", "pool_stride": 3, "pool_mode": "max"},
    **{"newline_mode": "grid", "placement": "front", "anyres_grids": "whole", "anyres_max_tiles": 3},
    **{"plain": True, "labels": "upstream", "formatting_prompts": True, "max_length": 3, "seed": 3},
    **{"video_backend": "pyav"},
}


@pytest.mark.parametrize("name", ENCODED)
def test_how_samples_are_read_is_in_what_a_checkpoint_remembers(model: Path, name: str) -> None:
    assert set(ENCODED) == {one.name for one in fields(EncodeOptions)}
    assert state_of(model, {}, {name: ENCODED[name]}) != state_of(model, {}, {})


def test_data_and_the_model_under_an_adapter_are_in_what_a_checkpoint_remembers(
    model: Path, tmp_path: Path
) -> None:
    assert state_of(model, {}, {}, "other") != state_of(model, {}, {})
    folder = copied(model, tmp_path)
    before = state_of(folder, {"lora": True}, {})
    assert state_of(folder, {"lora": True}, {}) == before
    touch(folder / "model.safetensors")
    assert state_of(folder, {"lora": True}, {}) != before


def test_a_verdict_is_of_one_question_answer_and_prediction(clip: Path) -> None:
    item = item_of(clip, answer="red")
    keys = [request_key(one, said) for one, said in ((item, "a"), (item, "b"))]
    keys += [request_key(replace(item, **change), "a") for change in ({"question": "y"}, {"answer": "z"})]
    assert len(set(keys)) == 4
