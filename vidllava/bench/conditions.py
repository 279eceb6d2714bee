"""Under which conditions was a row measured? Device, versions, commit, threads, load."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import vidllava

SECONDS = 10


def conditions(device: torch.device, *, threads: int) -> dict[str, Any]:
    """What stands in every row, and decides with its shape whether a row is measured already."""
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


def moment(device: torch.device) -> dict[str, Any]:
    """What differs from row to row of one run: the time, other programs' load, the clocks of a GPU."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if device.type == "cuda":
        found |= nvidia_smi("clocks.sm", "clocks.mem", "power.draw")
    return found


def device_name(device: torch.device) -> str:
    """``NVIDIA H100 80GB HBM3``, or the processor's own words."""
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
    """The installed version of a distribution."""
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
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
