"""Samplers that start a child of their own when needed, killed at its deadline; and a pool of them.

    encoder = SampleEncoder(settings, codec, options, sampler=OwnSampler(Limits(decode_seconds=30)))

A data loader hands the encoder to its workers, forked or spawned: the child process does not travel with it.
A file that hangs its decoder costs the deadline and one child; nothing is left behind when a worker ends.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.media.probe import VideoInfo
from vidllava.media.worker import WorkerSampler


class OwnSampler:
    """Implements ``vidllava.media.sampler.HeaderSampler``; for one thread at a time."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._worker: WorkerSampler | None = None
        self._process = os.getpid()

    def probe(self, path: str) -> VideoInfo:
        """See ``probe.probe``; also raises ResourceError where it takes longer than the limit."""
        return self._own().probe(path)

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """See ``picture.load_picture``."""
        return self._own().picture(path)

    def picture_notes(self, path: str) -> tuple[str, ...]:
        """See ``picture.picture_notes``."""
        return self._own().picture_notes(path)

    def picture_size(self, path: str) -> tuple[int, int]:
        """See ``picture.picture_size``."""
        return self._own().picture_size(path)

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
        return self._own().decode(info, plan, backend=backend, size=size, on_ready=on_ready)

    def close(self) -> None:
        """Kill the child, if there is one; it is started again when it is needed."""
        worker, self._worker = self._worker, None
        if worker is not None and self._process == os.getpid():
            worker.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"limits": self.limits, "_worker": None, "_process": -1}

    def _own(self) -> WorkerSampler:
        if self._worker is None or self._process != os.getpid():
            # After a fork the other process's child stays its own.
            self._worker, self._process = WorkerSampler(self.limits), os.getpid()
        return self._worker


MAX_WORKERS = 4
_AHEAD = 8  # items taken from the source for each worker: a slow one does not starve the others
Item = TypeVar("Item")
Found = TypeVar("Found")


def default_workers() -> int:
    """The cores, at most ``MAX_WORKERS``."""
    return max(1, min(MAX_WORKERS, os.cpu_count() or 1))


class SamplerPool:
    """Close it, or use it in a ``with``: the children end with it."""

    def __init__(self, limits: Limits, num_workers: int | None = None) -> None:
        self._limits, self._num_workers = limits, num_workers or default_workers()
        self._threads = ThreadPoolExecutor(self._num_workers, thread_name_prefix="look")
        self._local = threading.local()
        self._samplers: list[OwnSampler] = []

    def __enter__(self) -> SamplerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End threads and children; what was not begun is forgotten."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for sampler in list(self._samplers):
            sampler.close()
        self._threads.shutdown()
        for sampler in self._samplers:  # one may have been started between the two
            sampler.close()

    def map(self, look: Callable[[OwnSampler, Item], Found], items: Iterable[Item]) -> Iterator[Found]:
        """``look(sampler, item)`` for each, in the order of the items. Raises what it raises."""
        waiting: deque[Future[Found]] = deque()
        for item in items:
            waiting.append(self._threads.submit(self._look, look, item))
            if len(waiting) >= _AHEAD * self._num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _look(self, look: Callable[[OwnSampler, Item], Found], item: Item) -> Found:
        if not hasattr(self._local, "sampler"):
            self._local.sampler = OwnSampler(self._limits)
            self._samplers.append(self._local.sampler)
        return look(self._local.sampler, item)
