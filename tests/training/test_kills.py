"""Killed at random instants and resumed, a run is bit for bit the one left alone: `benchmarks/kills.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kills import Differs, same_files, same_result

ROOT = Path(__file__).resolve().parents[2]


def test_four_kills_lose_nothing(checkpoint: Path, tmp_path: Path):
    words = [
        "--kills",
        "4",
        "--steps",
        "8",
        "--model",
        str(checkpoint),
        "--data",
        "nano-world:2-ov?size=40&turns=2",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kills.py"), str(tmp_path / "runs"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kills, resumed = re.fullmatch(r"(\d+) kills of .* (\d+) resumed: all bit-equal\n", done.stdout).groups()  # type: ignore[union-attr]
    assert int(kills) == 4
    assert int(resumed) >= 2, "else nothing was shown"


def test_a_difference_of_one_bit_is_seen(tmp_path: Path):
    row = {"step": 1, "epoch": 0.1, "loss": 2.0, "learning_rate": 1.0, "vision_lr": 1.0, "projector_lr": 1.0}
    for name, loss, weights in (("a", 2.0, b"ab"), ("b", 2.0, b"ac"), ("c", 2.0000000000000004, b"ab")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        rows = json.dumps(row | {"loss": loss, "grad_norm": 1.0, "nonfinite_steps": 0})
        (folder / "metrics.jsonl").write_text(rows)
    same_result(tmp_path / "a", tmp_path / "a")
    with pytest.raises(Differs, match="weights"):
        same_result(tmp_path / "a", tmp_path / "b")
    with pytest.raises(Differs, match="metrics"):
        same_result(tmp_path / "a", tmp_path / "c")
    with pytest.raises(Differs, match=r"model\.safetensors is not"):
        same_files(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "more").touch()
    with pytest.raises(Differs, match="more"):
        same_files(tmp_path / "a", tmp_path / "b")
