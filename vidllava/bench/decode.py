"""Time of reading the frames of a clip with every reader, and whether they are the right ones.

    for row in measure([path], num_frames=(8, 32), readers=("vidllava", "decord"), repeats=3): ...

From file to [N, H, W, 3] RGB in memory at native size, in a fresh process for each figure. Time is counted
after the imports; probing, opening and converting are in it; CPU seconds are of all threads. Rounds are
interleaved, reader after reader and then again, so that a busy minute hits all alike. Where a frame is wrong
there is no figure. The fresh process prints one JSON object:

    python -m vidllava.bench.decode READER FILE FRAME,FRAME,... REFERENCE

The reader ``reference`` writes REFERENCE: a thinned copy of each wanted frame of a sequential decode and of
its two neighbours. A frame counts as right if it is as close to its own copy as rounding allows (another
library's colour conversion) and closer to no neighbour: late by one frame is wrong.
"""
# Libraries are imported where they are used: the peak memory of a reading is that of its reader alone.

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from vidllava.bench.rows import Row, moment, version

Pictures = Sequence[npt.NDArray[np.uint8]]
Levels = npt.NDArray[np.int16]
THIN = 8  # every so many pixels of both axes are compared
ROUNDING = 2.0  # levels of 255 that two conversions of one frame may differ by, on average
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
    from vidllava.media.probe import probe

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
        "version": version(PACKAGES[reader]),
        "round": number,
        **found,
        "cpu_count": os.cpu_count(),
        **moment(),
    }


def _in_a_fresh_process(reader: str, path: Path, indices: list[int], reference: Path) -> Row:
    numbers = ",".join(map(str, indices))
    command = [sys.executable, "-m", "vidllava.bench.decode", reader, str(path), numbers, str(reference)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within {SECONDS} s"}
    if done.returncode:
        return {"failed": f"exit {done.returncode}: {done.stderr.strip()[-200:]}"}
    lines = done.stdout.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


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


def with_vidllava(path: str, indices: list[int], *, threads: int | None = None) -> Pictures:
    """Ours: probe, then the planned sampler."""
    from vidllava.media import planned_reader
    from vidllava.media.decode import decode
    from vidllava.media.frames import FramePlan
    from vidllava.media.probe import probe

    if threads is not None:
        planned_reader.num_threads = lambda: threads
    info = probe(path)
    times = tuple(float(info.frame_times[index]) for index in indices)
    return list(decode(info, FramePlan(times, tuple(indices), times, "benchmark")).pixels)


def with_decord(path: str, indices: list[int]) -> Pictures:
    """decord as LLaVA's code uses it: default threads, one get_batch."""
    import decord

    return list(decord.VideoReader(path, ctx=decord.cpu(0)).get_batch(indices).asnumpy())


def with_pyav(path: str, indices: list[int]) -> Pictures:
    """PyAV as it is commonly written: decode from the start, keep what is wanted."""
    import av

    wanted, found = set(indices), []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
            if len(found) == len(indices):
                break
    return found


def with_opencv(path: str, indices: list[int]) -> Pictures:
    """OpenCV: grab all, retrieve what is wanted (setting the position is slower still)."""
    import cv2

    wanted, reader = set(indices), cv2.VideoCapture(path)
    found: list[npt.NDArray[np.uint8]] = []
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
    return list(decoder.get_frames_at(indices).data.numpy())


READERS: dict[str, Callable[[str, list[int]], Pictures]] = {
    "vidllava": with_vidllava,
    "vidllava-1-thread": partial(with_vidllava, threads=1),
    "decord": with_decord,
    "pyav": with_pyav,
    "opencv": with_opencv,
    "torchcodec": with_torchcodec,
}
PACKAGES = {
    "vidllava": "vidllava",
    "vidllava-1-thread": "vidllava",
    "decord": "decord",
    "pyav": "av",
    "opencv": "opencv-python-headless",
    "torchcodec": "torchcodec",
}


def thinned(picture: npt.NDArray[np.uint8]) -> Levels:
    """A copy of some pixels, signed, so that differences can be taken."""
    return picture[::THIN, ::THIN].astype(np.int16)


def write_reference(path: str, indices: list[int], reference: Path) -> None:
    """The frames of a sequential decode: [N, 3, h, w, 3], the middle one of three being the wanted one."""
    from vidllava.media.convert import Converter
    from vidllava.media.probe import probe
    from vidllava.media.reader import Damage, read_frames

    info = probe(path)
    convert = Converter(info, None)
    wanted = {index + step for index in indices for step in (-1, 0, 1)}
    found = {}
    for number, frame in enumerate(read_frames(path, info.stream_index, 1, Damage())):
        if number in wanted:
            found[number] = thinned(convert(frame))
        if number > max(wanted):
            break
    rows = [[found.get(index + step, found[index]) for step in (-1, 0, 1)] for index in indices]
    np.save(reference, np.array(rows))


def num_wrong(pictures: Pictures, reference: Levels) -> int:
    """How many of ``pictures`` are not the frames of ``reference``; missing ones count."""
    right = 0
    for picture, copies in zip(pictures, reference, strict=False):
        thin = thinned(np.asarray(picture))
        if thin.shape != copies.shape[1:]:
            continue
        before, own, after = (float(np.abs(thin - copy).mean()) for copy in copies)
        right += own <= ROUNDING and own <= min(before, after)
    return len(reference) - right


def read_once(reader: str, path: str, indices: list[int], reference: Path) -> Row:
    """Wall and CPU seconds, frames that are wrong, and the process's peak memory."""
    import resource  # not on Windows

    read = READERS[reader]
    # A first use of the reader on nothing: imports are made, what remains is the work.
    try:
        read(os.devnull, [0])
    except ImportError as missing:
        return {"skipped": str(missing).splitlines()[0][:200]}
    except Exception:
        pass
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        pictures = read(path, indices)
    except Exception as fault:
        return {"failed": f"{type(fault).__name__}: {fault}".splitlines()[0][:200]}
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **{key: round(value, 4) for key, value in seconds.items()},
        "wrong": num_wrong(pictures, np.load(reference)),
        "peak_mb": round(peak),
    }


