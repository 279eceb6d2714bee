"""Where may decoding start, and which packets does a frame need? The packets of one stream, in file order.

A container flags more packets as key than a decoder can start at. Here a start is *clean* if nothing after it
in the file refers to anything before it (IDR), or *open* if that holds for what is shown at or after it only
(an HEVC CRA picture, an H.264 recovery point, an MPEG-2 I picture: pictures that lead it refer back).

    runs(index, [tick, ...])     # what to decode for these frames, as few packets as are certain to do
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

NO_STAMP = -(1 << 63)
Start = Literal[0, 1, 2]
NO_START: Start = 0
CLEAN_START: Start = 1
OPEN_START: Start = 2


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """P packets of a stream in file order, which is the order of decoding; see ``scan``."""

    pts: npt.NDArray[np.int64] = field(repr=False)
    """[P] presentation stamps, ``NO_STAMP`` where there is none."""
    dts: npt.NDArray[np.int64] = field(repr=False)
    sizes: npt.NDArray[np.int64] = field(repr=False)
    """[P] bytes."""
    starts: npt.NDArray[np.uint8] = field(repr=False)
    """[P] whether decoding may start there: ``NO_START``, ``CLEAN_START`` or ``OPEN_START``."""
    shown: npt.NDArray[np.bool_] = field(repr=False)
    """[P] False for a packet that shows no picture of its own."""

    def __len__(self) -> int:
        return len(self.pts)

    @cached_property
    def numbers(self) -> dict[tuple[int, int], int]:
        """(stamp, size) -> packet, to know a packet again after a seek; ambiguous ones are left out."""
        found: dict[tuple[int, int], int] = {}
        for number, key in enumerate(zip(self.pts.tolist(), self.sizes.tolist(), strict=True)):
            found[key] = -1 if key in found else number
        return {key: number for key, number in found.items() if number >= 0}

    @cached_property
    def in_order(self) -> npt.NDArray[np.int64]:
        """The packets that show a picture, in the order of their stamps: sorted once, for clips of hours."""
        shown = np.flatnonzero(self.shown)
        return shown[np.argsort(self.pts[shown], kind="stable")]


@dataclass(frozen=True)
class Run:
    """Packets ``start`` to ``stop``, both included, to be decoded from a fresh decoder for ``ticks``."""

    start: int
    stop: int
    ticks: frozenset[int]

    @property
    def num_packets(self) -> int:
        """What it costs."""
        return self.stop - self.start + 1


def runs(index: PacketIndex, ticks: Sequence[int]) -> tuple[Run, ...]:
    """The fewest packets that are certain to give the frames stamped ``ticks``; in file order, disjoint.

    Raises KeyError for a stamp that no shown packet has.
    """
    order = index.in_order
    stamps = index.pts[order]
    starts = np.flatnonzero(index.starts)
    found: list[Run] = []
    for tick in sorted(set(ticks)):
        at = int(np.searchsorted(stamps, tick))
        if at == len(stamps) or stamps[at] != tick:
            raise KeyError(tick)
        number = int(order[at])
        found.append(Run(_start(index, starts, number), number, frozenset((tick,))))
    merged: list[Run] = []
    for run in sorted(found, key=lambda one: (one.start, one.stop)):
        if merged and run.start <= merged[-1].stop:
            last = merged[-1]
            run = Run(last.start, max(last.stop, run.stop), last.ticks | run.ticks)
            merged.pop()
        merged.append(run)
    return tuple(merged)


def _start(index: PacketIndex, starts: npt.NDArray[np.int64], number: int) -> int:
    """The last packet from which decoding gives packet ``number`` as a decode from the first one would."""
    at = int(np.searchsorted(starts, number, side="right")) - 1
    while at >= 0:
        start = int(starts[at])
        if index.starts[start] == CLEAN_START or index.pts[start] <= index.pts[number]:
            return start
        at -= 1
    return 0


def shares(parts: Sequence[Run], count: int) -> list[list[Run]]:
    """``parts`` in at most ``count`` consecutive groups of about equal numbers of packets."""
    total = sum(part.num_packets for part in parts)
    groups: list[list[Run]] = [[] for _ in range(count)]
    done = 0
    for part in parts:
        middle = done + part.num_packets / 2
        groups[min(int(middle * count / max(total, 1)), count - 1)].append(part)
        done += part.num_packets
    return [group for group in groups if group]
