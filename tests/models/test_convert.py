"""Either layout is written from either, bit for bit, and read by transformers, by older readers and by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.clips import write_clip
from tests.models.checkpoints import (
    PUBLISHED,
    hf_checkpoint,
    image_processor,
    legacy_name,
    original_checkpoint,
    picture_processor,
)
from vidllava.backbone import convert as converting
from vidllava.backbone.convert import convert, export
from vidllava.backbone.familiarity import read_world
from vidllava.backbone.folders import nano_folder
from vidllava.backbone.load import load_backbone
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError, ResourceError, UsageError
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


@pytest.mark.parametrize("legacy", [False, True], ids=["names of today", "names of transformers 4"])
def test_back_and_there_is_bit_equal(name: str, legacy: bool, tmp_path: Path):
    """From transformers' layout, whichever version wrote it, to lmms-lab's and back."""
    first = hf_checkpoint(name, tmp_path / "hf", legacy_keys=legacy)
    convert(first, tmp_path / "original", to="original")
    convert(tmp_path / "original", tmp_path / "again", to="hf", legacy_keys=True)
    theirs = held(hf_checkpoint(name, tmp_path / "old", legacy_keys=True))
    assert same(held(tmp_path / "again"), theirs)
    assert ("model.image_newline" in held(tmp_path / "original")) == (PUBLISHED[name].family != "interleave")
    before, after = read_settings(first, name), read_settings(tmp_path / "again", name)
    for key in ("image_size", "frame_size", "image_mean", "pinpoints", "trained_context", "least_factor"):
        assert getattr(before, key) == getattr(after, key), key
    assert (before.family, before.preset) == (after.family, after.preset)


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_the_logits_are_the_same(name: str, layout: str, tmp_path: Path):
    """Sizes, scales and norms that leave no trace in a shape are in the configuration that is written."""
    source = (original_checkpoint if layout == "hf" else hf_checkpoint)(name, tmp_path / "source")
    convert(source, tmp_path / "out", to="hf" if layout == "hf" else "original")
    ids = torch.tensor([[5, 9, 12, 7, 30, 31, 32, 33]])
    theirs = PUBLISHED[name].hf_class.from_pretrained(hf_checkpoint(name, tmp_path / "theirs")).eval()
    ours = load_backbone(str(tmp_path / "out")).hf
    with torch.inference_mode():
        expected = theirs(input_ids=ids).logits
        assert torch.equal(load_backbone(str(source)).hf(input_ids=ids).logits, ours(input_ids=ids).logits)
        torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
        if layout == "hf":
            plain = PUBLISHED[name].hf_class.from_pretrained(tmp_path / "out").eval()
            assert torch.equal(plain(input_ids=ids).logits, expected)


def test_transformers_own_processor_reads_a_converted_folder(name: str, tmp_path: Path):
    """A picture becomes as many placeholders as it has rows, of the pixels that the checkpoint's own are."""
    convert(original_checkpoint(name, tmp_path / "original"), tmp_path / "hf", to="hf")
    theirs, ours = hf_checkpoint(name, tmp_path / "theirs"), tmp_path / "hf"
    picture = torch.arange(3 * 60 * 40).remainder(251).to(torch.uint8).reshape(3, 60, 40).numpy()
    found, expected = (image_processor(one) for one in (ours, theirs))
    assert type(found) is type(expected)
    pixels = [one(picture, return_tensors="pt")["pixel_values"] for one in (found, expected)]
    assert torch.equal(*pixels)
    said = [json.loads((one / "processor_config.json").read_text()) for one in (ours, theirs)]
    assert said[0] == said[1]
    if PUBLISHED[name].family not in ("next", "interleave"):
        return  # its class reads videos too, which takes torchvision
    kind = "LlavaNextProcessor" if PUBLISHED[name].family == "next" else "LlavaProcessor"
    found, expected = (picture_processor(one, kind) for one in (ours, theirs))
    both = [one(text="<image>\nwhat", images=picture, return_tensors="pt") for one in (found, expected)]
    assert torch.equal(both[0]["input_ids"], both[1]["input_ids"])
    assert both[0]["input_ids"].shape[1] > 20


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


