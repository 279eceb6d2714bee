"""Part of a source, as a mixture file asks for it: all, first:N, end:N or random:N, a count or a percentage.

    subset(source, "random:30%", seed=7)

A percentage is rounded up, as LLaVA-NeXT's trainer does; unlike there, `random` is the same for a seed.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable

import numpy as np

from vidllava.data.mixing import shuffled
from vidllava.data.source import Modality, Sample, Source
from vidllava.errors import UsageError

_STRATEGY = re.compile(r"(first|end|random):(\d+(?:\.\d+)?)(%?)")
_HINT = "all, first:N, end:N or random:N, where N is a count or a percentage such as 30%"


class Subset:
    """Some samples of a source, in the source's order."""

    def __init__(self, source: Source, chosen: np.ndarray, strategy: str) -> None:
        """`chosen` is int64 [n], ascending."""
        self.source, self.chosen = source, chosen
        self.name = source.name
        digest = hashlib.blake2b(chosen.tobytes(), digest_size=8).hexdigest()
        self.fingerprint = f"{getattr(source, 'fingerprint', source.name)} {strategy} {digest}"

    def __len__(self) -> int:
        return len(self.chosen)

    def modality(self, index: int) -> Modality:
        """Which kind of sample stands at `index`."""
        return self.source.modality(int(self.chosen[index]))

    def sample(self, index: int) -> Sample:
        """The sample at `index`."""
        return self.source.sample(int(self.chosen[index]))

    def row(self, index: int) -> int | None:
        """The row of the file that it came from."""
        row: Callable[[int], int] | None = getattr(self.source, "row", None)
        return None if row is None else row(int(self.chosen[index]))


def subset(source: Source, strategy: str, *, seed: int) -> Source:
    """The part of `source` that `strategy` names. Raises UsageError for a strategy that cannot be meant.

    A count above what the source holds takes all of it, as in LLaVA-NeXT; a percentage above 100 is refused.
    """
    part = parse_strategy(strategy)
    if part is None:
        return source
    which, amount, is_share = part
    total = len(source)
    count = min(math.ceil(amount / 100 * total) if is_share else int(amount), total)
    if which == "first":
        chosen = np.arange(count)
    elif which == "end":
        chosen = np.arange(total - count, total)
    else:
        # By the file's name alone: a data set may be moved, or named from another folder.
        own = os.path.basename(source.name).encode("utf-8", "surrogateescape")
        name = int.from_bytes(hashlib.blake2b(own, digest_size=8).digest(), "little")
        chosen = np.sort(shuffled(total, seed, name)[:count])
    return Subset(source, chosen.astype(np.int64), strategy)


def parse_strategy(strategy: str) -> tuple[str, float, bool] | None:
    """(first, end or random; amount; whether it is a percentage), or None for all. Raises UsageError."""
    if strategy == "all":
        return None
    match = _STRATEGY.fullmatch(strategy.strip())
    if match is None:
        raise UsageError("sampling_strategy", f"{strategy!r} is unknown", _HINT)
    which, amount, is_share = match[1], float(match[2]), match[3] == "%"
    if amount <= 0 or (is_share and amount > 100) or (not is_share and not amount.is_integer()):
        raise UsageError("sampling_strategy", f"{strategy!r} takes no possible part", _HINT)
    return which, amount, is_share
