"""Video decoders: one module each, named in a fixed order of preference; a plug-in may add more.

A decoder module defines

    NAME        what `--video-backend` calls it
    PACKAGE     the Python package that it needs, whose version is part of every cache key
    INSTALL     what to do where that package is missing
    decode(info, plan, size, pixels, on_ready) -> FrameBatch

and may define LOADS_TORCH = True: the worker's limit on memory is lifted for it then.

``decode`` writes the planned frames into ``pixels`` uint8 [T, H, W, 3] (resized to ``size`` where that is
given), calls ``on_ready`` as each is final, and raises ``NotReliable`` where it cannot vouch for this file:
PyAV decodes it then, and the batch says so.
"""

from __future__ import annotations

import sys
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vidllava import registry
from vidllava.files.identity import media_identity
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady
from vidllava.media.probe import VideoInfo


class NotReliable(Exception):
    """Why a decoder does not vouch for its frames of a file, in words that end a sentence."""


class Decoder(Protocol):
    """What a decoder module offers."""

    NAME: str
    PACKAGE: str
    INSTALL: str

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        size: FrameSize | None,
        pixels: npt.NDArray[np.uint8],
        on_ready: OnReady,
        /,
    ) -> FrameBatch: ...


def decoders() -> dict[str, Decoder]:
    """Every decoder by its name, PyAV first. Raises UsageError for a plug-in that cannot be loaded."""
    found = registry.members(__name__, "NAME", "PACKAGE", "INSTALL", "decode")
    return {each.NAME: each for each in sorted(found, key=lambda each: each.NAME != "pyav")}


def loads_torch(name: str | None) -> bool:
    """Whether a decoder loads torch, which reserves more addresses than a limit on memory could allow."""
    return name is not None and bool(getattr(decoders().get(name), "LOADS_TORCH", False))


def decoder_version(name: str) -> str:
    """What may change a decoder's pixels: its package's version, and of a plug-in the hash of its file."""
    import importlib.metadata  # 20 ms that only the cache's keys need

    decoder = decoders().get(name)
    try:
        version = importlib.metadata.version(name if decoder is None else decoder.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    module = sys.modules.get(getattr(decoder, "__name__", ""))
    if module is None or module.__file__ is None or module.__name__.startswith("vidllava."):
        return version
    return f"{version} {media_identity(module.__file__)}"


def whole_batch(
    frames: npt.NDArray[np.uint8],
    plan: FramePlan,
    size: FrameSize | None,
    pixels: npt.NDArray[np.uint8],
    on_ready: OnReady,
    name: str,
) -> FrameBatch:
    """The batch of a decoder that gives all frames at once: resized, written to ``pixels``, and reported."""
    if size is not None:
        from vidllava.media.pixels import resize_frames

        frames = resize_frames(frames, size).permute(0, 2, 3, 1).numpy()
    pixels[:] = frames
    for place in range(len(plan)):
        on_ready(place, pixels)
    times = np.array(plan.timestamps_seconds, dtype=np.float64)
    return FrameBatch(pixels, times, plan, backend=name)
