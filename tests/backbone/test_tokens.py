"""Text encodes and comes back whole, and cannot turn into control tokens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError


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
