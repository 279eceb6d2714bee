"""The tokenizer.json of a model's folder, made once and kept where there is SentencePiece's file alone.

    tokenizer_json(folder)        # folder/tokenizer.json, or a file in the cache folder

The conversion is transformers' own, and takes sentencepiece and protobuf (the extra ``original``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from functools import cache
from pathlib import Path

from vidllava.backbone.folders import part_of
from vidllava.errors import ModelError
from vidllava.files.cache_folder import CacheFolder

MODEL_FILE = "tokenizer.model"
# What transformers reads beside it: added tokens, which of them end a text, the rule for the one before it.
_BESIDE = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
_BPE = 2  # ModelType of SentencePiece's sentencepiece_model.proto


def tokenizer_json(folder: Path) -> Path:
    """Where the tokenizer.json of the model in ``folder`` is; where there is none, a place without a file.

    Raises ModelError for a tokenizer.model that cannot be converted, or without the libraries for that.
    """
    own = part_of(folder, "tokenizer.json")
    if own.is_file() or not (model := part_of(folder, MODEL_FILE)).is_file():
        return own
    beside = [path for name in _BESIDE if (path := part_of(folder, name)).is_file()]
    name = f"tokenizers/{_identity([model, *beside])}.json"
    kept = CacheFolder.of_environment()
    found = kept.read(name)
    if found is not None and found.endswith(b"}"):
        return kept.path / name
    return _keep(kept, name, _convert(model, beside))


def _identity(files: list[Path]) -> str:
    """Of everything that decides the result."""
    from importlib.metadata import version

    hashed = hashlib.blake2b(version("transformers").encode(), digest_size=16)
    for path in files:
        data = path.read_bytes()
        hashed.update(f"\n{path.name} {len(data)}\n".encode() + data)
    return hashed.hexdigest()


def _keep(kept: CacheFolder, name: str, data: bytes) -> Path:
    """A file with this content: in the cache folder, or where that takes none, until this process ends."""
    try:
        if kept.write(name, data):
            return kept.path / name
    except OSError:
        pass
    path = Path(_until_the_end().name) / Path(name).name
    path.write_bytes(data)
    return path


@cache
def _until_the_end() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vidllava-")


def _convert(model: Path, beside: list[Path]) -> bytes:
    """The content of tokenizer.json. Raises ModelError."""
    if not all(map(_is_here, ("sentencepiece", "google.protobuf"))):
        what = "is SentencePiece's, and there is no tokenizer.json: reading it takes sentencepiece"
        raise ModelError(model, what, "pip install 'vidllava[original]'")
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import SentencePieceExtractor
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        # First, for its errors: transformers goes on with another library's reader where this one fails.
        kind = SentencePieceExtractor(str(model)).proto.trainer_spec.model_type
        if kind != _BPE:
            raise ValueError(
                f"its model_type is {kind}, not byte pair encoding, as Llama's, Yi's and Mistral's"
            )
        with tempfile.TemporaryDirectory() as place:
            for path in (model, *beside):
                (Path(place) / path.name).write_bytes(path.read_bytes())
            return (
                LlamaTokenizer.from_pretrained(place, local_files_only=True)
                .backend_tokenizer.to_str()
                .encode()
            )
    except Exception as fault:  # whatever a file that is not one makes three libraries raise
        first = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        raise ModelError(model, f"cannot be read: {first}", "download the checkpoint again") from fault


def _is_here(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # of a package that is not here
        return False
