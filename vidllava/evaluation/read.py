"""Labelled questions read from what ``--data`` names: the data set is recognised, every row is checked.

found = read_set(Path("long.jsonl"))            # or a folder; task="own" where content does not tell
found.task.name, found.items[0].prompt, found.notes

for number, record in records(Path("test.csv")):    # a record is an object, or the RowFault that says why not

A file is JSON, JSON lines, CSV, or parquet where pyarrow is there. A JSON object is a record itself if its
values are not all objects; else its entries are the records, each with its key under ``KEY``.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidllava.data.media_root import MediaRoot
from vidllava.data.row_file import RecordFile
from vidllava.data.source import RowFault
from vidllava.errors import DatasetError, UsageError
from vidllava.evaluation.benchmarks import tasks
from vidllava.evaluation.item import DataEntry, EvalItem, Record, Task

MAX_SHOWN = 5  # faults named in the error; the rest are counted
HEAD_ROWS = 100  # looked at to tell the format: a torn first row must not hide it
KEY = "__key__"
MAX_OBJECT_BYTES = 1 << 30
ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class EvalSet:
    """A data set, ready to be asked."""

    task: Task
    items: tuple[EvalItem, ...]
    notes: tuple[str, ...] = ()


def read_set(
    path: Path, *, task: str | None = None, media_root: Path | None = None, limit: int | None = None
) -> EvalSet:
    """Read ``path``, a file or a folder; ``limit`` keeps the first questions only.

    Raises DatasetError naming the first few bad rows and the number of all, UsageError for an unknown task.
    """
    chosen = _named(task)
    if not path.exists():
        raise DatasetError(path, "no such file or folder", "check --data")
    if chosen is None:
        chosen = _recognised(path)
    files = _files(path, chosen)
    base = path if path.is_dir() else path.parent
    root = MediaRoot(base if media_root is None else media_root)
    items, faults, number = _read(files, chosen, root)
    if faults:
        more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
        what = f"{len(faults)} of {number} rows cannot be used: {'; '.join(faults[:MAX_SHOWN])}{more}"
        raise DatasetError(path, what, f"read as {chosen.name}; --task names another format")
    if not items:
        raise DatasetError(path, f"holds no {'questions' if number else 'rows'}", "one record a question")
    if media_root is None and not any(os.path.exists(file) for item in items for file in item.paths):
        what = f"none of its media is there; the first is {items[0].media[0]!r}"
        raise DatasetError(path, what, f"looked under {base}; --media-root FOLDER")
    return EvalSet(chosen, tuple(items[:limit]), (*_left_out(path, files), *_notes(items)))


def _named(task: str | None) -> Task | None:
    if task is None:
        return None
    known = {each.name: each for each in tasks()}
    if task not in known:
        raise UsageError(f"--task {task}", "no such data set", f"one of {', '.join(known)}")
    return known[task]


def _recognised(path: Path) -> Task:
    """The task of the first file that any task recognises. Raises DatasetError."""
    candidates = [path] if path.is_file() else _tables(path)
    for file in candidates:
        first = _first(file)
        found = [task for task in tasks() if first is not None and task.recognises(first, file)]
        if found:
            return found[0]
    if path.is_file():
        resembling = _resembling(path)
        if resembling is not None:
            return resembling
    shown = f" ({len(candidates)} files looked at)" if path.is_dir() else ""
    raise DatasetError(
        path, f"is in no format that is known here{shown}", "--task NAME; see vidllava eval --help"
    )


def _first(file: Path) -> Record | None:
    """The first sound record of the head."""
    head = (record for _, record in itertools.islice(records(file), HEAD_ROWS))
    return next((record for record in head if isinstance(record, dict)), None)


def _resembling(path: Path) -> Task | None:
    """The task whose records a file's head resembles. Raises DatasetError where it has no record."""
    head = list(itertools.islice(records(path), HEAD_ROWS))
    sound = [record for _, record in head if isinstance(record, dict)]
    if sound:
        asked = ((task, task.resembles) for task in tasks() if task.resembles is not None)
        return next((task for task, resembles in asked if any(map(resembles, sound))), None)
    hint = "one JSON object a line, or a list of them"
    if not head:
        raise DatasetError(path, "holds no rows", hint)
    number, fault = head[0]
    said = str(fault)
    mark = "invalid JSON"
    what = f" is not JSON: {said.removeprefix(mark).lstrip(': ')}" if said.startswith(mark) else f": {said}"
    raise DatasetError(path, f"row {number}{what}", hint)


