"""Text to token ids and back, over a checkpoint's ``tokenizer.json``; no control token can be injected.

codec = read_codec(folder)
codec.encode("hello")            # plain text: "<|im_start|>" in it stays text
codec.special("<|im_end|>")      # 151645
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import DecodeStream

from vidllava.backbone.folders import part_of, read_json
from vidllava.backbone.tokenizer_model import tokenizer_json
from vidllava.errors import ModelError
from vidllava.prompting.template import After
from vidllava.prompting.turns import Placeholder

_PLACES = tuple(placeholder.value for placeholder in Placeholder)


class TextCodec:
    """Implements ``vidllava.prompting.conversation.Encoder`` with a Rust tokenizer."""

    def __init__(self, tokenizer: Tokenizer, name: str, *, eos: str | int | None = None) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._eos = eos
        # What the tokenizer puts before a text by itself: Llama's <s>, Qwen's nothing.
        self._bos = tuple(tokenizer.encode("", add_special_tokens=True).ids)
        self._blank = _blank_rule(tokenizer)
        # Control tokens are placed by id only. Text that spells one is text.
        tokenizer.encode_special_tokens = True
        added = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
        # A checkpoint may hold the placeholders as ordinary words: in a text they would be pictures' rows.
        places = [name for name in _PLACES if added.get(name) is False]
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in places])
        self._controls = frozenset(name for name, special in added.items() if special or name in _PLACES)
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        """Token ids of plain text; adds and recognises no control token. See ``Encoder.encode``."""
        if after == "text" or (after == "control" and self._blank == "first"):
            return self._continuing.encode(text, add_special_tokens=False).ids
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    @cached_property
    def _continuing(self) -> Tokenizer:
        """The same tokenizer for a text that goes on: it puts no blank before it."""
        if self._blank is None:
            return self._tokenizer
        content = json.loads(self._tokenizer.to_str())
        content["normalizer"] = _without_prepend(content["normalizer"])
        content["pre_tokenizer"] = _never_prepends(content["pre_tokenizer"])
        continuing = Tokenizer.from_str(json.dumps(content))
        continuing.encode_special_tokens = True
        return continuing

    def bos(self) -> tuple[int, ...]:
        """The ids that the tokenizer itself puts before every text."""
        return self._bos

    def eos(self) -> int:
        """The id that ends an answer, as the checkpoint's files name it. Raises ModelError."""
        if isinstance(self._eos, int):
            return self._eos
        if self._eos:
            return self.special(self._eos)
        for usual in ("<|im_end|>", "</s>", "<|endoftext|>"):
            if (token := self._tokenizer.token_to_id(usual)) is not None:
                return token
        raise ModelError(
            self._name, "names no token that ends an answer", "eos_token in tokenizer_config.json"
        )

    def special(self, name: str) -> int:
        """Id of a control token. Raises ModelError if the vocabulary lacks it."""
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ModelError(
                self._name, f"its tokenizer has no {name!r}", "use the checkpoint's own tokenizer"
            )
        return token

    def controls(self) -> frozenset[str]:
        """How every control token is spelt."""
        return self._controls

    def fingerprint(self) -> str:
        """Of everything that decides which ids a text has."""
        return hashlib.blake2b(self._tokenizer.to_str().encode(), digest_size=16).hexdigest()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text pieces as ids arrive; a character split over several tokens comes out whole."""
        stream: DecodeStream | None = DecodeStream(skip_special_tokens=True)
        taken, num_written = [], 0
        for token in ids:
            taken.append(token)
            try:
                piece = stream.step(self._tokenizer, token) if stream is not None else None
            except (
                Exception
            ):  # the Rust library's, for bytes that are no text: their signs change as more come
                stream = None
                piece = None
            if piece:
                num_written += len(piece)
                yield piece
        # The stream keeps back a character that is not whole, and all after bytes that are no text.
        if rest := self.decode(taken)[num_written:]:
            yield rest


def _eos(folder: Path) -> str | int | None:
    """The token that ends an answer: of the tokenizer, or else of the generation settings."""
    for name, key in (("tokenizer_config.json", "eos_token"), ("generation_config.json", "eos_token_id")):
        path = part_of(folder, name)
        value = read_json(path).get(key) if path.is_file() else None
        value = value.get("content") if isinstance(value, dict) else value
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str | int) and not isinstance(value, bool):
            return value
    return None


def _blank_rule(tokenizer: Tokenizer) -> Literal["first", "always"] | None:
    """Whether the tokenizer puts a blank before a text: never, before the first one, or after each control
    token too (Llama's "▁", in its newer and its older manner)."""
    normalizer, pre_tokenizer = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    if normalizer != _without_prepend(normalizer):
        return "always"
    schemes = [one.get("prepend_scheme") for one in _steps(pre_tokenizer, "Metaspace")]
    if "first" in schemes:
        return "first"
    prefixed = any(one.get("add_prefix_space") for one in _steps(pre_tokenizer, "ByteLevel"))
    return "always" if "always" in schemes or prefixed else None


def _state(part: Any) -> Any:
    """A normalizer or pre-tokenizer as tokenizer.json has it."""
    return None if part is None else json.loads(part.__getstate__())


def _steps(part: Any, kind: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer that are of one type."""
    if not isinstance(part, dict):
        return []
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    return [
        *([part] if part.get("type") == kind else []),
        *(one for each in inner for one in _steps(each, kind)),
    ]


def _without_prepend(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Prepend":
        return None
    if part.get("type") == "Sequence":
        left = [_without_prepend(one) for one in part["normalizers"]]
        return {**part, "normalizers": [one for one in left if one is not None]}
    return part


def _never_prepends(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence":
        return {**part, "pretokenizers": [_never_prepends(one) for one in part["pretokenizers"]]}
    if part.get("type") == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    return {**part, "add_prefix_space": False} if part.get("type") == "ByteLevel" else part


def read_codec(folder: Path) -> TextCodec:
    """The tokenizer of a checkpoint folder. Raises ModelError if it is missing or damaged."""
    path = tokenizer_json(folder)
    if not path.is_file():
        raise ModelError(folder, "no tokenizer.json, no tokenizer.model", "download the checkpoint again")
    try:
        return TextCodec(Tokenizer.from_file(str(path)), folder.name, eos=_eos(folder))
    except Exception as fault:  # the Rust library raises bare Exception
        raise ModelError(path, f"not a tokenizer: {fault}", "download the checkpoint again") from None
