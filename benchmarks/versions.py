"""Compare the speed of two checkouts on the same commands, alternately, in one run.

    python benchmarks/versions.py OTHER --rounds 5      # OTHER: a checkout with its own .venv

Times `ask`, `finetune` (8 steps), `eval` and one cell of `bench frames` with nano as whole processes, imports
included. Prints one JSON object: per command the median wall and CPU seconds of each checkout, and the ratio
this / other of the medians (below 1: this one is faster). Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from house import command

TASKS = ("ask", "finetune", "eval", "bench frames")


def timed(task: str, root: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one command and its children, run by that checkout's own interpreter."""
    with tempfile.TemporaryDirectory() as name:
        words = command(task, root, Path(name))
        if task == "finetune":
            words[words.index("--max-steps") + 1] = "8"
        environment = {**os.environ, "VIDLLAVA_CACHE": f"{name}/cache", "OMP_NUM_THREADS": "1"}
        used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [root / ".venv/bin/python", "-m", "vidllava.cli.main", *words],
            cwd=root,
            env=environment,
            check=True,
            capture_output=True,
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def compare(this: Path, other: Path, rounds: int) -> dict[str, Any]:
    """Medians and ratios over ``rounds`` alternating pairs, after one pair that is not counted."""
    found: dict[str, Any] = {"rounds": rounds, "load_1min": round(os.getloadavg()[0], 2)}
    for task in TASKS:
        times: dict[str, list[tuple[float, float]]] = {"this": [], "other": []}
        for turn in range(rounds + 1):
            for name, root in (("this", this), ("other", other)):
                measured = timed(task, root)
                if turn:
                    times[name].append(measured)
        wall, cpu = (
            {name: statistics.median(one[kind] for one in times[name]) for name in times} for kind in (0, 1)
        )
        found[task] = {
            "wall_seconds": {name: round(value, 3) for name, value in wall.items()},
            "cpu_seconds": {name: round(value, 3) for name, value in cpu.items()},
            "wall_ratio": round(wall["this"] / wall["other"], 3),
            "cpu_ratio": round(cpu["this"] / cpu["other"], 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    this = Path(__file__).resolve().parents[1]
    print(json.dumps(compare(this, given.other.resolve(), given.rounds), indent=1))


if __name__ == "__main__":
    main()
