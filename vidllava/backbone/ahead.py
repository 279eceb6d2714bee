"""Worker processes that plan and decode the next rows while the model answers this one.

with Ahead(rows, prepare, num_workers=4, limits=limits) as ahead:
    ahead.torch_is_here.set()
    for row, prepared in zip(rows, ahead): ...      # in the order of the rows; an error stands for its row

The main thread, which any signal may cut off between two steps of Python, touches no lock here but the ones
inside ``SimpleQueue.get`` and ``put``: written in C, they are given back whatever comes. A ``Condition``, a
``Semaphore`` or an ``Event`` cut off within itself stays locked, and the end would wait for it for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady, side_of
from vidllava.media.limits import Limits
from vidllava.media.probe import VideoInfo
from vidllava.media.sampler import HandingOn, Sampler
from vidllava.media.worker import WorkerSampler
from vidllava.visuals.question import MediaItem, Question

Row = TypeVar("Row")
Plan = Callable[[Row, Sampler], Question]


@dataclass
class Prepared(HandingOn):
    """A planned question with the frames of its clips; it is the ``Sampler`` of its answer, too."""

    question: Question
    seconds: float
    """Wall time that planning and decoding took, ahead of the answer."""
    others: Sampler
    """Decodes what was not decoded ahead."""
    frames: list[tuple[MediaItem, FrameBatch]] = field(default_factory=list)

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: FrameSize | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        """The frames that are here already."""
        for item, batch in self.frames:
            if (
                item.info is info
                and item.plan is plan
                and size is not None
                and batch.pixels.shape[1:3] == (side_of(size),) * 2
            ):
                if on_ready is not None:
                    for place in range(len(batch)):
                        on_ready(place, batch.pixels)
                return batch
        return super().decode(info, plan, backend=backend, size=size, on_ready=on_ready)


class Latch:
    """Set once, waited for by many; unlike ``threading.Event`` it may be cut off while it is set."""

    def __init__(self) -> None:
        self._token: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Let everyone through, now and later. May be called again."""
        self._token.put(None)

    def wait(self) -> None:
        """Block until it is set."""
        self._token.get()
        self._token.put(None)


class Ahead(Generic[Row]):
    """``num_workers`` threads, each with a worker process; at most so many rows and one are ahead."""

    def __init__(
        self,
        rows: Sequence[Row],
        plan: Plan[Row],
        *,
        size: FrameSize,
        num_workers: int,
        limits: Limits,
        repeats: bool,
    ) -> None:
        """``repeats``: clips that an earlier row decodes are decoded again: no cache keeps their features."""
        self.torch_is_here = Latch()
        self._rows, self._plan, self._size, self._repeats = rows, plan, size, repeats
        self._todo: SimpleQueue[int | None] = SimpleQueue()
        self._found: SimpleQueue[tuple[int, Prepared | Exception]] = SimpleQueue()
        self._num_ahead = num_workers + 1
        self._stopped = False
        self._seen: set[tuple[object, ...]] = set()
        self._comparing = threading.Lock()  # among the workers' threads, where no signal comes
        # Made here: a process that Linux is to kill with its parent is killed with the *thread* that made it.
        self._samplers = [WorkerSampler(limits) for _ in range(num_workers + 1)]
        self._threads = [
            threading.Thread(target=self._work, args=(sampler,), daemon=True, name="ahead")
            for sampler in self._samplers[1:]
        ]

    def __enter__(self) -> Ahead[Row]:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Kill the workers, and wait a little for their threads; never for a lock."""
        self._stopped = True
        self.torch_is_here.set()
        for _ in self._threads:
            self._todo.put(None)
        for sampler in self._samplers:
            sampler.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(1.0)

    def __iter__(self) -> Iterator[Prepared | Exception]:
        early: dict[int, Prepared | Exception] = {}
        total = len(self._rows)
        for number in range(min(self._num_ahead, total)):
            self._todo.put(number)
        for number in range(total):
            while number not in early:
                place, found = self._found.get()
                early[place] = found
            yield early.pop(number)
            if number + self._num_ahead < total:
                self._todo.put(number + self._num_ahead)

    def _work(self, sampler: WorkerSampler) -> None:
        while (number := self._todo.get()) is not None and not self._stopped:
            found: Prepared | Exception
            try:
                found = self._prepare(self._rows[number], sampler)
            except Exception as fault:
                found = fault
            self._found.put((number, found))

    def _prepare(self, row: Row, sampler: WorkerSampler) -> Prepared:
        start = time.perf_counter()
        question = self._plan(row, sampler)
        clips = [item for item in question.items if item.info is not None and self._wants(item)]
        for item in clips:
            assert item.info is not None
            assert item.plan is not None
            sampler.begin(item.info, item.plan, backend=item.backend or "pyav", size=self._size)
        # The worker decodes meanwhile; what it hands over is resized with torch.
        waited = time.perf_counter()
        self.torch_is_here.wait()
        waited = time.perf_counter() - waited
        prepared = Prepared(question, 0.0, self._samplers[0])
        for item in clips:
            assert item.info is not None
            assert item.plan is not None
            batch = sampler.decode(item.info, item.plan, backend=item.backend or "pyav", size=self._size)
            prepared.frames.append((item, batch))
        prepared.seconds = time.perf_counter() - start - waited
        return prepared

    def _wants(self, item: MediaItem) -> bool:
        """Whether no earlier row decodes the same frames: their features are remembered by then."""
        assert item.plan is not None
        name = (item.path, item.plan.indices, item.backend)
        with self._comparing:
            known = name in self._seen
            self._seen.add(name)
        return self._repeats or not known
