"""Time of a second question about a clip, in a conversation and in a new process.

    python benchmarks/second_question.py -o rows.jsonl
    python benchmarks/second_question.py --clip film.mp4 --model onevision-0.5b --repeats 5

Each round, with an empty cache folder: `vidllava ask` (first), the same in another process (restart), and
`vidllava chat --no-cache` with two questions (turn 1, turn 2). Wall seconds of whole processes are taken from
outside; turns and stages are what `--json` says. The clip is made if none is given: 60 s of 1080p H.264 at 30
frames per second, a key frame every 250.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np

QUESTIONS = ("what happens", "Which way does the red circle move?")
SECONDS, FPS, GOP, WIDTH, HEIGHT = 60, 30, 250, 1920, 1080


def write_clip(path: Path) -> Path:
    """Texture that pans, encoded quickly."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 220, (HEIGHT // 8 + 64, WIDTH // 8 + 64, 3), dtype=np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    options = {"preset": "veryfast", "crf": "23", "x264-params": f"keyint={GOP}:min-keyint={GOP}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished_{path.name}")
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SECONDS * FPS):
            left, top = int(250 + 250 * np.sin(number / 90)), int(250 + 250 * np.cos(number / 70))
            view = np.ascontiguousarray(texture[top : top + HEIGHT, left : left + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


def command(*words: str, cache: str, stdin: str | None = None) -> tuple[float, list[dict[str, Any]]]:
    """(wall seconds of the process, the JSON objects on its stdout)."""
    environment = {**os.environ, "VIDLLAVA_CACHE": cache}
    start = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("vidllava")), *words, "--json", "--quiet"],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - start
    if stdin is None:
        return wall, [json.loads(done.stdout)]
    return wall, [json.loads(line) for line in done.stdout.splitlines()]


def one_round(clip: Path, flags: list[str]) -> list[dict[str, Any]]:
    """The rows of one round."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        answers = []
        for what in ("first", "restart"):
            wall, (report,) = command("ask", str(clip), QUESTIONS[0], *flags, cache=cache)
            answers.append(report["answer"])
            rows.append({"what": what, "wall_seconds": wall, "stages": report["seconds"]})
        assert answers[0] == answers[1], "the cache changed an answer"
        wall, turns = command(
            "chat", str(clip), *flags, "--no-cache", cache=cache, stdin="\n".join(QUESTIONS) + "\n"
        )
        assert turns[0]["answer"] == answers[0], "chat answers otherwise than ask"
        for number, turn in enumerate(turns, start=1):
            seconds = turn["seconds"]
            rows.append({"what": f"turn {number}", "wall_seconds": seconds["total"], "stages": seconds})
        rows.append({"what": "chat", "wall_seconds": wall, "stages": {}})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clip", type=Path, help="default: made in build/clips")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="append the rows there, as JSONL")
    given = parser.parse_args()
    clip = given.clip or Path("build/clips/second_question.mp4")
    if given.clip is None and not clip.exists():
        print("making the clip: about two minutes", file=sys.stderr)
        write_clip(clip)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "clip": clip.name,
        "clip_bytes": clip.stat().st_size,
        "model": given.model,
        "num_frames": given.num_frames,
    }
    rows = []
    for repeat in range(given.repeats):
        flags = ["--model", given.model, "--num-frames", str(given.num_frames)]
        rows += [{**about, "repeat": repeat, **row} for row in one_round(clip, flags)]
    if given.output is not None:
        with given.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """Medians, and the two ratios, with and without the import of torch and transformers."""

    def median(what: str, stage: str | None = None) -> float:
        mine = [row for row in rows if row["what"] == what]
        return statistics.median(
            row["wall_seconds"] if stage is None else row["stages"][stage] for row in mine
        )

    for what in ("first", "restart", "turn 1", "turn 2", "chat"):
        stages = next(row["stages"] for row in rows if row["what"] == what)
        parts = ", ".join(f"{stage} {median(what, stage):.3f}" for stage in stages)
        print(f"{what:8} {median(what):7.3f} s   {parts}")
    loading = {what: median(what, "import") + median(what, "load") for what in ("first", "restart")}
    print(f"turn 2 / turn 1: {median('turn 2') / median('turn 1'):.3f}")
    print(f"turn 2 / first process: {median('turn 2') / median('first'):.3f}")
    print(f"restart / first process: {median('restart') / median('first'):.3f}")
    work = {what: median(what) - seconds for what, seconds in loading.items()}
    print(f"the same without import and load: {work['restart'] / work['first']:.3f}")


if __name__ == "__main__":
    main()
