"""Samplers: the seam between asking for frames and where files are looked into and decoded.

    IN_PROCESS.probe("clip.mp4")                       # here and now: tests, training workers
    IN_PROCESS.decode(info, plan, size=384).pixels

Another sampler does the same in a child process that can be killed when a decoder hangs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from vidllava.media import decode as decoding
from vidllava.media import probe as probing
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.media.picture_folder import CONTAINER, decode_folder
from vidllava.media.probe import VideoInfo


class Sampler(Protocol):
    """What `ask`, `chat` and the benchmarks need of one."""

    def probe(self, path: str) -> VideoInfo:
        """See ``probe.probe``."""

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """See ``picture.load_picture``."""

    def picture_notes(self, path: str) -> tuple[str, ...]:
        """See ``picture.picture_notes``."""

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: FrameSize | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        """See ``decode.decode``."""


class HeaderSampler(Sampler, Protocol):
    """One that can also tell a picture's size without decoding it: what counting a data set needs."""

    def picture_size(self, path: str) -> tuple[int, int]:
        """See ``picture.picture_size``."""


class HandingOn:
    """A sampler that hands every request to ``others``; a subclass answers some of them itself."""

    others: Sampler

    def probe(self, path: str) -> VideoInfo:
        """See ``probe.probe``."""
        return self.others.probe(path)

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """See ``picture.load_picture``."""
        return self.others.picture(path)

    def picture_notes(self, path: str) -> tuple[str, ...]:
        """See ``picture.picture_notes``."""
        return self.others.picture_notes(path)

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: FrameSize | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        """See ``decode.decode``."""
        return self.others.decode(info, plan, backend=backend, size=size, on_ready=on_ready)


class InProcess:
    """Probe and decode in the calling process."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits

    def probe(self, path: str) -> VideoInfo:
        """See ``probe.probe``."""
        return probing.probe(path, self.limits)

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """See ``picture.load_picture``."""
        from vidllava.media.picture import load_picture

        return load_picture(path, self.limits)

    def picture_notes(self, path: str) -> tuple[str, ...]:
        """See ``picture.picture_notes``."""
        from vidllava.media.picture import picture_notes

        return picture_notes(path, self.limits)

    def picture_size(self, path: str) -> tuple[int, int]:
        """See ``picture.picture_size``."""
        from vidllava.media.picture import picture_size

        return picture_size(path, self.limits)

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: FrameSize | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        """See ``decode.decode``."""
        if info.container == CONTAINER:
            decoding.check_plan(info, plan, size)
            return decode_folder(info, plan, picture=self.picture, size=size, on_ready=on_ready)
        return decoding.decode(info, plan, backend=backend, size=size, on_ready=on_ready)


IN_PROCESS = InProcess()