FPS, NUM_FRAMES, BITS = 30, 1800, 11
# x264 as it comes; the others at quick presets, so that making them takes minutes.
_X264 = {"preset": "medium", "crf": "23"}
CLIPS: dict[str, tuple[str, int, int, dict[str, str]]] = {
    "360p_h264_g30.mp4": ("libx264", 640, 360, _X264 | {"x264-params": "keyint=30:min-keyint=30"}),
    "360p_h264_g250.mp4": ("libx264", 640, 360, _X264 | {"x264-params": "keyint=250:min-keyint=250"}),
    "1080p_h264_g30.mp4": ("libx264", 1920, 1080, _X264 | {"x264-params": "keyint=30:min-keyint=30"}),
    "1080p_h264_g250.mp4": ("libx264", 1920, 1080, _X264 | {"x264-params": "keyint=250:min-keyint=250"}),
    "360p_hevc_open.mp4": (
        "libx265",
        640,
        360,
        {"preset": "veryfast", "crf": "26", "x265-params": "log-level=none:open-gop=1:keyint=60"},
    ),
    "360p_vp9.webm": (
        "libvpx-vp9",
        640,
        360,
        {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"},
    ),
    "360p_av1.mp4": ("libsvtav1", 640, 360, {"preset": "12", "crf": "26", "g": "150"}),
}


def write_clip(folder: Path, name: str, *, num_frames: int = NUM_FRAMES) -> Path:
    """The clip called ``name`` in ``folder``, 60 seconds, made if it is not there yet: up to minutes.

    Moving texture with a little noise, so that the encoders work as they do on film; a bar code across the
    top says which frame it is, so that no two frames are alike and a fast wrong answer is not an answer.
    """
    import av
    from av.video.stream import VideoStream

    path = folder / name
    if path.exists():
        return path
    codec, width, height, options = CLIPS[name]
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"unfinished_{name}"
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures(width, height, num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


def pictures(width: int, height: int, num_frames: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames, uint8 [height, width, 3]."""
    rng = np.random.default_rng(0)
    texture = np.clip(128 + 24 * _smooth(rng.standard_normal((height + 256, width + 512, 3))), 0, 255)
    grain = rng.integers(-3, 4, (8, height, width, 1), dtype=np.int16)
    columns = np.arange(width) * BITS // width
    bar = height // 9
    for number in range(num_frames):
        left = int(256 + 255 * np.sin(number / 37.0))
        top = int(128 + 127 * np.sin(number / 53.0))
        moved = texture[top : top + height, left : left + width].astype(np.int16)
        box = int(width * (0.1 + 0.6 * (number % 240) / 240))
        moved[height // 2 : height // 2 + height // 5, box : box + width // 8] = (200, 60, 60)
        picture = np.clip(moved + grain[number % 8], 0, 255).astype(np.uint8)
        bits = np.array([number >> shift & 1 for shift in range(BITS - 1, -1, -1)], dtype=np.uint8)
        picture[:bar] = np.where(bits[columns], 235, 16)[None, :, None]
        yield picture


def _smooth(noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    for axis in (0, 1):
        for _ in range(3):
            noise = noise + np.roll(noise, 3, axis) + np.roll(noise, -3, axis)
    return noise / noise.std()


def main(arguments: list[str]) -> None:
    """One reading, as the module's docstring says."""
    reader, path, numbers, reference = arguments
    indices = [int(number) for number in numbers.split(",")]
    if reader == "reference":
        write_reference(path, indices, Path(reference))
        return
    print(json.dumps(read_once(reader, path, indices, Path(reference))))


if __name__ == "__main__":
    main(sys.argv[1:])
