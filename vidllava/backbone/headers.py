"""What files of weights and tokenizers say of themselves: names, shapes and ids, without their content.

tensors = read_tensors(folder)                 # name -> Tensor(shape, dtype, num_bytes, file)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vidllava.backbone.folders import read_json
from vidllava.errors import ModelError

_HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Tensor:
    """One tensor of a weights file, as its header tells it."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors spells it: F32, BF16, ..."""
    num_bytes: int
    file: str


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the whole model in ``folder``. Raises ModelError for files that are missing or torn."""
    index = folder / "model.safetensors.index.json"
    table = _weight_map(index) if index.exists() else {}
    found: dict[str, Tensor] = {}
    for name in sorted(set(table.values())) or ["model.safetensors"]:
        if Path(name).name != name:
            raise ModelError(
                index, f"names a file outside the folder: {name!r}", "download the model from its own place"
            )
        path = folder / name
        if not path.exists():
            pickled = sorted(p.name for p in folder.glob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"})
            hint = "is a pickle and is not loaded: convert it to safetensors"
            raise ModelError(
                folder, f"no {name}", f"{pickled[0]} {hint}" if pickled else "download the model again"
            )
        found |= read_header(path)
    lost = sorted(name for name in table if name not in found or found[name].file != table[name])
    if lost:
        what = f"says that {lost[0]} is in {table[lost[0]]}, which does not hold it"
        raise ModelError(index, what, "download the checkpoint again")
    return found


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file: an 8-byte length, a JSON header, then the data.

    Raises ModelError unless header length, header and file size agree.
    """
    if not path.is_file():
        raise ModelError(path, "not a regular file" if path.exists() else "no such file", "download it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise ModelError(path, "is a Git LFS pointer, not weights", "run: git lfs pull")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT_BYTES):
            raise ModelError(path, f"is not a safetensors file ({size} bytes)", "download it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            found = {name: _tensor(entry, path.name) for name, entry in header.items()}
            end = max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
            raise ModelError(path, "has a damaged safetensors header", "download it again") from None
    if 8 + length + end != size:
        raise ModelError(
            path, f"is torn: {size} bytes, its header promises {8 + length + end}", "download it again"
        )
    return found


def _tensor(entry: Mapping[str, Any], file: str) -> Tensor:
    first, last = entry["data_offsets"]
    return Tensor(tuple(int(size) for size in entry["shape"]), str(entry["dtype"]), last - first, file)


def _weight_map(index: Path) -> dict[str, str]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise ModelError(index, "has no weight_map of tensor names to files", "download it again")
    return table


@lru_cache(maxsize=8)
def _vocabulary(path: Path, _size_bytes: int, _mtime: int) -> tuple[int, str, dict[str, int]]:
    """(highest id, its token, ids of the added tokens) of a ``tokenizer.json``."""
    content = read_json(path)
    try:
        entries = content["model"]["vocab"]
        vocabulary = entries if isinstance(entries, dict) else {one[0]: at for at, one in enumerate(entries)}
        added = {str(one["content"]): int(one["id"]) for one in content.get("added_tokens") or ()}
        token, highest = max({**vocabulary, **added}.items(), key=lambda item: item[1])
    except (KeyError, TypeError, ValueError, IndexError):
        raise ModelError(path, "is not a tokenizer of the tokenizers library", "download it again") from None
    return highest, token, added


def vocabulary(path: Path) -> tuple[int, str, dict[str, int]]:
    """(highest id, its token, ids of the added tokens) of a ``tokenizer.json``. Raises ModelError."""
    status = path.stat()
    return _vocabulary(path, status.st_size, status.st_mtime_ns)
