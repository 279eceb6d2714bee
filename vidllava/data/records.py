"""LLaVA rows: one JSON object per sample, checked before anything is trained.

    {"id": "7", "image": "a.png" or ["a.png", "b.png"], "conversations": [
        {"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]}
    {"id": "8", "video": "clip.mp4", "video_start": 2.0, "video_end": 9.5, "num_frames": 16, ...}

`<image>` takes the next picture, or the next clip where no picture is left (LLaVA-NeXT writes `<image>` for
a clip too); `<video>` takes the next clip. A file whose text starts with `[` is a JSON list, any other is
JSONL. Every fault of every row is collected; nothing is read outside the media root.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidllava.data.source import Modality, Sample, Visual, modality_of
from vidllava.errors import DatasetError, UsageError
from vidllava.media.timeline import SamplingRequest
from vidllava.prompting.turns import MediaKind, Placeholder, Role, Turn, check_turns

MAX_SHOWN = 20  # faults named in the error; the rest are counted
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_REQUEST_KEYS = {
    "num_frames": "num_frames",
    "fps": "fps",
    "max_frames": "max_frames",
    "video_start": "start_seconds",
    "video_end": "end_seconds",
}


class RowFault(Exception):
    """Why one row cannot be used."""


class RecordSource:
    """The rows of one LLaVA JSON or JSONL file as a `Source`.

    Raises DatasetError naming file and row of every fault (the first 20 in words).
    """

    def __init__(self, path: str | Path, media_root: str | Path | None = None) -> None:
        self.name = str(path)
        root = Path(media_root) if media_root is not None else Path(path).parent
        if not root.is_dir():
            raise DatasetError(root, "the media root is no folder", "give an existing folder as --media-root")
        self._samples: list[Sample] = []
        self._rows: list[int] = []
        faults: list[str] = []
        first_row: dict[str, int] = {}
        total = 0
        text = _read(Path(path))
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        """Of the file's text: a resumed run tells by it whether the data changed."""
        for row, record in _rows(text, Path(path)):
            total += 1
            try:
                if isinstance(record, RowFault):
                    raise record
                sample = parse_record(record, row, root.resolve())
                if sample.id in first_row:
                    raise RowFault(f"id {sample.id!r} was used by row {first_row[sample.id]}")
                first_row[sample.id] = row
                self._samples.append(sample)
                self._rows.append(row)
            except RowFault as fault:
                faults.append(f"row {row}: {fault}")
        if faults:
            shown = "; ".join(faults[:MAX_SHOWN])
            more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
            raise DatasetError(self.name, f"{len(faults)} of {total} rows cannot be used: {shown}{more}")
        if not total:
            raise DatasetError(self.name, "holds no rows")

    def __len__(self) -> int:
        return len(self._samples)

    def modality(self, index: int) -> Modality:
        """Which kind of sample stands at `index`."""
        return modality_of(self._samples[index].visuals)

    def sample(self, index: int) -> Sample:
        """The sample at `index`."""
        return self._samples[index]

    def row(self, index: int) -> int:
        """The row of the file (list entry or line, counted from 1) that sample `index` came from."""
        return self._rows[index]


def parse_record(record: Any, row: int, root: Path) -> Sample:
    """One decoded JSON object as a sample; `root` is the resolved media root. Raises RowFault."""
    if not isinstance(record, dict):
        raise RowFault(f"must be an object, not {_kind(record)}")
    turns = _turns(record)
    pictures = [resolve_media(name, root) for name in _names(record, "image")]
    clips = [resolve_media(name, root) for name in _names(record, "video")]
    request = _request(record) if clips else None
    visuals = _match(turns, pictures, clips, request)
    identity = record.get("id", record.get("sample_id"))
    return Sample(id=str(identity) if identity is not None else f"row-{row}", turns=turns, visuals=visuals)


