"""Kill a training run at random instants, resume it each time, and compare the result bit for bit.

    python benchmarks/kills.py build/kills --kills 20 -o rows.jsonl

One run is left alone and keeps all its checkpoints. Others are killed, in turns while a checkpoint is
written, soon after one and at any instant, and resumed with `--resume-from-checkpoint latest` until they
end; it starts anew where there is none yet. After every kill the newest complete checkpoint must be, byte
for byte, the one that the first run wrote at that step; at the end weights, metrics and ledger must be the
same. The instants come from --seed; what they hit hangs on the machine and is in the rows.

Runs are forks of this process: torch is imported once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vidllava.training.session  # noqa: F401  imported before the forks
from vidllava.cli import main as command_line
from vidllava.training.checkpoint import find_checkpoint

FIGURES = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "vision_lr",
    "projector_lr",
    "grad_norm",
    "nonfinite_steps",
)
NEVER = 1e9
RESUME = (
    "--resume-from-checkpoint",
    "latest",
)  # also at first: one command line starts, resumes and ends a run
AIMS = ("writing", "after", "any")  # in turns: inside a checkpoint, soon after one, at any instant


class Differs(Exception):
    """A killed run is not the run that was left alone."""


def fork(words: Sequence[str], log: Path) -> int:
    """Start one command in a child; returns its process id."""
    child = os.fork()
    if child:
        return child
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        code = command_line.run(words)
    finally:
        os._exit(code)


def ended(child: int, seconds: float, seen: Callable[[], bool] = lambda: False) -> int | None:
    """The exit code of a child that ends within `seconds`; None if it goes on, or `seen()` came first."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not seen():
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def killed(
    words: Sequence[str], output: Path, log: Path, rng: np.random.Generator, attempt: int, seconds: float
) -> dict[str, Any]:
    """Start a run and kill it; `exit_code` is there if it ended before that."""
    aim = AIMS[attempt % len(AIMS)]
    which, delay = int(rng.integers(2, 4)), float(rng.uniform(0, 0.25))
    child = fork(words, log)

    def writing() -> bool:
        return any(output.glob(".writing-*"))

    code = None
    if aim == "any":
        code = ended(child, float(rng.uniform(0, seconds)))
    else:  # the n-th checkpoint of this process, while it is written or after it
        seen = [writing, lambda: not writing()] * which
        for wanted in seen[:-1] if aim == "writing" else seen:
            code = ended(child, NEVER, wanted) if code is None else code
        code = ended(child, delay) if code is None else code
    if code is not None:
        return {"exit_code": code}
    half_written = sorted(path.name for path in output.glob(".writing-*"))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"aim": aim, "half_written": half_written}


def same_files(one: Path, other: Path) -> None:
    """Raises Differs unless both folders hold the same files with the same bytes."""
    names = [
        sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        for root in (one, other)
    ]
    if names[0] != names[1]:
        raise Differs(f"{other}: {set(names[0]) ^ set(names[1])}")
    for name in names[0]:
        if (one / name).read_bytes() != (other / name).read_bytes():
            raise Differs(f"{other / name} is not {one / name}")


def same_result(one: Path, other: Path) -> None:
    """Raises Differs unless weights, metrics and ledger are the same."""
    rows = [
        [
            [row[name] for name in FIGURES]
            for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        ]
        for folder in (one, other)
    ]
    ledgers = [p.read_bytes() if p.exists() else b"" for p in (one / "ledger.jsonl", other / "ledger.jsonl")]
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, other)]
    for what, pair in (("metrics", rows), ("ledgers", ledgers), ("weights", weights)):
        if pair[0] != pair[1]:
            raise Differs(f"{what} of {other}")


def chain(
    words: Sequence[str], folder: Path, number: int, rng: np.random.Generator, most: int, seconds: float
):
    """One run, killed and resumed at most `most` times; yields a row per kill."""
    output, log = folder / f"killed-{number}", folder / f"killed-{number}.log"
    for attempt in range(most + 1):
        workers = ["--dataloader-num-workers", str(attempt % 2)]  # they change nothing, and must die too
        again = [*words, *workers, "--output-dir", str(output), *RESUME]
        if attempt == most:
            row: dict[str, Any] = {"exit_code": ended(fork(again, log), NEVER)}
        else:
            row = killed(again, output, log, rng, attempt, seconds)
        if row.get("exit_code", 0) != 0:
            raise Differs(f"exit code {row['exit_code']}: {log.read_text()[-500:]}")
        if "exit_code" in row:
            break
        found, skipped = find_checkpoint(output)
        if found is not None:
            same_files(folder / "whole" / found.folder.name, found.folder)
        yield {"run": number, **row, "resumed_after": found and found.step, "skipped": list(skipped)}
    same_result(folder / "whole", output)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder for the runs")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--data", default="nano-world:2-ov?size=60")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("-o", "--output", type=Path, help="append a row per kill there, as JSONL")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True)
    words = ["finetune", "--model", given.model, "--data", given.data, "--device", "cpu", "--quiet"]
    words += ["--max-steps", str(given.steps), "--save-steps", "2", "--logging-steps", "3"]
    words += ["--per-device-train-batch-size", "2", "--learning-rate", "1e-4"]
    start = time.monotonic()
    whole = fork([*words, "--output-dir", str(given.folder / "whole")], given.folder / "whole.log")
    if ended(whole, NEVER) != 0:
        sys.exit((given.folder / "whole.log").read_text())
    seconds, rng, rows = time.monotonic() - start, np.random.default_rng(given.seed), []
    number = 0
    while len(rows) < given.kills:
        most = min(4, given.kills - len(rows))
        for row in chain(words, given.folder, number, rng, most, seconds):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
        number += 1
    if given.output is not None:
        with given.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    inside = sum(bool(row["half_written"]) for row in rows)
    resumed = sum(row["resumed_after"] is not None for row in rows)
    print(
        f"{len(rows)} kills of {number} runs, {inside} inside a checkpoint, {resumed} resumed: all bit-equal"
    )


if __name__ == "__main__":
    main()
