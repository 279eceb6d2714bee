"""The definition of every frame, written as plainly as PyAV allows: decode all, convert all."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def decode_everything(
    path: Path | str, stream_index: int | None = None
) -> tuple[list[np.ndarray], list[float]]:
    """(RGB frames as stored, presentation times from the first frame) of a whole, undamaged file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if stream_index is None else container.streams[stream_index]
        decoded = list(container.decode(stream))
    pictures = [frame.to_ndarray(format="rgb24") for frame in decoded]
    start = decoded[0].pts
    nothing = float("nan")
    times = [
        nothing if frame.pts is None else float((frame.pts - start) * frame.time_base) for frame in decoded
    ]
    return pictures, times