def resolve_media(name: str, root: Path) -> str:
    """The real path of a media file that a row names, under the resolved `root`. Opens nothing."""
    if "://" in name or name.startswith(("data:", "concat:", "subfile,", "pipe:")):
        raise RowFault(f"{name!r}: remote media are not supported; download the file first")
    if not name or "\0" in name:
        raise RowFault(f"{name!r} is no file name")
    real = Path(os.path.realpath(root / name))
    if not real.is_relative_to(root):
        raise RowFault(f"{name!r} lies outside the media root {root}")
    try:
        mode = real.stat().st_mode
    except OSError:
        raise RowFault(f"{name!r}: no such file under {root}") from None
    if not stat.S_ISREG(mode):
        raise RowFault(f"{name!r} is not a regular file")
    return str(real)


def _turns(record: dict[str, Any]) -> tuple[Turn, ...]:
    spoken = record.get("conversations")
    if not isinstance(spoken, list) or not spoken:
        raise RowFault("needs `conversations`, a list of turns")
    turns = []
    for number, item in enumerate(spoken, 1):
        if not isinstance(item, dict):
            raise RowFault(f"turn {number} must be an object, not {_kind(item)}")
        speaker = item.get("from", item.get("role"))
        text = item.get("value", item.get("content"))
        role = ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise RowFault(f"turn {number} is from {speaker!r}; known are " + ", ".join(ROLES))
        if not isinstance(text, str):
            raise RowFault(f"turn {number} needs a text, not {_kind(text)}")
        if role == "assistant" and not text.strip():
            raise RowFault(f"turn {number} is an empty answer")
        turns.append(Turn(role, text))
    return tuple(turns)


def _match(
    turns: tuple[Turn, ...], pictures: list[str], clips: list[str], request: SamplingRequest | None
) -> tuple[Visual, ...]:
    """Give every placeholder its file, in order; then check the conversation against them."""
    alone = len(pictures) == 1 and not clips
    files = [Visual(kind="picture" if alone else "pictures", path=path) for path in pictures]
    films = [Visual(kind="video", path=path, request=request) for path in clips]
    visuals: list[Visual] = []
    for mark in (mark for turn in turns for mark in turn.placeholders):
        waiting = files if files and mark is Placeholder.IMAGE else films
        if waiting:
            visuals.append(waiting.pop(0))
    visuals += files + films  # left over: the check says how many
    kinds: list[MediaKind] = ["video" if visual.kind == "video" else "picture" for visual in visuals]
    try:
        check_turns(turns, kinds, source="conversations")
    except DatasetError as error:
        raise RowFault(f"{error.thing}: {error.what}") from None
    return tuple(visuals)


def _names(record: dict[str, Any], key: str) -> list[str]:
    value = record.get(key)
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RowFault(f"`{key}` must be a file name or a list of file names")
    return names


def _request(record: dict[str, Any]) -> SamplingRequest | None:
    wanted = {field: record[key] for key, field in _REQUEST_KEYS.items() if record.get(key) is not None}
    for key, field in _REQUEST_KEYS.items():
        value = wanted.get(field)
        allowed = int if field in ("num_frames", "max_frames") else (int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, allowed)):
            raise RowFault(f"`{key}` must be a number, not {_kind(value)}")
    try:
        return SamplingRequest(**wanted) if wanted else None
    except UsageError as error:
        raise RowFault(str(error)) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"is not UTF-8 (byte {error.start})", "convert it to UTF-8") from None
    except OSError as error:
        raise DatasetError(path, error.strerror or "cannot be read") from None


def _rows(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """(row, decoded JSON or a RowFault) pairs; the row is the list entry or the line, counted from 1."""
    if text.lstrip()[:1] == "[":
        rows = _decode(text)
        if isinstance(rows, RowFault):
            raise DatasetError(path, str(rows))
        yield from enumerate(rows, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _decode(line)


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return RowFault(f"invalid JSON at line {error.lineno} column {error.colno}: {error.msg}")
    except RecursionError:
        return RowFault("JSON nested too deeply")


def _kind(value: Any) -> str:
    names = {type(None): "nothing", bool: "a truth value", int: "a number", float: "a number", str: "a text"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")
