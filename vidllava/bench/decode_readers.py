"""From a file to N frames in memory, by every reader that people use: what `bench decode` compares.

Each is written as its users write it: default threads, one call. Ours also on one thread, which is what a
data loader with many processes runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Pictures = Sequence[npt.NDArray[np.uint8]]
Reader = Callable[[str, list[int]], Pictures]


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


def with_one_thread(path: str, indices: list[int]) -> Pictures:
    """Ours on one thread."""
    return with_vidllava(path, indices, threads=1)


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


READERS: dict[str, Reader] = {
    "vidllava": with_vidllava,
    "vidllava-1-thread": with_one_thread,
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