def without_spare_rows(folder: Path) -> None:
    """As Vicuna is: a row for each token, none for a placeholder."""
    ids = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    ids.pop("pad_token_id", None)
    (folder / "generation_config.json").write_text(json.dumps(ids), encoding="utf-8")
    size = read_codec(folder)._tokenizer.get_vocab_size()
    weights = load_file(folder / "model.safetensors")
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        if key in weights:
            weights[key] = weights[key][:size].contiguous()
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize("name", ["onevision-7b", "onevision-0.5b", "next-video-34b"])
@pytest.mark.parametrize("spare", [True, False], ids=["rows to spare", "no row to spare"])
def test_a_tokenizer_is_completed_and_rows_are_added_where_there_are_none(
    name: str, spare: bool, tmp_path: Path
):
    folder = original_checkpoint(name, tmp_path / "original")
    without_placeholders(folder)
    if not spare:
        without_spare_rows(folder)
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


@pytest.mark.parametrize("name", ["onevision-7b", "llava-video-7b", "next-video-34b"])
def test_what_is_saved_of_an_original_has_its_placeholders_too(name: str, tmp_path: Path):
    """Rows to spare, no placeholder: the first free ids of the tokenizer, as the published ones have."""
    folder = original_checkpoint(name, tmp_path / "original")
    without_placeholders(folder)
    free = read_codec(folder)._tokenizer.get_vocab_size()
    load_backbone(str(folder)).save(tmp_path / "saved")
    config = PUBLISHED[name].hf_class.from_pretrained(tmp_path / "saved").config
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    ids = [config.image_token_id, config.video_token_id]
    assert sorted(ids) == [free, free + 1]
    assert tokenizer.convert_tokens_to_ids(["<image>", "<video>"]) == ids


