"""Many files looked into at once: threads that each wait for a child process of their own.

    with SamplerPool(limits, num_workers=4) as pool:
        for found in pool.map(lambda sampler, path: sampler.picture_size(path), paths):   # in order
            ...

A file that hangs holds up one thread until the deadline, and then nobody.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from vidllava.data.own_sampler import OwnSampler
from vidllava.media.limits import Limits

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
