"""Peak resident size by number of frames, of the reader and its child process, in fresh processes.

    python benchmarks/memory.py build/clips/1080p_h264_g250.mp4 -o rows.jsonl

Frames go to 384 x 384 as a model takes them, through the child process that `vidllava ask` uses. Memory that
both processes see is counted in both. No model is loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path


def measure(path: str, num_frames: int) -> dict[str, float]:
    """One figure, in this process."""
    from vidllava.media.timeline import SamplingRequest, plan_frames
    from vidllava.media.worker import WorkerSampler

    with WorkerSampler() as sampler:
        info = sampler.probe(path)
        plan = plan_frames(info.frame_times, SamplingRequest(num_frames=num_frames), source=path)
        pixels = sampler.decode(info, plan, size=384).pixels
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    reader, child = (peak / 1024 for peak in peaks)
    return {"num_frames": len(pixels), "reader_mb": round(reader, 1), "child_mb": round(child, 1)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clip")
    parser.add_argument("--num-frames", nargs="*", type=int, default=[8, 128])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.clip, options.num_frames[0])))
        return
    totals = []
    for count in options.num_frames:
        command = [sys.executable, __file__, options.clip, "--one", "--num-frames", str(count)]
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        row = {"clip": Path(options.clip).name, **json.loads(line)}
        totals.append(row["reader_mb"] + row["child_mb"])
        print(json.dumps(row))
        if options.output:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(f"{totals[-1] - totals[0]:.0f} MB more for {options.num_frames[-1]} frames", file=sys.stderr)


if __name__ == "__main__":
    main()
