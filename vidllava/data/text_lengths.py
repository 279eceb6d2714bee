"""How many text tokens has each row? Kept for a file's content and a tokenizer: a second start is quick.

    kept = TextLengths(CacheFolder.of_environment(), counter)
    known = kept.find(mixture)               # int32 [len(mixture)], -1 where nobody has counted
    kept.keep(mixture, counted)

Visual tokens are not kept: they hang on media files, which may change while the rows do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidllava import __version__
from vidllava.backbone.tokens import TextCodec
from vidllava.data.mixture import Mixture
from vidllava.data.source import Source
from vidllava.data.token_counter import TokenCounter
from vidllava.files.cache_folder import CacheFolder

UNCOUNTED = -1
MIN_ROWS = 1000
"""Of a file worth keeping the lengths of: smaller ones are counted in less than a second."""


class TextLengths:
    """Lengths in the cache folder, one file of 4 bytes a row for each source."""

    def __init__(self, folder: CacheFolder, counter: TokenCounter) -> None:
        self._folder, self._counter = folder, counter
        self._rules = _rules(counter)

    def find(self, mixture: Mixture) -> np.ndarray:
        """int32 [len(mixture)]: text tokens of every sample, ``UNCOUNTED`` where they are not known."""
        found = np.full(len(mixture), UNCOUNTED, np.int32)
        for name, part in self._parts(mixture):
            data = self._folder.read(name)
            known = None if data is None else _array(data)
            if known is not None and known.shape == (part.stop - part.start,) and known.dtype == np.int32:
                found[part] = known
        return found

    def keep(self, mixture: Mixture, counted: np.ndarray) -> None:
        """Remember ``counted``, as ``find`` gives it. A folder that cannot be written keeps nothing."""
        for name, part in self._parts(mixture):
            file = io.BytesIO()
            np.save(file, counted[part])
            with contextlib.suppress(OSError):  # it only saves time
                self._folder.write(name, file.getvalue())

    def _parts(self, mixture: Mixture) -> Iterator[tuple[str, slice]]:
        if self._rules is None:
            return
        for source, start, stop in zip(mixture.sources, mixture.offsets, mixture.offsets[1:], strict=False):
            if stop - start >= MIN_ROWS:
                yield f"lengths/{self._key(source)}.npy", slice(int(start), int(stop))

    def _key(self, source: Source) -> str:
        named = Path(source.name).stem if self._counter.options.formatting_prompts else None
        said = [__version__, getattr(source, "fingerprint", source.name), named, self._rules]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def _rules(counter: TokenCounter) -> list[object] | None:
    """Whatever besides the row decides how many tokens its text has; None where that cannot be told."""
    if not isinstance(counter.codec, TextCodec):
        return None
    options = counter.options
    seed = options.seed if options.placement == "mixed" else None
    return [
        counter.codec.fingerprint(),
        counter.template.name,
        options.placement,
        seed,
        options.plain,
        options.formatting_prompts,
    ]


def _array(data: bytes) -> np.ndarray | None:
    """What ``np.save`` wrote; None for anything else."""
    try:
        found: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return found
