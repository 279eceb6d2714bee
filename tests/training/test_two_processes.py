"""Two processes are one: whatever each of them sees nobody waits, and the losses are those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from tests.tiny import tiny_checkpoint
from tests.training.world_size import DTYPES, STEPS, TEXT_ON_RANK_1, trained

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def torchrun(*words: str, seconds: int = 240) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*TORCHRUN, *words], capture_output=True, text=True, env=environment, timeout=seconds, check=False
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Figures by process: "one", "rank 0", "rank 1"; then by number format."""
    folder = tmp_path_factory.mktemp("two")
    tiny_checkpoint(folder / "tiny", preset="nano")
    done = torchrun("-m", "tests.training.world_size", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    accelerator = Accelerator(cpu=True)
    found = {"one": {str(dtype): trained(folder, dtype, accelerator) for dtype in DTYPES}}
    for rank in range(2):
        found[f"rank {rank}"] = json.loads((folder / f"rank-{rank}.json").read_text())
    return found


def test_every_forward_calls_the_tower_once_also_where_there_is_nothing_to_see(runs):
    """Rank 0 has pictures in every step, rank 1 none, then clips beside text: one call each, of a blank
    where there is nothing. The tower learns, and DDP is not told to look for unused parameters."""
    calls = {name: found["torch.float32"]["tower_calls"] for name, found in runs.items()}
    assert all(len(one) == STEPS for one in calls.values())
    for step in range(STEPS):
        blank = step in TEXT_ON_RANK_1
        assert not blank or calls["rank 1"][step] == 1
        assert calls["one"][step] == calls["rank 0"][step] + calls["rank 1"][step] - blank
    assert runs["rank 0"]["torch.float32"]["world"] == 2


@pytest.mark.parametrize("figure", ["loss", "grad_norm"])
def test_two_processes_give_the_figures_of_one(runs, figure: str):
    """Where a step is computed in float64 only its loss is a float32 sum, of L labels: no two ways to add L
    numbers differ by more than L units of rounding. In float32 two processes may be twice as far from that
    as one process is."""
    exact, one = runs["one"]["torch.float64"], runs["one"]["torch.float32"]
    two64, two32 = (runs["rank 0"][name] for name in ("torch.float64", "torch.float32"))
    unit = exact["labels"] * 2.0**-23
    assert len(exact[figure]) == STEPS
    for step, true in enumerate(exact[figure]):
        assert abs(two64[figure][step] - true) <= unit * true
        assert abs(two32[figure][step] - true) <= 2 * abs(one[figure][step] - true) + unit * true


def test_the_validation_loss_of_two_processes_is_that_of_one(runs):
    """Three batches: one process has two of them, the other one; one row cannot be used."""
    one, *both = (found["torch.float64"]["validated"] for found in runs.values())
    for row in both:
        assert row["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)
        assert row["eval_loss_video"] == pytest.approx(one["eval_loss_video"], rel=1e-6)
        assert [row[f"eval_{name}"] for name in ("samples", "bad_samples", "labels")] == [
            5,
            1,
            one["eval_labels"],
        ]
