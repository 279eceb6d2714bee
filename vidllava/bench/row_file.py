"""A file of rows: JSON lines, each on disk before the next is measured. A run that was cut off goes on.

with RowFile(path, overwrite=False) as file:
    if key not in file.done:
        file.append({"key": key, ...})
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from vidllava.errors import ResourceError, UsageError

Row = dict[str, Any]


def _is_timed(row: Row) -> bool:
    return row.get("p50_ms") is not None


class RowFile:
    """Rows that stand in the file stay; a torn last line is cut off. Raises UsageError, ResourceError.

    ``fields`` are those without which a line is no row; ``stands`` says which rows are not measured again.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool,
        fields: Sequence[str] = ("key", "kernel", "direction"),
        stands: Callable[[Row], bool] = _is_timed,
    ) -> None:
        self.path = path
        self._fields = fields
        if path.exists() and not path.is_file():
            raise UsageError(f"--output {path}", "is no regular file", "give a file name")
        try:
            self._file = path.open("r+b" if path.exists() else "w+b")
        except OSError as fault:
            raise UsageError(f"--output {path}", f"cannot be written: {fault.strerror}") from None
        try:
            self.rows: list[Row] = [] if overwrite else self._read()
            """What stood there."""
            if overwrite:
                self._file.truncate(0)
            self._file.seek(0, os.SEEK_END)
        except BaseException:
            self._file.close()
            raise
        self.done = frozenset(str(row["key"]) for row in self.rows if stands(row))
        """Keys of the rows that stand: of a kernel's, one that was skipped or found wrong is tried again."""

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, row: Row) -> None:
        """One more row, on disk when this returns."""
        try:
            self._file.write(encoded(row).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as fault:
            raise ResourceError(self.path, f"cannot be written: {fault.strerror}", "make room") from None

    def _read(self) -> list[Row]:
        data = self._file.read()
        whole, end, _torn = data.rpartition(b"\n")
        self._file.truncate(len(whole) + len(end))
        rows: list[Row] = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                _ = [row[name] for name in self._fields]
            except (ValueError, TypeError, KeyError, RecursionError):
                what = f"line {number} is no row of this benchmark"
                raise UsageError(f"--output {self.path}", what, "another name, or --overwrite") from None
            rows.append(row)
        return rows


def encoded(row: Row) -> str:
    """One line. NaN is refused: it is no JSON, and no figure."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
