"""The ledger of samples that could not be used: one JSON line each, nothing in silence.

{"step": 12, "source": "train.jsonl", "index": 6, "row": 7, "id": "7", "reason": "...", "replaced_by": "9"}
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from vidllava.files.writing import append_lines


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """A sample that could not be encoded, and what stood in for it.

    row          the row of the source's file, counted from 1; None where the source has no rows
    reason       one line
    replaced_by  id of the sample of the same modality that was trained on instead
    """

    step: int
    source: str
    index: int
    row: int | None
    id: str | None
    reason: str
    replaced_by: str | None = None


class Ledger:
    """Appends bad samples to a file and counts them. Several processes may share the file."""

    def __init__(self, path: Path, *, max_bad_fraction: float) -> None:
        self.path = path
        self.max_bad_fraction = max_bad_fraction
        self.num_bad = 0
        self.num_drawn = 0

    def count(self, *, num_bad: int, num_drawn: int) -> None:
        """Count `num_drawn` samples, all processes' together, of which `num_bad` failed."""
        self.num_bad += num_bad
        self.num_drawn += num_drawn

    def write(self, bad: tuple[BadSample, ...]) -> None:
        """Append a line for each. Raises ResourceError."""
        if not bad:
            return
        append_lines(self.path, [asdict(one) for one in bad])  # one write a step: processes share the file

    @property
    def too_many(self) -> bool:
        """Whether more than the allowed share failed; the share is of at least 1000 samples."""
        return self.num_bad > self.max_bad_fraction * max(self.num_drawn, 1000)
