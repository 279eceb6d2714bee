"""A mixture file: several data sets in one YAML, how much of each is taken, and how often it is drawn.

    datasets:
      - json_path: pictures.json          # or path; relative to this file
        sampling_strategy: random:30%     # all, first:N, end:N, random:N; N a count or a percentage
        weight: 2                         # drawn twice an epoch
        media_root: coco                  # or image_folder, video_folder; relative to this file

Keys that mean nothing here are refused: a slip of the pen must not change what is trained on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidllava.data.keys import kind_of
from vidllava.data.subset import parse_strategy
from vidllava.errors import DatasetError, UsageError

_HEAD_BYTES = 1 << 16
_DATASETS = re.compile(rb"^datasets[ \t]*:", re.MULTILINE)
_PATHS = ("json_path", "path")
_ROOTS = ("media_root", "image_folder", "video_folder")
_KEYS = (*_PATHS, "sampling_strategy", "weight", *_ROOTS)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set of a mixture."""

    path: Path
    strategy: str = "all"
    weight: float = 1.0
    media_root: Path | None = None
    """None leaves it to the command, and else to where the rows lie."""


def is_mixture(path: Path) -> bool:
    """Whether a file is no JSON and is named .yaml or has `datasets:` at the start of a line.

    Raises DatasetError.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise DatasetError(
            path, error.strerror or "cannot be read", "check the path and its permissions"
        ) from None
    named_so = path.suffix.lower() in (".yaml", ".yml")
    return head[:1] not in (b"[", b"{") and (named_so or _DATASETS.search(head) is not None)


def read_mixture(path: Path) -> list[Part]:
    """The data sets of a mixture file. Raises DatasetError naming every entry that cannot be meant."""
    # Not at the top: only those who have such a file need it.
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(
            path, f"is no YAML: {' '.join(str(error).split())}", "see vidllava data --help"
        ) from None
    except OSError as error:
        raise DatasetError(
            path, error.strerror or "cannot be read", "check the path and its permissions"
        ) from None
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DatasetError(
            path, "`datasets` must be a list with an entry for each data set", "see vidllava data --help"
        )
    others = [str(key) for key in content if key != "datasets"]
    if others:
        raise DatasetError(path, f"has unknown keys: {', '.join(others)}", "only `datasets` means something")
    parts: list[Part] = []
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            parts.append(_part(entry, path.parent))
        except (DatasetError, UsageError) as error:
            faults.append(f"entry {number}: {error.what}")
    if faults:
        raise DatasetError(path, "; ".join(faults), f"known keys are {', '.join(_KEYS)}")
    return parts


def _part(entry: Any, folder: Path) -> Part:
    if not isinstance(entry, dict):
        raise DatasetError("entry", f"must be a mapping, not {kind_of(entry)}", "see vidllava data --help")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise DatasetError("entry", f"unknown key {', '.join(unknown)}", "see vidllava data --help")
    path = _one_text(entry, _PATHS)
    if path is None:
        raise DatasetError("entry", "needs `json_path`", "json_path: rows.jsonl")
    strategy = _one_text(entry, ("sampling_strategy",)) or "all"
    parse_strategy(strategy)
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1000:
        raise DatasetError(
            "entry", f"`weight` must be a number above 0, at most 1000, not {weight!r}", "weight: 0.5"
        )
    root = _one_text(entry, _ROOTS)
    return Part(
        path=folder / path,
        strategy=strategy,
        weight=float(weight),
        media_root=None if root is None else folder / root,
    )


def _one_text(entry: dict[Any, Any], names: tuple[str, ...]) -> str | None:
    """The text under one of these names for the same thing."""
    given = {entry[name] for name in names if isinstance(entry.get(name), str)}
    wrong = [name for name in names if entry.get(name) is not None and not isinstance(entry[name], str)]
    if wrong:
        raise DatasetError(
            "entry",
            f"`{wrong[0]}` must be a text, not {kind_of(entry[wrong[0]])}",
            "see vidllava data --help",
        )
    if len(given) > 1:
        raise DatasetError("entry", f"{' and '.join(names)} name different things", "give one of them")
    return next(iter(given), None)
