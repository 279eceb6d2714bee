"""A table of what the sampler makes of each file of a folder: what came back and how.

    python benchmarks/media.py FOLDER                     every playable file against a sequential decode
    python benchmarks/media.py FOLDER -o rows.jsonl

Eight frames by the planned sampler, in a child process with a deadline as `vidllava ask` has it, are compared
with a decode from the first frame on, pixel by pixel. Refused files show the line that a user would read. A
file must be read or refused alike for 1, 8 and 32 frames (else UNEQUAL), and end in frames or one line (else
FAULT). Exit code 1 where a row is DIFFERENT, UNEQUAL or FAULT.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidllava.errors import VidllavaError
from vidllava.media.decoders import pyav
from vidllava.media.planned_reader import UnverifiedError
from vidllava.media.probe import VideoInfo, media_kind, probe
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.media.worker import WorkerSampler

# Beyond this many pixels in all, the sequential decode that is compared with takes minutes.
MAX_COMPARED_PIXELS = 30e9
COUNTS = (8, 1, 32)  # the first one is compared
WRONG = ("DIFFERENT", "UNEQUAL", "FAULT")


def look(path: Path, sampler: WorkerSampler) -> dict[str, Any]:
    """One row."""
    start = time.perf_counter()
    try:
        if media_kind(path) == "picture":
            height, width = sampler.picture(str(path)).shape[:2]
            row = _row(path, start, "picture", f"{width}x{height}")
            row["notes"] = list(sampler.picture_notes(str(path)))
            return row
        answers = [_frames(path, sampler, count) for count in COUNTS]
    except VidllavaError as refused:
        return _row(path, start, "refused", str(refused).removeprefix(f"{path}: "))
    except Exception as fault:
        return _row(path, start, "FAULT", f"{type(fault).__name__}: {fault}")
    refusals = [str(answer).removeprefix(f"{path}: ") for answer in answers if isinstance(answer, Exception)]
    if refusals:
        few = dict(
            zip(COUNTS, ("refused" if isinstance(a, Exception) else "read" for a in answers), strict=True)
        )
        alike = len(refusals) == len(COUNTS)
        return _row(
            path, start, "refused" if alike else "UNEQUAL", refusals[0] if alike else f"{few} {refusals}"
        )
    info, plan, batch = answers[0]
    row = _row(path, start, "", batch.method)
    row["frames"], row["codec"] = info.num_frames, info.codec
    row["notes"] = [*info.notes, *batch.notes]
    if info.num_frames * info.width * info.height > MAX_COMPARED_PIXELS:
        row["result"] = "not compared"
    else:
        row["result"] = (
            "identical"
            if np.array_equal(batch.pixels, _in_sequence(path, plan, batch.notes))
            else "DIFFERENT"
        )
    return row


def _frames(path: Path, sampler: WorkerSampler, count: int) -> Any:
    """(info, plan, batch), or the error with which so many frames are refused."""
    info = sampler.probe(str(path))
    try:
        plan = plan_frames(info.frame_times, SamplingRequest(num_frames=count), source=path.name)
        return info, plan, sampler.decode(info, plan, size=64)
    except VidllavaError as refused:
        return refused


def _in_sequence(path: Path, plan: Any, notes: tuple[str, ...]) -> np.ndarray:
    def refuse(*_: object) -> None:
        raise UnverifiedError("compared with", damaged=True)  # one thread: nothing races

    planned, pyav.collect_planned = pyav.collect_planned, refuse
    try:
        from vidllava.media.decode import decode

        info: VideoInfo = probe(path)
        if not any(note.startswith("damaged") for note in info.notes) and not notes:
            # Frame i is the i-th that is decoded, whatever its stamp.
            info = replace(info, frame_ticks=None, sequential_because="compared with")
        return decode(info, plan, size=64).pixels
    finally:
        pyav.collect_planned = planned


def _row(path: Path, start: float, result: str, how: str) -> dict[str, Any]:
    return {"file": path.name, "result": result, "seconds": round(time.perf_counter() - start, 2), "how": how}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="also a JSON line for each file")
    options = parser.parse_args()
    rows = []
    with WorkerSampler() as sampler:
        for path in sorted(one for one in options.folder.rglob("*") if one.is_file()):
            rows.append(look(path, sampler))
            row = rows[-1]
            print(
                f"{row['file'][:44]:46}{row['result']:14}{row['seconds']:>6}  {row['how'][:110]}", flush=True
            )
    if options.output:
        options.output.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    counts = {result: sum(row["result"] == result for row in rows) for result in {r["result"] for r in rows}}
    print(counts, f"slowest {max(row['seconds'] for row in rows)} s")
    sys.exit(1 if any(counts.get(result) for result in WRONG) else 0)


if __name__ == "__main__":
    main()
