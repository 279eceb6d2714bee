"""Text to token ids and back, over a checkpoint's ``tokenizer.json``; no control token can be injected.

codec = read_codec(folder)
codec.encode("hello")            # plain text: "<|im_start|>" in it stays text
codec.special("<|im_end|>")      # 151645
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import DecodeStream

from vidllava.backbone.folders import part_of
from vidllava.errors import ModelError
from vidllava.prompting.turns import Placeholder

_PLACES = tuple(placeholder.value for placeholder in Placeholder)


class TextCodec:
    """Implements ``vidllava.prompting.conversation.Encoder`` with a Rust tokenizer."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        # Control tokens are placed by id only. Text that spells one is text.
        tokenizer.encode_special_tokens = True
        added = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
        # A checkpoint may hold the placeholders as ordinary words: in a text they would be pictures' rows.
        places = [name for name in _PLACES if added.get(name) is False]
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in places])
        self._controls = frozenset(name for name, special in added.items() if special or name in _PLACES)
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; adds and recognises no control token."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

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
        stream, taken, num_written = DecodeStream(skip_special_tokens=True), [], 0
        for token in ids:
            taken.append(token)
            piece = stream.step(self._tokenizer, token)
            if piece:
                num_written += len(piece)
                yield piece
        # The stream keeps a character back that is not whole: at the end it is shown as it is.
        if rest := self.decode(taken)[num_written:]:
            yield rest


def read_codec(folder: Path) -> TextCodec:
    """The tokenizer of a checkpoint folder. Raises ModelError if it is missing or damaged."""
    path = part_of(folder, "tokenizer.json")
    if not path.is_file():
        raise ModelError(folder, "no tokenizer.json", "download the checkpoint again")
    try:
        return TextCodec(Tokenizer.from_file(str(path)), folder.name)
    except Exception as fault:  # the Rust library raises bare Exception
        raise ModelError(path, f"not a tokenizer: {fault}", "download the checkpoint again") from None
