"""One reading of one file in a process of its own, timed, and compared with a sequential decode.

    python -m vidllava.bench.decode_one READER FILE FRAME,FRAME,... REFERENCE

Prints one JSON object. The reader ``reference`` writes REFERENCE: a thinned copy of each wanted frame of a
sequential decode and of its two neighbours. A frame counts as right if it is as close to its own copy as
rounding allows (another library's colour conversion) and closer to no neighbour: late by one frame is wrong.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidllava.bench.decode import READERS, Pictures

THIN = 8  # every so many pixels of both axes are compared
ROUNDING = 2.0  # levels of 255 that two conversions of one frame may differ by, on average
Levels = npt.NDArray[np.int16]


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


def measure(reader: str, path: str, indices: list[int], reference: Path) -> dict[str, Any]:
    """Wall and CPU seconds, frames that are wrong, and the process's peak memory."""
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


def main(arguments: list[str]) -> None:
    """See above."""
    reader, path, numbers, reference = arguments
    indices = [int(number) for number in numbers.split(",")]
    if reader == "reference":
        write_reference(path, indices, Path(reference))
        return
    print(json.dumps(measure(reader, path, indices, Path(reference))))


if __name__ == "__main__":
    main(sys.argv[1:])