def _files(path: Path, task: Task) -> Sequence[Path]:
    if path.is_file():
        return [path]
    heads = [(file, _first(file)) for file in _tables(path)]
    found = [file for file, first in heads if first is not None and task.recognises(first, file)]
    if not found:
        raise DatasetError(path, f"holds no file of {task.name}", "give the file itself as --data")
    return found


def _left_out(path: Path, files: Sequence[Path]) -> list[str]:
    """Files of a folder that look like records, and are none of this data set's questions."""
    names = [file.name for file in (_tables(path) if path.is_dir() else ()) if file not in files]
    if not names:
        return []
    more = ", ..." if len(names) > MAX_SHOWN else ""
    return [f"{path}: not read: {', '.join(names[:MAX_SHOWN])}{more}"]


def _tables(folder: Path) -> list[Path]:
    """Files that may hold records, at most one folder down: media folders are not searched."""
    found = [path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()]
    for below in folder.iterdir():
        if below.is_dir():
            found += [path for path in below.iterdir() if path.suffix in ENDINGS and path.is_file()]
    return sorted(found)


def _read(files: Sequence[Path], task: Task, root: MediaRoot) -> tuple[list[EvalItem], list[str], int]:
    items: list[EvalItem] = []
    faults: list[str] = []
    first_use: dict[str, str] = {}
    number = 0
    for file in files:
        prefix = f"{file.name} " if len(files) > 1 else ""
        for row, record in records(file):
            number += 1
            where = f"{prefix}row {row}"
            try:
                if isinstance(record, RowFault):
                    raise record
                for item in task.read(DataEntry(record, row, file, root)):
                    if item.id in first_use:
                        raise RowFault(f"id {item.id!r} was used by {first_use[item.id]}")
                    first_use[item.id] = where
                    items.append(item)
            except RowFault as fault:
                faults.append(f"{where}: {fault}")
    return items, faults, number


def _notes(items: Sequence[EvalItem]) -> list[str]:
    missing = sum(not all(os.path.exists(path) for path in item.paths) for item in items)
    notes = [f"{missing} of {len(items)} questions name media that are not there"] if missing else []
    hidden = sum(item.answer is None for item in items)
    return notes + ([f"the labels of {hidden} of {len(items)} questions are hidden"] if hidden else [])


def records(path: Path) -> Iterator[tuple[int, Record | RowFault]]:
    """(row number from 1, record) in order. Raises DatasetError for a file that cannot be read at all."""
    try:
        if path.suffix in (".csv", ".tsv"):
            yield from _table(path)
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json" and _begins_with(path, b"{"):
            yield from _entries(path)
        else:
            for raw in RecordFile(path).scan():
                value = raw.value
                if not isinstance(value, RowFault | dict):
                    value = RowFault("must be an object")
                yield raw.number, value
    except UnicodeDecodeError as fault:
        raise DatasetError(path, f"is not UTF-8 (byte {fault.start})", "convert it to UTF-8") from None
    except OSError as fault:
        raise DatasetError(path, fault.strerror or "cannot be read", "check the path") from None


def _begins_with(path: Path, mark: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(1 << 12).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark)


def _table(path: Path) -> Iterator[tuple[int, Record]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            for number, row in enumerate(rows, 1):
                yield number, {key: value for key, value in row.items() if isinstance(key, str)}
        except csv.Error as fault:
            raise DatasetError(path, f"is not a table: {fault}", "check the file") from None


def _parquet(path: Path) -> Iterator[tuple[int, Record]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DatasetError(path, "is parquet, and pyarrow is not installed", "pip install pyarrow") from None
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except ArrowException as fault:
        raise DatasetError(path, f"cannot be read as parquet: {fault}", "check the file") from None


def _entries(path: Path) -> Iterator[tuple[int, Record | RowFault]]:
    """A file that begins with ``{``: JSON lines under the name .json, or one object of entries."""
    if path.stat().st_size > MAX_OBJECT_BYTES:
        raise DatasetError(
            path, f"is one JSON object of more than {MAX_OBJECT_BYTES >> 30} GiB", "JSON lines"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as fault:
        if fault.msg != "Extra data":
            what = f"invalid JSON at line {fault.lineno} column {fault.colno}: {fault.msg}"
            raise DatasetError(path, what, "check the file") from None
        for raw in RecordFile(path).scan():  # several objects: one a line
            yield raw.number, raw.value
        return
    except RecursionError:
        raise DatasetError(path, "JSON nested too deeply", "check the file") from None
    except ValueError as fault:  # not UTF-8, or a number of thousands of digits
        raise DatasetError(path, f"cannot be read as JSON: {fault}", "check the file") from None
    if not found or not all(isinstance(value, dict) for value in found.values()):
        yield 1, found
        return
    for number, (key, value) in enumerate(found.items(), 1):
        yield number, {KEY: key, **value}
