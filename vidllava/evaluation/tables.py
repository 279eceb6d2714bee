"""The records of a data set's file: JSON, JSON lines, CSV, or parquet where pyarrow is there.

for number, record in records(Path("test.csv")):    # a record is an object, or the RowFault that says why not
    ...

A JSON object is a record itself if its values are not all objects or lists of them; else its entries are the
records, each with its key under ``KEY``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from vidllava.data.row_file import RowFile
from vidllava.data.source import RowFault
from vidllava.errors import DatasetError
from vidllava.evaluation.item import Record

KEY = "__key__"
MAX_OBJECT_BYTES = 1 << 30
ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


def records(path: Path) -> Iterator[tuple[int, Record | RowFault]]:
    """(row number from 1, record) in order. Raises DatasetError for a file that cannot be read at all."""
    try:
        if path.suffix in (".csv", ".tsv"):
            yield from _table(path)
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json" and _begins_with(path, b"{"):
            yield from _object(path)
        else:
            for raw in RowFile(path).scan():
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
            raise DatasetError(path, f"is no table: {fault}", "check the file") from None


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


def _object(path: Path) -> Iterator[tuple[int, Record | RowFault]]:
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
        for raw in RowFile(path).scan():  # several objects: one a line
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
