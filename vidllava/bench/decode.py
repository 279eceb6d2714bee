"""Time of reading the frames of a clip with every reader, and whether they are the right ones.

    for row in measure([path], num_frames=(8, 32), readers=("vidllava", "decord"), repeats=3): ...

From file to [N, H, W, 3] RGB in memory at native size, in a fresh process for each figure. Time is counted
after the imports; probing, opening and converting are in it; CPU seconds are of all threads. Rounds are
interleaved, reader after reader and then again, so that a busy minute hits all alike. Where a frame is wrong
there is no figure.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vidllava.bench.decode_readers import PACKAGES
from vidllava.media.probe import probe

Row = dict[str, Any]
SECONDS = 600  # of one reading: more is a reader that hangs
REFERENCE = "decord"  # whose CPU time the table counts in
LEGEND = (
    "cells: wall seconds / CPU seconds of all threads, medians; from the file to RGB at full size",
    f"in brackets: CPU seconds as a share of {REFERENCE}'s; less is better; wrong frames have no figure",
    "not here: the reader is not installed; failed: the rows (--json, -o) say why",
)


def measure(
    paths: Sequence[Path], *, num_frames: Sequence[int], readers: Sequence[str], repeats: int
) -> Iterator[Row]:
    """A row for each reading. Raises MediaError for a clip that ours cannot read either."""
    for path in paths:
        available = probe(path).num_frames
        for count in dict.fromkeys(min(wanted, available) for wanted in num_frames):
            indices = np.linspace(0, available - 1, count).round().astype(int).tolist()
            with tempfile.TemporaryDirectory() as folder:
                reference = Path(folder) / "reference.npy"
                _in_a_fresh_process("reference", path, indices, reference)
                for number in range(repeats):
                    for reader in readers:
                        found = _in_a_fresh_process(reader, path, indices, reference)
                        yield _row(path, count, reader, number, found)


def _row(path: Path, num_frames: int, reader: str, number: int, found: Row) -> Row:
    return {
        "clip": path.name,
        "num_frames": num_frames,
        "reader": reader,
        "version": _version(reader),
        "round": number,
        **found,
        "cpu_count": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _in_a_fresh_process(reader: str, path: Path, indices: list[int], reference: Path) -> Row:
    numbers = ",".join(map(str, indices))
    command = [sys.executable, "-m", "vidllava.bench.decode_one", reader, str(path), numbers, str(reference)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within {SECONDS} s"}
    if done.returncode:
        return {"failed": f"exit {done.returncode}: {done.stderr.strip()[-200:]}"}
    lines = done.stdout.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def _version(reader: str) -> str | None:
    try:
        return importlib.metadata.version(PACKAGES[reader])
    except importlib.metadata.PackageNotFoundError:
        return None


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Medians for people, the heading first: wall / CPU seconds of each reader, its share of decord's CPU."""
    readers = list(dict.fromkeys(row["reader"] for row in rows))
    lines: list[tuple[str, ...]] = [("clip", "frames", *readers)]
    for clip, count in dict.fromkeys((row["clip"], row["num_frames"]) for row in rows):
        cell = [row for row in rows if (row["clip"], row["num_frames"]) == (clip, count)]
        theirs = _median([row for row in cell if row["reader"] == REFERENCE], "cpu_s")
        shown = [_cell([row for row in cell if row["reader"] == reader], theirs) for reader in readers]
        lines.append((clip, str(count), *shown))
    return lines


def _cell(rows: Sequence[Row], theirs: float | None) -> str:
    wall, cpu = _median(rows, "wall_s"), _median(rows, "cpu_s")
    if wall is None or cpu is None:
        return _why_not(rows)
    share = f" ({cpu / theirs:.2f})" if theirs else ""
    return f"{wall:.2f} / {cpu:.2f}{share}"


def _median(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row.get("wrong") == 0]
    return median(values) if values else None


def _why_not(rows: Sequence[Row]) -> str:
    wrong = [row["wrong"] for row in rows if row.get("wrong")]
    if wrong:
        return f"{max(wrong)} frames wrong"
    return "not here" if any("skipped" in row for row in rows) else "failed"
