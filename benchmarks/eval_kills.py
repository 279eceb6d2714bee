"""Kill an evaluation at random instants, resume it, and compare its file with that of an undisturbed one.

    python -m benchmarks.eval_kills build/kills --questions 1000 --kills 12

Questions on the nano world's long clips, one in twenty about a file that cannot be read. Every run is a
process of its own, ended by SIGKILL. At the end both files are compared line by line, but for measured
seconds and bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from examples.train_nano.long_clips import write_set
from vidllava.evaluation.asking import MEASURED

ONE_BAD_IN = 20
BAD = ("missing.mp4", "text.mp4", "truncated.mp4")


def write_questions(folder: Path, number: int) -> Path:
    """``number`` questions on 40 clips, each with its own id and number of frames."""
    clips = [
        json.loads(line) for line in write_set(folder, 40, durations=(8.0, 16.0)).read_text().splitlines()
    ]
    (folder / "text.mp4").write_text("no video at all\n" * 40, encoding="utf-8")
    (folder / "truncated.mp4").write_bytes((folder / clips[0]["video"]).read_bytes()[:1000])
    rows = []
    for index in range(number):
        row = {**clips[index % len(clips)], "id": f"q{index}", "num_frames": 2 + index % 7}
        if index % ONE_BAD_IN == ONE_BAD_IN - 1:
            row["video"] = BAD[index // ONE_BAD_IN % len(BAD)]
        rows.append(json.dumps(row))
    path = folder / f"questions-{number}.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def command(data: Path, output: Path, batch_size: int) -> list[str]:
    """One run, without a cache that the other one could use."""
    flags = ["--model", "nano", "--data", str(data), "--output", str(output), "--batch-size", str(batch_size)]
    more = ["--no-cache", "--max-failed", "0.1", "--max-new-tokens", "16", "--quiet"]
    return [str(Path(sys.executable).with_name("vidllava")), "eval", *flags, *more]


def comparable(path: Path) -> list[dict[str, Any]]:
    """The lines without what was measured."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def num_lines(path: Path) -> int:
    """Whole lines on disk."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(words: list[str], output: Path, kills: int, rng: random.Random, seconds: float) -> None:
    """Start the run again and again, until it ends by itself."""
    for number in range(kills):
        process = subprocess.Popen(words)
        # From the first imports to the last rows: a share of an undisturbed run, start included.
        wait = rng.uniform(0.5, 2 * seconds / kills + 8)
        try:
            process.wait(timeout=wait)
            print(f"run {number + 1} ended by itself with code {process.returncode}", flush=True)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"killed after {wait:.1f} s: {num_lines(output)} lines on disk", flush=True)
    print("last run: code", subprocess.run(words).returncode, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = write_questions(options.folder, options.questions)
    whole, broken = options.folder / "whole.jsonl", options.folder / "killed.jsonl"
    for path in (whole, broken):
        path.unlink(missing_ok=True)
    start = time.monotonic()
    subprocess.run(command(data, whole, options.batch_size), check=True)
    seconds = time.monotonic() - start
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    words = command(data, broken, options.batch_size)
    killed(words, broken, options.kills, random.Random(options.seed), seconds)
    one, other = comparable(whole), comparable(broken)
    differing = sum(a != b for a, b in zip(one, other, strict=True))
    failed = sum(line["status"] == "decode_error" for line in one)
    answered = sum(bool(line["resps"]) for line in one if line["status"] == "decode_error")
    print(
        f"{len(one)} and {len(other)} lines, {differing} differ; {failed} decode errors, {answered} answered"
    )
    sys.exit(differing > 0 or answered > 0)


if __name__ == "__main__":
    main()
