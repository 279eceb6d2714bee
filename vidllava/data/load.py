"""From what `--data` says to a `Source`: a file of rows, or a generated world named `scheme:rest`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vidllava.data.records import RecordSource
from vidllava.data.source import Source
from vidllava.errors import DatasetError, UsageError

Schemes = Mapping[str, Callable[[str], Source]]


def load_source(spec: str, media_root: str | Path | None = None, *, schemes: Schemes | None = None) -> Source:
    """Open one data set.

    `schemes` maps a name to a function that is given the whole spec: `{"nano-world": world_source}` makes
    `nano-world:train?samples=1000` known. The caller passes it, so that data never imports upwards.
    A file's media are looked up under `media_root`, or beside the file. Raises DatasetError or UsageError.
    """
    scheme, colon, _ = spec.partition(":")
    if colon and scheme in (schemes or {}):
        return (schemes or {})[scheme](spec)
    path = Path(spec)
    if path.is_file():
        return RecordSource(path, media_root)
    if path.is_dir():
        raise DatasetError(path, "is a folder", "name the .json or .jsonl file in it")
    if path.exists():
        raise DatasetError(path, "is not a regular file")
    if not spec:
        raise UsageError("--data", "is empty", "name a .json or .jsonl file")
    known = "".join(f", or {name}:..." for name in schemes or {})
    raise DatasetError(spec, "no such file", f"a .json or .jsonl file{known}")
