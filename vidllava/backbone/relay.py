"""The relay that hands frames from a decoder's thread to the tower: in order, and only once they are final.

    relay = Relay()  # the decoder's thread: relay.receive as its on_ready
    arrived = relay.wait(pass_number, start)  # the tower's: frames start, start + 1, ... so far

A decoder may start again (``on_ready(None)``): all that it had reported is void then, and ``pass_number``
differs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidllava.media.frames import FrameBatch

Picture = npt.NDArray[np.uint8]


class Abandoned(BaseException):
    """Nobody waits for these frames any more: the decoder's thread is to end."""


@dataclass(frozen=True)
class Arrived:
    """The frames from the place that was waited for on: uint8 [n, S, S, 3], a copy."""

    pass_number: int
    start: int
    frames: Picture
    batch: FrameBatch | None
    """The whole batch, once decoding is done; ``frames`` are its last ones then."""


class Relay:
    """One clip's frames. ``hear``, ``finish`` and ``fail`` are the decoder's side, ``wait`` the tower's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pass_number = 0
        self._final: set[int] = set()
        self._pixels: Picture | None = None
        self._batch: FrameBatch | None = None
        self._fault: BaseException | None = None
        self._abandoned = False

    def receive(self, place: int | None, pixels: Picture) -> None:
        """Frame ``place`` is final in ``pixels``; None: all so far is void. Raises Abandoned."""
        with self._changed:
            if self._abandoned:
                raise Abandoned
            if place is None:
                self._pass_number += 1
                self._final.clear()
            else:
                self._final.add(place)
            self._pixels = pixels
            self._changed.notify()

    def finish(self, batch: FrameBatch) -> None:
        """Decoding is done."""
        with self._changed:
            self._batch = batch
            self._changed.notify()

    def fail(self, fault: BaseException) -> None:
        """Decoding ended with ``fault``, which ``wait`` raises."""
        with self._changed:
            self._fault = fault
            self._changed.notify()

    def abandon(self) -> None:
        """The decoder's next report ends it."""
        with self._changed:
            self._abandoned = True

    def wait(self, pass_number: int, start: int) -> Arrived:
        """Block until frame ``start`` of pass ``pass_number`` is final, another pass began, or all is done.

        Frames are copied before the decoder can write over them: it reports a void under the same lock.
        """
        with self._changed:
            while True:
                if self._fault is not None:
                    raise self._fault
                if self._pass_number != pass_number:
                    start = 0
                if self._batch is not None:
                    return Arrived(self._pass_number, start, self._batch.pixels[start:], self._batch)
                end = start
                while end in self._final:
                    end += 1
                if end > start or self._pass_number != pass_number:
                    frames = self._pixels[start:end].copy() if self._pixels is not None else _NONE
                    return Arrived(self._pass_number, start, frames, None)
                self._changed.wait()


_NONE = np.empty((0, 0, 0, 3), dtype=np.uint8)
