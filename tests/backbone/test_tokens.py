"""Text encodes and comes back whole, and cannot turn into control tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.clips import write_clip
from tests.tiny import SPECIAL_TOKENS
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError, UsageError
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import plan_question, plan_turn


def test_text_that_spells_a_control_token_stays_text(checkpoint: Path) -> None:
    codec = read_codec(checkpoint)
    ids = codec.encode("a<|im_end|>b<image>")
    assert codec.special("<|im_end|>") not in ids
    assert codec.special("<image>") not in ids
    assert codec.decode(ids) == "a<|im_end|>b<image>"


@pytest.mark.parametrize("text", ["plain", "häßlich", "漢字 and 🎬!", " leading", ""])
def test_streamed_pieces_are_whole_characters_and_join_to_the_text(text: str, checkpoint: Path) -> None:
    codec = read_codec(checkpoint)
    pieces = list(codec.stream(codec.encode(text)))
    assert "".join(pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_a_torn_character_at_the_end_is_not_lost(checkpoint: Path) -> None:
    codec = read_codec(checkpoint)
    torn = codec.encode("ok 漢")[:-1]
    assert "".join(codec.stream(torn)) == "ok \N{REPLACEMENT CHARACTER}"


def test_a_stream_is_decoded_once_however_long_it_is(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the whole answer again for each token: a long one would take quadratic time."""
    codec = read_codec(checkpoint)
    decode, lengths = codec.decode, []

    def counted(ids: list[int]) -> str:
        lengths.append(len(ids))
        return decode(ids)

    monkeypatch.setattr(codec, "decode", counted)
    ids = codec.encode("漢字 and 🎬! " * 40)
    pieces = list(codec.stream(ids))
    assert lengths == [len(ids)]
    assert len(pieces) > 200


def test_any_ids_stream_to_what_they_decode_to(checkpoint: Path) -> None:
    """Control tokens, halves of characters and bytes that are no text among them."""
    codec, rng = read_codec(checkpoint), random.Random(7)
    for _ in range(300):
        ids = [rng.randrange(261) for _ in range(rng.randrange(40))]
        assert "".join(codec.stream(iter(ids))) == codec.decode(ids)


def test_a_missing_or_damaged_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        read_codec(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a tokenizer"):
        read_codec(tmp_path)


def test_every_control_token_and_placeholder_is_known_by_its_spelling(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert read_codec(checkpoint).controls() == set(SPECIAL_TOKENS)
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = token["content"].startswith("<|")
    content["added_tokens"].append({**content["added_tokens"][3], "id": 261, "content": "<event>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    codec = read_codec(tmp_path)
    assert codec.controls() == set(SPECIAL_TOKENS)
    assert codec.encode("<event>") == [261]
    ids = codec.encode("a<image>b<video>c")
    assert not {codec.special("<image>"), codec.special("<video>")} & set(ids)
    assert codec.decode(ids) == "a<image>b<video>c"


@pytest.mark.parametrize(
    ("text", "same_as", "taken"),
    [
        ("what <|im_end|> moves", "what moves", ("<|im_end|>",)),
        ("what <image> <video> moves", "what moves", ("<image>", "<video>")),
        ("<video>\nwhat moves", "what moves", ()),
        ("<image>\nwhat moves", "what moves", ()),
    ],
)
def test_what_a_question_spells_of_them_is_a_place_or_taken_out_and_said(
    checkpoint: Path, tmp_path: Path, text: str, same_as: str, taken: tuple[str, ...]
) -> None:
    clip = str(write_clip(tmp_path / "clip.mp4", num_frames=4))
    settings, codec = read_settings(checkpoint, "tiny"), read_codec(checkpoint)
    found = plan_question([clip], text, settings, codec, AskOptions(num_frames=2))
    plain = plan_question([clip], same_as, settings, codec, AskOptions(num_frames=2))
    assert found.prompt == plain.prompt
    assert found.text == text
    notes = [note for note in found.notes if note.startswith("taken out of the question: ")]
    assert len(notes) == bool(taken)
    assert all(mark in notes[0] for mark in taken)
    later = plan_turn(found.items, text, settings, codec, AskOptions(), history=[("first?", "yes")])
    told = "taken out of the question: " + " ".join(taken or (text.partition("\n")[0],))
    assert [note for note in later.notes if note.startswith(told)], "later questions have no places at all"


def test_a_question_of_nothing_else_is_refused(checkpoint: Path) -> None:
    settings, codec = read_settings(checkpoint, "tiny"), read_codec(checkpoint)
    with pytest.raises(UsageError, match=r"question: is nothing but <\|im_end\|> <image>"):
        plan_question([], " <|im_end|><image> ", settings, codec)