@pytest.mark.parametrize("name", ["onevision-0.5b", "next-video-7b"])
def test_what_is_saved_of_an_original_without_a_spare_row_is_whole(name: str, tmp_path: Path):
    folder = original_checkpoint(name, tmp_path / "original")
    without_placeholders(folder)
    without_spare_rows(folder)
    backbone = load_backbone(str(folder))
    old = held(folder)["model.embed_tokens.weight"]
    backbone.save(tmp_path / "saved")
    convert(folder, tmp_path / "converted", to="hf")
    saved = opened(name, tmp_path / "saved")
    assert same(saved, opened(name, tmp_path / "converted"))
    rows = saved["model.language_model.embed_tokens.weight"]
    assert rows.shape[0] > len(old)
    assert torch.equal(rows[: len(old)], old)
    again = load_backbone(str(tmp_path / "saved"))
    assert again.hf.config.text_config.vocab_size == rows.shape[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert max(tokenizer.convert_tokens_to_ids(["<image>", "<video>"])) < rows.shape[0]


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


def test_a_number_format_can_be_asked_for(tmp_path: Path):
    folder = original_checkpoint("onevision-7b", tmp_path / "original")
    convert(folder, tmp_path / "hf", to="hf", dtype="bfloat16")
    before, after = held(folder), held(tmp_path / "hf")
    assert {one.dtype for one in after.values()} == {torch.bfloat16}
    assert torch.equal(after["image_newline"], before["model.image_newline"].bfloat16())
    assert PUBLISHED["onevision-7b"].hf_class.from_pretrained(tmp_path / "hf").dtype == torch.bfloat16
    convert(tmp_path / "hf", tmp_path / "again", to="original")
    assert {one.dtype for one in held(tmp_path / "again").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "again" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_next_videos_placeholders_have_the_order_of_the_published_tokenizer(tmp_path: Path):
    """<video> 32000, <image> 32001 in llava-hf/LLaVA-NeXT-Video-7B-hf: the video's is the first free id."""
    folder = original_checkpoint("next-video-7b", tmp_path / "original")
    without_placeholders(folder)
    free = read_codec(folder)._tokenizer.get_vocab_size()
    convert(folder, tmp_path / "hf", to="hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    ids = [config.get(f"{kind}_token_index", config.get(f"{kind}_token_id")) for kind in ("video", "image")]
    assert ids == [free, free + 1]


def test_files_that_the_source_has_are_kept(tmp_path: Path):
    folder = original_checkpoint("onevision-7b", tmp_path / "original")
    (folder / "generation_config.json").unlink()
    theirs = hf_checkpoint("onevision-7b", tmp_path / "theirs")
    own = json.loads((theirs / "preprocessor_config.json").read_text()) | {"image_mean": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    convert(folder, tmp_path / "hf", to="hf")
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text()) == own
    eos = json.loads((tmp_path / "hf" / "generation_config.json").read_text())["eos_token_id"]
    assert eos == read_codec(folder).special("<|im_end|>")


def test_the_preset_stays_in_either_layout(tmp_path: Path):
    """In transformers' layout LLaVA-Video is told from OneVision by vidllava.json alone."""
    folder = hf_checkpoint("llava-video-7b", tmp_path / "hf")
    (folder / "vidllava.json").write_text('{"preset": "llava-video", "num_frames": 48}', encoding="utf-8")
    wanted = read_settings(folder, "x").preset
    assert (wanted.name, wanted.num_frames, wanted.newline_mode) == ("llava-video", 48, "grid")
    convert(folder, tmp_path / "original", to="original")
    convert(tmp_path / "original", tmp_path / "again", to="hf")
    assert read_settings(tmp_path / "original", "x").preset == wanted
    assert read_settings(tmp_path / "again", "x").preset == wanted
    # What their own code reads.
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    assert (config["mm_newline_position"], config["add_time_instruction"]) == ("grid", True)


def test_nano_still_knows_its_world(tmp_path: Path):
    convert(nano_folder(), tmp_path / "old", to="hf", legacy_keys=True)
    before, after = read_world(nano_folder()), read_world(tmp_path / "old")
    assert before is not None
    assert after is not None
    assert torch.equal(before.covariance, after.covariance)
    assert read_settings(tmp_path / "old", "x").preset == read_settings(nano_folder(), "x").preset


def test_others_may_read_the_weights_too(tmp_path: Path):
    convert(original_checkpoint("onevision-7b", tmp_path / "original"), tmp_path / "hf", to="hf")
    modes = {path.stat().st_mode for path in (tmp_path / "hf").iterdir()}
    assert len(modes) == 1


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path):
    folder = original_checkpoint("onevision-7b", tmp_path / "original")
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists"):
        convert(folder, tmp_path / "out", to="hf")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_conversion_that_fails(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = original_checkpoint("next-video-7b", tmp_path / "original")
    written: list[Path] = []

    def fill(tensors: dict[str, torch.Tensor], path: Path, **more: object) -> None:
        if len(written) == 2:
            raise fault
        save_file(tensors, path)
        written.append(path)

    monkeypatch.setattr(converting, "save_file", fill)
    with pytest.raises(ResourceError if isinstance(fault, OSError) else KeyboardInterrupt):
        convert(folder, tmp_path / "out", to="hf", shard_bytes=60_000)
    assert len(written) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_a_head_that_is_stored_beside_tied_embeddings_stays_the_head(tmp_path: Path):
    """transformers 5 does not tie what differs in the file."""
    folder = hf_checkpoint("onevision-0.5b", tmp_path / "hf")
    weights = load_file(folder / "model.safetensors")
    head = torch.randn(next(one for key, one in weights.items() if key.endswith("embed_tokens.weight")).shape)
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    convert(folder, tmp_path / "original", to="original")
    convert(tmp_path / "original", tmp_path / "again", to="hf")
    for place in (folder, tmp_path / "again"):
        model = PUBLISHED["onevision-0.5b"].hf_class.from_pretrained(place)
        assert torch.equal(model.lm_head.weight, head), place.name


def test_a_shape_that_is_not_the_configurations_is_refused(tmp_path: Path):
    folder = hf_checkpoint("onevision-7b", tmp_path / "hf")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("mlp.fc1.bias"))
    weights[name] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"mlp\.fc1\.bias is \[3\], the configuration asks for \[64\]"):
        convert(folder, tmp_path / "out", to="original")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


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
