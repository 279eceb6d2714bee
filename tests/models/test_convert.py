"""Either layout is written from either, bit for bit, and read by transformers, by older readers and by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.clips import write_clip
from tests.models.checkpoints import PUBLISHED, hf_checkpoint, legacy_name, original_checkpoint
from vidllava.backbone.convert import convert, export
from vidllava.backbone.load import load_backbone
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError
from vidllava.prompting.conversation import SLOT
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import plan_question


@pytest.fixture(params=sorted(PUBLISHED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def held(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def opened(name: str, folder: Path) -> dict[str, torch.Tensor]:
    model, told = PUBLISHED[name].hf_class.from_pretrained(folder, output_loading_info=True)
    assert {kind: list(keys) for kind, keys in told.items() if keys} == {}
    return dict(model.state_dict())


def test_there_and_back_is_bit_equal(name: str, tmp_path: Path):
    first = original_checkpoint(name, tmp_path / "original")
    convert(first, tmp_path / "hf", to="hf")
    convert(tmp_path / "hf", tmp_path / "again", to="original")
    before, after = held(first), held(tmp_path / "again")
    before.pop("model.image_newline") if PUBLISHED[name].family == "interleave" else None
    assert same(before, after)
    convert(tmp_path / "again", tmp_path / "hf again", to="hf")
    assert same(held(tmp_path / "hf"), held(tmp_path / "hf again"))
    assert (tmp_path / "hf" / "config.json").read_bytes() == (
        tmp_path / "hf again" / "config.json"
    ).read_bytes()


def test_what_is_written_is_what_transformers_opens(name: str, tmp_path: Path):
    expected = opened(name, hf_checkpoint(name, tmp_path / "theirs"))
    convert(original_checkpoint(name, tmp_path / "original"), tmp_path / "hf", to="hf")
    assert same(opened(name, tmp_path / "hf"), expected)


def test_old_names_are_those_of_transformers_4(name: str, tmp_path: Path):
    theirs = hf_checkpoint(name, tmp_path / "theirs", legacy_keys=True)
    convert(original_checkpoint(name, tmp_path / "original"), tmp_path / "old", to="hf", legacy_keys=True)
    assert same(held(tmp_path / "old"), held(theirs))
    opened(name, tmp_path / "old")
    load_backbone(str(tmp_path / "old"))


def test_a_converted_folder_is_asked_in_its_own_template(name: str, tmp_path: Path):
    """transformers' tokenizer with the template that was written gives the ids of our prompt."""
    convert(original_checkpoint(name, tmp_path / "original"), tmp_path / "hf", to="hf")
    before = read_settings(tmp_path / "original", name)
    after = read_settings(tmp_path / "hf", name)
    assert (before.family, before.preset) == (after.family, after.preset)
    clip = write_clip(tmp_path / "clip.mp4", num_frames=8)
    asked = AskOptions(num_frames=2, rope_factor=8, time_instruction=False)
    codec = read_codec(tmp_path / "hf")
    question = plan_question([str(clip)], "what happens", after, codec, asked, require_fit=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    parts = [{"type": "video"}, {"type": "text", "text": "what happens"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
    )
    known = "<video>" in tokenizer.get_vocab()
    place = tokenizer.convert_tokens_to_ids("<video>" if known else "<image>")
    assert [SLOT if id_ == place else id_ for id_ in tokenizer(text).input_ids] == list(question.prompt.ids)


def without_placeholders(folder: Path) -> None:
    """As lmms-lab's tokenizers are."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    places = ("<image>", "<video>", "<pad>")  # the last ones: no hole is left
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] not in places]
    for one in places:
        content["model"]["vocab"].pop(one, None)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", ["onevision-7b", "onevision-0.5b", "next-video-34b"])
@pytest.mark.parametrize("spare", [True, False], ids=["rows to spare", "no row to spare"])
def test_a_tokenizer_is_completed_and_rows_are_added_where_there_are_none(
    name: str, spare: bool, tmp_path: Path
):
    folder = original_checkpoint(name, tmp_path / "original")
    without_placeholders(folder)
    size = read_codec(folder)._tokenizer.get_vocab_size()
    if not spare:
        weights = load_file(folder / "model.safetensors")
        for key in ("model.embed_tokens.weight", "lm_head.weight"):
            if key in weights:
                weights[key] = weights[key][:size].contiguous()
        save_file(weights, folder / "model.safetensors")
    notes = convert(folder, tmp_path / "hf", to="hf")
    assert bool(notes) == (not spare)
    model = PUBLISHED[name].hf_class.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = [tokenizer.convert_tokens_to_ids(one) for one in ("<image>", "<video>")]
    assert ids == [model.config.image_token_id, model.config.video_token_id]
    rows = model.get_input_embeddings().weight
    assert max(ids) < rows.shape[0]
    assert rows.shape[0] % 64 == 0
    old = held(folder)["model.embed_tokens.weight"]
    assert torch.equal(rows[: len(old)], old)
    if not spare:
        torch.testing.assert_close(rows[len(old)], old.mean(dim=0))
    load_backbone(str(tmp_path / "hf"))


def test_large_models_are_cut_into_files_with_an_index(tmp_path: Path):
    name = "next-video-7b"
    folder = original_checkpoint(name, tmp_path / "original")
    heard: list[tuple[int, int]] = []
    convert(folder, tmp_path / "hf", to="hf", shard_bytes=60_000, on_progress=lambda *how: heard.append(how))
    files = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert heard[-1][0] == heard[-1][1] == len(heard)
    assert same(opened(name, tmp_path / "hf"), opened(name, hf_checkpoint(name, tmp_path / "theirs")))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: found.pop("model.norm.weight"), "missing weights: model.language_model.norm.weight"),
        (
            lambda found: found.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(1)}),
            "the weights hold no model.layers.2",
        ),
        (lambda found: found.update({"model.more": torch.zeros(1)}), "has no place in transformers' layout"),
    ],
)
def test_a_model_that_is_not_whole_is_not_written(change, what: str, tmp_path: Path):
    folder = original_checkpoint("next-video-7b", tmp_path / "original")
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=what) as fault:
        convert(folder, tmp_path / "out", to="hf")
    assert "\n" not in str(fault.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_an_exported_adapter_can_have_the_old_names(tmp_path: Path):
    from vidllava.backbone.adapter import LoraOptions, add_adapter

    folder = hf_checkpoint("next-video-7b", tmp_path / "base")
    backbone = load_backbone(str(folder))
    add_adapter(backbone, LoraOptions(rank=2), base=str(folder))
    backbone.save(tmp_path / "adapter")
    export(tmp_path / "adapter", tmp_path / "new")
    export(tmp_path / "adapter", tmp_path / "old", legacy_keys=True)
    new, old = opened("next-video-7b", tmp_path / "new"), held(tmp_path / "old")
    assert {legacy_name(key) for key in new} == set(old)
    assert same(opened("next-video-7b", tmp_path / "old"), new)
