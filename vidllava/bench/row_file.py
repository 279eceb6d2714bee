"""A file of rows: JSON lines, each on disk before the next is measured. A run that was cut off goes on.

with RowFile(path, overwrite=False) as file:
    if key not in file.done:
        file.append({"key": key, ...})
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidllava.files.json_log import JsonLog

Row = dict[str, Any]
# How a row begins: of `bench kernels`, of `bench frames`.
_BEGINS = re.compile(rb'\{("kernel": "[a-z]+", "shape": "|"key": "[0-9a-f]{16,}", "cell": ")')


def _is_timed(row: Row) -> bool:
    return row.get("p50_ms") is not None


class RowFile(JsonLog):
    """Rows that stand in the file stay; a last line that was cut off goes. Raises UsageError, ResourceError.

    ``fields`` are those without which a line is no row; ``stands`` says which rows are not measured again.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool,
        fields: Sequence[str] = ("key", "kernel", "direction"),
        stands: Callable[[Row], bool] = _is_timed,
        begins: re.Pattern[bytes] = _BEGINS,
        hint: str = "another name, or --overwrite",
    ) -> None:
        def check(row: Row) -> str | None:
            is_row = all(name in row for name in fields)
            return None if is_row else "is no row of this benchmark"

        super().__init__(path, check=check, begins=begins, overwrite=overwrite, hint=hint)
        try:
            if overwrite:
                self.replace([])
        except BaseException:
            self.close()
            raise
        self.done = frozenset(str(row["key"]) for row in self.records if "key" in row and stands(row))
        """Keys of the rows that stand: of a kernel's, one that was skipped or found wrong is tried again."""

    @property
    def rows(self) -> list[Row]:
        """What stood there."""
        return self.records

    def append(self, row: Row) -> None:
        """One more row, on disk when this returns. Raises ValueError for NaN, which is no figure."""
        encoded(row)
        super().append(row)


def encoded(row: Row) -> str:
    """One line. NaN is refused: it is no JSON, and no figure."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
