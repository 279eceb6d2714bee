"""How long do the frames of a clip take, and are they the right ones? One fresh process for each figure.

    python benchmarks/decode.py --clips build/clips -o rows.jsonl          all readers that import
    python benchmarks/decode.py --num-frames 32 --reader vidllava decord --repeats 5

From file to [N, H, W, 3] RGB in memory at native size. Time is counted after the imports; probing, opening
and converting are in it. CPU seconds are of all threads. A figure whose frames are wrong counts as none.
Rounds are interleaved: reader after reader, then again, so that a busy minute hits all alike.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from clips import CLIPS, NUM_FRAMES, read_number, write

Pictures = Sequence[npt.NDArray[np.uint8]]
Reader = Callable[[str, list[int]], Pictures]


def with_vidllava(path: str, indices: list[int], threads: int | None = None) -> Pictures:
    """Ours: probe, then the planned sampler."""
    from vidllava.media import planned_reader
    from vidllava.media.decode import decode
    from vidllava.media.frames import FramePlan
    from vidllava.media.probe import probe

    if threads is not None:
        planned_reader.num_threads = lambda: threads
    info = probe(path)
    times = tuple(float(info.frame_times[index]) for index in indices)
    return decode(info, FramePlan(times, tuple(indices), times, "benchmark")).pixels


def with_one_thread(path: str, indices: list[int]) -> Pictures:
    """Ours on one thread: what a loader with many processes uses."""
    return with_vidllava(path, indices, threads=1)


def with_decord(path: str, indices: list[int]) -> Pictures:
    """decord as LLaVA's code uses it: default threads, one get_batch."""
    import decord

    return decord.VideoReader(path, ctx=decord.cpu(0)).get_batch(indices).asnumpy()


def with_pyav(path: str, indices: list[int]) -> Pictures:
    """PyAV as it is commonly written: decode from the start, keep what is wanted."""
    import av

    wanted, found = set(indices), []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
            if len(found) == len(indices):
                break
    return found


def with_opencv(path: str, indices: list[int]) -> Pictures:
    """OpenCV: grab all, retrieve what is wanted (setting the position is slower still)."""
    import cv2

    wanted, found, reader = set(indices), [], cv2.VideoCapture(path)
    number = 0
    while len(found) < len(indices) and reader.grab():
        if number in wanted:
            found.append(cv2.cvtColor(reader.retrieve()[1], cv2.COLOR_BGR2RGB))
        number += 1
    return found


def with_torchcodec(path: str, indices: list[int]) -> Pictures:
    """torchcodec, exact, automatic threads."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=0, seek_mode="exact", dimension_order="NHWC")
    return decoder.get_frames_at(indices).data.numpy()


READERS: dict[str, Reader] = {
    "vidllava": with_vidllava,
    "vidllava, 1 thread": with_one_thread,
    "decord": with_decord,
    "pyav": with_pyav,
    "opencv": with_opencv,
    "torchcodec": with_torchcodec,
}
_PACKAGES = {"vidllava, 1 thread": "vidllava", "pyav": "av", "opencv": "opencv-python-headless"}


def measure(reader: str, path: str, num_frames: int) -> dict[str, object]:
    """One figure, in this process."""
    indices = [int(index) for index in np.linspace(0, NUM_FRAMES - 1, num_frames)]
    # A first use of the reader on nothing: what remains is the work.
    try:
        READERS[reader](os.devnull, [0])
    except ImportError as missing:
        return {"skipped": str(missing).splitlines()[0]}
    except Exception:
        pass
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        pictures = READERS[reader](path, indices)
    except Exception as fault:
        return {"failed": f"{type(fault).__name__}: {fault}".splitlines()[0][:200]}
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    numbers = [read_number(np.asarray(picture)) for picture in pictures]
    wrong = len(indices) - sum(a == b for a, b in zip(numbers, indices, strict=False))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **{key: round(value, 4) for key, value in seconds.items()},
        "wrong": wrong,
        "peak_mb": round(peak),
    }


def _in_a_fresh_process(reader: str, path: Path, num_frames: int) -> dict[str, object]:
    command = [sys.executable, __file__, "--one", reader, str(path), str(num_frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": f"exit {done.returncode}: {done.stderr.strip()[-200:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def _version(reader: str) -> str:
    try:
        return importlib.metadata.version(_PACKAGES.get(reader, reader))
    except importlib.metadata.PackageNotFoundError:
        return ""


def summary(rows: Sequence[dict]) -> str:
    """Medians for people: wall / CPU seconds for each reader, and the CPU share of decord's."""
    cells: dict[tuple[str, int], dict[str, list[dict]]] = {}
    for row in rows:
        cells.setdefault((row["clip"], row["num_frames"]), {}).setdefault(row["reader"], []).append(row)
    names = list(dict.fromkeys(row["reader"] for row in rows))
    lines = ["".join([f"{'clip':24}{'N':>4}", *(f"{name:>22}" for name in names)])]
    for (clip, count), readers in cells.items():
        line = f"{clip:24}{count:>4}"
        reference = _median(readers.get("decord", []), "cpu_s")
        for name in names:
            timed = [row for row in readers.get(name, []) if row.get("wrong") == 0]
            if not timed:
                line += f"{_why_not(readers.get(name, [])):>22}"
                continue
            cpu = _median(timed, "cpu_s")
            share = f" {cpu / reference:4.2f}" if reference and cpu else ""
            cell = f"{_median(timed, 'wall_s'):.2f} / {cpu:.2f}{share}"
            line += f"{cell:>22}"
        lines.append(line)
    return "\n".join(lines) + "\n\nwall / CPU seconds, medians; then CPU seconds as a share of decord's"


def _median(rows: Sequence[dict], key: str) -> float | None:
    values = [row[key] for row in rows if row.get("wrong") == 0]
    return statistics.median(values) if values else None


def _why_not(rows: Sequence[dict]) -> str:
    if any("wrong" in row for row in rows):
        return f"{max(row.get('wrong', 0) for row in rows)} frames wrong"
    return "not here" if any("skipped" in row for row in rows) else "failed"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--clips", type=Path, default=Path("build/clips"), help="folder of clips; made if missing"
    )
    parser.add_argument("--clip", nargs="*", default=list(CLIPS), choices=CLIPS)
    parser.add_argument("--reader", nargs="*", default=list(READERS), choices=READERS)
    parser.add_argument("--num-frames", nargs="*", type=int, default=[8, 32, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="append a JSON line for each figure")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], options.one[1], int(options.one[2]))))
        return
    machine = {"cpu_count": os.cpu_count(), "cpu": platform.processor(), "python": platform.python_version()}
    rows = []
    for name in options.clip:
        path = write(options.clips, name)
        for count in options.num_frames:
            for round_number in range(options.repeats):
                for reader in options.reader:
                    found = _in_a_fresh_process(reader, path, count)
                    row = {"clip": name, "num_frames": count, "reader": reader, "version": _version(reader)}
                    row |= {"round": round_number, **found, **machine}
                    row["load_1min"] = round(os.getloadavg()[0], 2)
                    row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
                    rows.append(row)
                    print(json.dumps(row), file=sys.stderr)
                    if options.output:
                        with options.output.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
    print(summary(rows))


if __name__ == "__main__":
    main()
