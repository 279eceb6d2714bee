"""The rows that can be trained on: each looked at as training will see it, with a summary of all.

    for row in Checker(counter, headers, pool).rows(source):
        row.number, row.num_tokens, row.reason         # reason None: the row is good

By default media headers are read, which finds what is missing, no media, or cut short at the front; with
`decode` the planned frames are decoded, which finds the rest and takes as long as an epoch's decoding.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidllava.data.media_index import Headers
from vidllava.data.own_sampler import OwnSampler, SamplerPool
from vidllava.data.records import RecordSource
from vidllava.data.source import MODALITIES, Modality, Sample, Visual, modality_of
from vidllava.data.token_counter import TokenCounter
from vidllava.errors import DatasetError, VidllavaError
from vidllava.media.decode import choose_backend

# Full-size frames that are decoded together.
_BYTES_AT_ONCE, _FRAMES_AT_ONCE = 256 << 20, 8


@dataclass(frozen=True)
class CheckedRow:
    """What was found out about one row."""

    index: int
    number: int
    id: str | None
    modality: Modality
    num_tokens: int | None
    """None where a visual cannot be read."""
    reason: str | None
    """Why it cannot be trained on; None where it can."""
    too_long: bool = False
    """The reason is its length alone."""
    notes: tuple[str, ...] = ()
    """What training will see otherwise than it was planned, such as a frame that stands in for a lost one."""
    files: tuple[str, ...] = ()
    """Its media."""


class Checker:
    """Looks at rows for one model and one set of options."""

    def __init__(
        self, counter: TokenCounter, headers: Headers, pool: SamplerPool, *, decode: bool = False
    ) -> None:
        self._counter, self._headers, self._pool, self._decode = counter, headers, pool, decode
        self._backend, _ = choose_backend(counter.options.video_backend)

    def rows(self, source: RecordSource) -> Iterator[CheckedRow]:
        """Every row of `source` in order."""

        def look(sampler: OwnSampler, index: int) -> CheckedRow:
            return self._row(source, index, sampler)

        return self._pool.map(look, range(len(source)))

    def _row(self, source: RecordSource, index: int, sampler: OwnSampler) -> CheckedRow:
        number, modality = source.row(index), source.modality(index)
        identity, num_tokens, too_long = None, None, False
        notes: dict[str, None] = {}
        files: list[str] = []
        try:
            sample = source.sample(index)
            identity, modality = sample.id, modality_of(sample.visuals)
            for visual in sample.visuals:
                files += [*([visual.path] if visual.path is not None else []), *(visual.pictures or ())]
            for visual in sample.visuals:
                self._open(visual, sampler)
            num_tokens = self._counter.count(sample, self._headers, sampler)
            reason = self._refusal(sample, num_tokens)
            too_long = reason is not None
            self._counter.check_labels(sample, self._counter.prompt(sample))
            if self._decode:
                for visual in sample.visuals:
                    notes.update(dict.fromkeys(self._read(visual, sampler)))
        except (VidllavaError, OSError) as fault:
            reason, too_long = str(fault), False
        about = (index, number, identity, modality, num_tokens, reason, too_long)
        return CheckedRow(*about, notes=tuple(notes), files=tuple(files))

    def _refusal(self, sample: Sample, num_tokens: int) -> str | None:
        try:
            self._counter.check_length(sample, num_tokens)
        except DatasetError as fault:
            return f"{fault.what} ({fault.hint})"
        return None

    def _open(self, visual: Visual, sampler: OwnSampler) -> None:
        """Read the headers of the files of a visual that are seen."""
        if visual.kind == "video" and visual.path is not None:
            self._headers.clip(visual.path, sampler)
        for path in self._pictures(visual):
            self._headers.picture(path, sampler)

    def _pictures(self, visual: Visual) -> list[str]:
        if visual.pictures is not None:
            return [visual.pictures[at] for at in self._counter.plan_pictures(visual).indices]
        return [visual.path] if visual.path is not None and visual.kind != "video" else []

    def _read(self, visual: Visual, sampler: OwnSampler) -> list[str]:
        """Decode what training would decode, a few frames at a time; returns the notes on them."""
        notes: list[str] = []
        for path in self._pictures(visual):
            sampler.picture(path)
            notes += sampler.picture_notes(path)
        if visual.kind != "video" or visual.path is None:
            return notes
        info = sampler.probe(visual.path)
        plan = self._counter.plan(visual, info.frame_times, visual.path, info.duration_seconds)
        notes = list(info.notes)
        at_once = max(_FRAMES_AT_ONCE, _BYTES_AT_ONCE // (3 * info.width * info.height))
        for first in range(0, len(plan), at_once):
            part = slice(first, first + at_once)
            few = plan.part(part)
            notes += sampler.decode(info, few, backend=self._backend).notes
        return notes


_SMALLEST_BIN = 64


@dataclass
class DataSummary:
    """Counts of rows; four bytes are kept for each."""

    limit_tokens: int
    """Most tokens of one sample."""
    num_rows: int = 0
    num_bad: int = 0
    num_too_long: int = 0
    """Of the bad ones: those that are only too long."""
    num_noted: int = 0
    """Of the good ones: those that training sees otherwise than planned, as a damaged clip."""
    by_modality: Counter[Modality] = field(default_factory=Counter)
    """Rows whose format is in order, bad media or not."""
    unknown_keys: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each file: keys that no format knows, with the number of rows that have them."""
    _lengths: array[int] = field(default_factory=lambda: array("i"))

    def add(
        self,
        modality: Modality | None,
        num_tokens: int | None,
        *,
        bad: bool = False,
        too_long: bool = False,
        noted: bool = False,
    ) -> None:
        """Count one row; None for what could not be told of it."""
        self.num_rows += 1
        self.num_bad += bad
        self.num_too_long += too_long
        self.num_noted += noted
        if modality is not None:
            self.by_modality[modality] += 1
        if num_tokens is not None:
            self._lengths.append(num_tokens)

    @property
    def lengths(self) -> np.ndarray:
        """int32 [n]: tokens of the rows where they are known."""
        return np.array(self._lengths, dtype=np.int32)

    def histogram(self) -> list[tuple[int, int, int]]:
        """(least tokens, next bin's least, rows) from the first to the last bin that holds any.

        Bins double, and none straddles the limit.
        """
        lengths = self.lengths
        if not len(lengths):
            return []
        edges = [0, _SMALLEST_BIN]
        while edges[-1] <= lengths.max():
            edges.append(edges[-1] * 2)
        if edges[0] < self.limit_tokens + 1 < edges[-1]:
            edges = sorted({*edges, self.limit_tokens + 1})
        counts, _ = np.histogram(lengths, bins=edges)
        bins = [(low, high, int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False)]
        held = [at for at, (_, _, count) in enumerate(bins) if count]
        return bins[held[0] : held[-1] + 1]

    def spread(self) -> dict[str, int]:
        """Least, median, 95th percentile, most and sum of the tokens; empty where none is known."""
        lengths = self.lengths
        if not len(lengths):
            return {}
        low, middle, high, top = np.percentile(lengths, (0, 50, 95, 100), method="lower")
        total = int(lengths.sum(dtype=np.int64))
        return {"min": int(low), "median": int(middle), "p95": int(high), "max": int(top), "total": total}

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "rows": self.num_rows,
            "bad_rows": self.num_bad,
            "too_long_rows": self.num_too_long,
            "noted_rows": self.num_noted,
            "unknown_keys": self.unknown_keys,
            "modalities": {name: self.by_modality[name] for name in MODALITIES if self.by_modality[name]},
            "limit_tokens": self.limit_tokens,
            "tokens": self.spread(),
            "histogram": [
                {"from_tokens": low, "below_tokens": high, "rows": count}
                for low, high, count in self.histogram()
            ],
        }
