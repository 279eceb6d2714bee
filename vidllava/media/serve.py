"""Handler of the worker's requests: probe, frames, picture, size, notes."""

from __future__ import annotations

import mmap
import os
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidllava.media.decode import decode
from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.limits import Limits
from vidllava.media.probe import probe
from vidllava.media.wire import pack, write_arrays


class Line(Protocol):
    """The way back to the parent."""

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None: ...

    def report(self, request: dict[str, Any], place: int | None, frame_bytes: int) -> None: ...


def serve(request: dict[str, Any], descriptor: int | None, line: Line) -> None:
    """Do what ``request`` asks and send the result. Raises what probe, decode and load_picture raise."""
    limits = Limits(**request["limits"])
    result: Any
    if request["do"] == "probe":
        result = probe(request["path"], limits)
    elif request["do"] == "picture":
        from vidllava.media.picture import load_picture

        result = load_picture(request["path"], limits)
    elif request["do"] == "picture_notes":
        from vidllava.media.picture import picture_notes

        result = picture_notes(request["path"], limits)
    elif request["do"] == "picture_size":
        from vidllava.media.picture import picture_size

        result = picture_size(request["path"], limits)
    else:
        assert descriptor is not None  # a request for frames brings their memory
        batch = _decode(request, descriptor, limits, line)
        result = tuple(getattr(batch, each.name) for each in fields(FrameBatch) if each.name != "pixels")
    value, arrays = pack(result)
    message = {"id": request["id"], "done": value}
    if not arrays:
        line.send(message)
        return
    described, region = write_arrays(arrays)
    try:
        line.send({**message, "arrays": described}, region)
    finally:
        os.close(region)


def _decode(request: dict[str, Any], descriptor: int, limits: Limits, line: Line) -> FrameBatch:
    """Frames at full size in the parent's memory. Resizing is left to the parent: it needs torch anyway."""
    info = probe(request["path"], limits)
    plan = FramePlan.from_json(request["plan"])
    # The mapping lives as long as the array, and no longer.
    out = np.frombuffer(mmap.mmap(descriptor, 0), dtype=np.uint8).reshape(request["shape"])
    frame_bytes = out[0].nbytes

    def report(place: int | None, pixels: npt.NDArray[np.uint8]) -> None:
        line.report(request, place, frame_bytes)

    return decode(info, plan, backend=request["backend"], out=out, on_ready=report)
