"""The rows of one file as a source: checked before anything is trained, then read again when asked for.

    source = RecordSource("train.json", "media")
    source.sample(7)

Held for each row are its place in the file, its modality and a hash of its id: a million rows are some 30 MB,
whatever they say. Every fault of every row is collected; nothing is read outside the media root.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidllava.data.formats import own_keys, parse_row
from vidllava.data.keys import unknown_keys
from vidllava.data.media_root import MediaRoot
from vidllava.data.row import RowContext, id_of
from vidllava.data.row_file import RecordFile
from vidllava.data.source import MODALITIES, Modality, RowFault, Sample, Source, modality_of
from vidllava.errors import DatasetError

MAX_KEYS, MAX_KEYS_SHOWN = 1000, 12  # keys without a meaning that are counted, and named
MAX_SHOWN = 5  # faults named in the error; the rest are counted
OnFault = Callable[[int, str | None, str], None]
"""Told the row, its id where it has one, and what is wrong with it."""


class RecordSource(Source):
    """The rows of one JSON or JSONL file as a `Source`; see `vidllava.data.formats` for what they may say.

    Raises DatasetError naming file and row of every fault (the first five in words), unless `on_fault` hears
    of them: then the faulty rows are left out.
    """

    def __init__(
        self, path: str | Path, media_root: str | Path | None = None, *, on_fault: OnFault | None = None
    ) -> None:
        self.name = str(path)
        self.root = MediaRoot(media_root if media_root is not None else Path(path).parent)
        self.file = RecordFile(Path(path))
        self.num_faults = self.num_rows = 0
        self._shown: list[str] = []
        self._on_fault = on_fault
        self.unknown_keys: Counter[str] = Counter()
        """Keys that no format knows, with the number of rows that have them."""
        places, own = _Places(), own_keys()
        for raw in self.file.scan():
            self.num_rows += 1
            if isinstance(raw.value, dict):
                self._note_keys(unknown_keys(raw.value, own))
            try:
                sample = parse_row(raw.value, RowContext(raw.number, self.root))
                places.add(raw.start, raw.size, raw.number, sample)
            except RowFault as fault:
                self._fault(raw.number, id_of(raw.value), str(fault))
        self._starts, self._sizes, self._numbers, self._codes = self._without_repeats(places)
        self._on_fault = None
        self.fingerprint = self.file.fingerprint
        """Of the file's bytes: a resumed run tells by it whether the data changed."""
        if self.num_faults and on_fault is None:
            more = self.num_faults - len(self._shown)
            listed = "; ".join(self._shown) + (f"; and {more} more" if more else "")
            what = f"{self.num_faults} of {self.num_rows} rows cannot be used: {listed}"
            raise DatasetError(self.name, what, "vidllava data check lists them all")
        if not self.num_rows:
            raise DatasetError(self.name, "holds no rows", "one JSON object a line, or a list of them")

    def __len__(self) -> int:
        return len(self._starts)

    def modality(self, index: int) -> Modality:
        """Which kind of sample stands at `index`."""
        return MODALITIES[self._codes[index]]

    @property
    def modality_codes(self) -> np.ndarray:
        """int8 [len]: the place in `MODALITIES` of every index."""
        return self._codes

    def sample(self, index: int) -> Sample:
        """The sample at `index`, read again. Raises DatasetError where its media are no longer there."""
        number = self.row(index)
        try:
            sample = parse_row(
                self.file.read(int(self._starts[index]), int(self._sizes[index])),
                RowContext(number, self.root),
            )
        except RowFault as fault:
            raise DatasetError(
                f"{self.name} row {number}", str(fault), "vidllava data check lists every bad row"
            ) from None
        return sample if sample.dataset else replace(sample, dataset=Path(self.name).stem)

    def raw(self, index: int) -> bytes:
        """The bytes of the row at `index`."""
        return self.file.raw(int(self._starts[index]), int(self._sizes[index]))

    def row(self, index: int) -> int:
        """The row of the file (list entry or line, counted from 1) that sample `index` came from."""
        return int(self._numbers[index])

    def key_note(self) -> str | None:
        """One line that names the keys without a meaning, or None where there are none."""
        if not self.unknown_keys:
            return None
        shown = [f"{key} ({rows})" for key, rows in sorted(self.unknown_keys.items())[:MAX_KEYS_SHOWN]]
        more = len(self.unknown_keys) - len(shown)
        rest = f", and {more} more" if more else ""
        return f"{self.name}: keys without a meaning (rows that have them): {', '.join(shown)}{rest}"

    def _note_keys(self, keys: set[str]) -> None:
        for key in keys:
            if key in self.unknown_keys or len(self.unknown_keys) < MAX_KEYS:
                self.unknown_keys[key] += 1

    def _fault(self, row: int, identity: str | None, reason: str) -> None:
        self.num_faults += 1
        if self._on_fault is not None:
            self._on_fault(row, identity, reason)
        elif len(self._shown) < MAX_SHOWN:
            self._shown.append(f"row {row}: {reason}")

    def _without_repeats(self, places: _Places) -> tuple[np.ndarray, ...]:
        """The rows whose id no earlier row has. Ids are compared where their hashes are equal."""
        starts, sizes, numbers, codes, hashes = places.arrays()
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        kept = np.ones(len(starts), dtype=bool)
        suspects = sorted({int(at) for pair in same for at in order[pair : pair + 2]})
        first_row: dict[str, int] = {}
        for at in suspects:
            number = int(numbers[at])
            identity = id_of(self.file.read(int(starts[at]), int(sizes[at]))) or f"row-{number}"
            if identity in first_row:
                kept[at] = False
                self._fault(number, identity, f"id {identity!r} was used by row {first_row[identity]}")
            else:
                first_row[identity] = number
        return starts[kept], sizes[kept], numbers[kept], codes[kept]


class _Places:
    """What is remembered of each row while the file is read: 29 bytes."""

    def __init__(self) -> None:
        self._starts, self._sizes, self._numbers = array("q"), array("i"), array("q")
        self._codes, self._hashes = array("b"), array("Q")

    def add(self, start: int, size: int, number: int, sample: Sample) -> None:
        self._starts.append(start)
        self._sizes.append(size)
        self._numbers.append(number)
        self._codes.append(MODALITIES.index(modality_of(sample.visuals)))
        digest = hashlib.blake2b(sample.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest, "little"))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(starts, sizes, row numbers, modality codes, hashes of the ids)."""
        return (
            np.frombuffer(self._starts, np.int64),
            np.frombuffer(self._sizes, np.int32),
            np.frombuffer(self._numbers, np.int64),
            np.frombuffer(self._codes, np.int8),
            np.frombuffer(self._hashes, np.uint64),
        )
