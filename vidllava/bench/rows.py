"""Rows of measurements: the file that they go to, and the conditions that each of them states.

    with RowLog(path, overwrite=False) as file:
        if key not in file.done:
            file.append({"key": key, ..., **conditions(device, threads=1), **moment(device)})

A file holds JSON lines, each on disk before the next is measured. A run that was cut off goes on.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vidllava
from vidllava.files.json_log import JsonLog

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]
# How a row begins: of `bench kernels`, of `bench frames`.
_BEGINS = re.compile(rb'\{("kernel": "[a-z]+", "shape": "|"key": "[0-9a-f]{16,}", "cell": ")')


def _is_timed(row: Row) -> bool:
    return row.get("p50_ms") is not None


class RowLog(JsonLog):
    """Rows that stand in the file stay; a last line that was cut off goes. Raises UsageError, ResourceError.

    ``fields`` are those without which a line is not a row; ``stands`` says which rows are not measured again.
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
            return None if is_row else "is not a row of this benchmark"

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
        """One more row, on disk when this returns. Raises ValueError for NaN, which is not a figure."""
        encoded(row)
        super().append(row)


def encoded(row: Row) -> str:
    """One line. NaN is refused: it is not JSON, and no figure."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def conditions(device: torch.device, *, threads: int) -> dict[str, Any]:
    """What stands in every row, and decides with its shape whether a row is measured already."""
    import torch

    commit, changed = commit_of(Path(vidllava.__file__).parent)
    found: dict[str, Any] = {
        "device": device_name(device),
        "threads": threads,
        "vidllava": vidllava.__version__,
        "commit": commit,
        "uncommitted_changes": changed,
        "torch": torch.__version__,
        "triton": version("triton"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "driver": None,
    }
    if device.type == "cuda":
        found |= {"driver": nvidia_smi("driver_version")["driver_version"]}
    return found


def moment(device: torch.device | None = None) -> dict[str, Any]:
    """What differs from row to row of one run: the time, other programs' load, the clocks of a GPU."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if device is not None and device.type == "cuda":
        found |= nvidia_smi("clocks.sm", "clocks.mem", "power.draw")
    return found


def device_name(device: torch.device) -> str:
    """``NVIDIA H100 80GB HBM3``, or the processor's own words."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def version(package: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    import importlib.metadata  # a tenth of the start-up time of every other command

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of a folder that git tracks; else (None, None)."""
    # An installed package may lie inside some other project's checkout, which tracks none of its files.
    if _output("git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    head = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    places = [":/vidllava", ":/kernels"]
    changes = _output("git", "-C", str(folder), "status", "--porcelain", "-uno", "--", *places)
    return (head or "").strip() or None, None if changes is None else bool(changes.strip())


def nvidia_smi(*names: str) -> dict[str, str | None]:
    """The named fields of the first device; None where the program is missing or fails."""
    text = _output("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader")
    if not text:
        return dict.fromkeys(names)
    return dict(zip(names, (field.strip() for field in text.splitlines()[0].split(",")), strict=True))


def _output(program: str, *arguments: str) -> str | None:
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
