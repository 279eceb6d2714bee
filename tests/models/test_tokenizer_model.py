"""A folder with SentencePiece's tokenizer.model alone opens, answers and is converted as any other."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.clips import write_clip
from tests.models.checkpoints import PUBLISHED, original_checkpoint
from vidllava.backbone import tokenizer_model
from vidllava.backbone.convert import convert
from vidllava.backbone.load import load_backbone
from vidllava.backbone.locate import locate
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokenizer_model import tokenizer_json
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError
from vidllava.files.cache_folder import FOLDER_VARIABLE, LIMIT_VARIABLE
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import plan_question

sentencepiece = pytest.importorskip("sentencepiece")
TEXTS = (
    "why is this video funny",
    "what happens in the clip",
    "the red circle moves left",
    "A chat between a curious human and an assistant. USER: what? ASSISTANT: it moves",
)


def trained(kind: str = "bpe", **more: Any) -> bytes:
    """A model of Llama's kind: byte pair encoding with byte fallback, a blank before every text."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=written,
        model_type=kind,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
        **({"vocab_size": 350} | more),
    )
    return written.getvalue()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model() -> bytes:
    return trained()


def folder_with(model: bytes, folder: Path, name: str = "next-video-7b", **config: Any) -> Path:
    """lmms-lab's folder as LLaVA's own trainer saves it: no tokenizer.json."""
    original_checkpoint(name, folder)
    (folder / "tokenizer.json").unlink()
    (folder / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}', encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(model)
    written = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(written | config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "text", ["why is this video funny", "two  blanks ", "naïve 漢字 é\n\ttab", "USER: 12 of 34?", "", "x"]
)
def test_ids_are_sentencepieces_own(model: bytes, text: str, tmp_path: Path):
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    codec = read_codec(folder_with(model, tmp_path / "folder"))
    assert codec.encode(text) == theirs.encode(text)
    assert (codec.bos(), codec.eos()) == ((1,), 2)
    assert codec.decode(theirs.encode(text)) == text


def test_it_is_made_once_and_anew_where_a_file_changes(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = folder_with(model, tmp_path / "folder")
    made = tokenizer_json(folder)
    assert made.parent == tmp_path / "cache" / "tokenizers"
    assert not (folder / "tokenizer.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_model, "_convert", lambda *given: pytest.fail("made again"))
        assert tokenizer_json(folder) == made
        # What a power cut left of it is not taken.
    made.write_bytes(made.read_bytes()[:100])
    assert json.loads(tokenizer_json(folder).read_bytes())["model"]["type"] == "BPE"
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": false, "eos_token": "</s>"}')
    assert tokenizer_json(folder) != made
    assert read_codec(folder).bos() == ()


def test_added_tokens_are_taken_over(model: bytes, tmp_path: Path):
    """tokenizer_config.json says which tokens after the vocabulary are control tokens."""
    added = {"content": "<|im_end|>", "special": True, "normalized": False}
    folder = folder_with(model, tmp_path / "folder", added_tokens_decoder={"350": added})
    codec = read_codec(folder)
    assert codec.special("<|im_end|>") == 350
    assert "<|im_end|>" in codec.controls()


def test_a_cache_that_takes_nothing_is_no_hindrance(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(LIMIT_VARIABLE, "0")
    codec = read_codec(folder_with(model, tmp_path / "folder"))
    assert codec.encode("funny")
    assert not (tmp_path / "cache" / "tokenizers").exists()


@pytest.mark.parametrize("name", ["next-video-7b", "next-video-7b-32k", "next-vicuna-7b"])
def test_it_is_loaded_asked_saved_and_converted(name: str, model: bytes, tmp_path: Path):
    folder = folder_with(model, tmp_path / "folder", name)
    locate(str(folder))
    backbone = load_backbone(str(folder))
    clip = str(write_clip(tmp_path / "clip.mp4", num_frames=8))
    asked = AskOptions(num_frames=2, rope_factor=16)
    question = plan_question([clip], "what", backbone.settings, backbone.codec, asked, require_fit=False)

    convert(folder, tmp_path / "hf", to="hf")
    hf = PUBLISHED[name].hf_class.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.convert_tokens_to_ids("<image>") == hf.config.image_token_id
    assert tokenizer("what happens").input_ids == [1, *backbone.codec.encode("what happens")]
    settings, codec = read_settings(tmp_path / "hf", "x"), read_codec(tmp_path / "hf")
    again = plan_question([clip], "what", settings, codec, asked, require_fit=False)
    assert again.prompt.ids == question.prompt.ids

    convert(folder, tmp_path / "original", to="original")
    assert (tmp_path / "original" / "tokenizer.model").read_bytes() == model
    assert not (tmp_path / "original" / "tokenizer.json").exists()

    with torch.no_grad():
        backbone.save(tmp_path / "saved")
    assert read_codec(tmp_path / "saved").encode("what happens") == codec.encode("what happens")


def test_a_kind_that_llama_does_not_have_is_refused(tmp_path: Path):
    folder = folder_with(trained("unigram", vocab_size=320, hard_vocab_limit=False), tmp_path / "folder")
    with pytest.raises(ModelError, match=r"model_type is 1, not byte pair encoding") as fault:
        read_codec(folder)
    assert "\n" not in str(fault.value)


def test_a_damaged_file_is_one_line(tmp_path: Path):
    folder = folder_with(b"version https://git-lfs.github.com/spec/v1", tmp_path / "folder")
    with pytest.raises(ModelError, match=r"tokenizer\.model: cannot be read") as fault:
        locate(str(folder))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("library", ["sentencepiece", "google.protobuf"])
def test_without_the_library_it_is_one_line_that_says_what_to_install(
    library: str, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = folder_with(model, tmp_path / "folder")
    find = tokenizer_model.importlib.util.find_spec
    monkeypatch.setattr(
        tokenizer_model.importlib.util, "find_spec", lambda name: None if name == library else find(name)
    )
    with pytest.raises(ModelError, match=r"pip install 'vidllava\[original\]'") as fault:
        locate(str(folder))
    assert "\n" not in str(fault.value)


def test_a_folder_with_both_takes_its_own_json(model: bytes, tmp_path: Path):
    folder = original_checkpoint("next-video-7b", tmp_path / "folder")
    (folder / "tokenizer.model").write_bytes(model)
    assert tokenizer_json(folder) == folder / "tokenizer.json"
