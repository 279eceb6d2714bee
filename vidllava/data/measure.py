"""True token lengths for a mixture whose rows lie in files, texts counted ahead: for batches of like length.

    lengths = measure(mixture, counter, headers, pool)

One header pass for each media file, remembered in the index; nothing is decoded. What is known of the texts
from an earlier run (`TextLengths`) is not counted again. A sample that cannot be read gets no length (0) and
keeps its place: it is dealt with, and written down, when it is drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidllava import __version__
from vidllava.backbone.tokens import TextCodec
from vidllava.data.media_index import Headers
from vidllava.data.mixture import MODALITY_CODE, Mixture
from vidllava.data.own_sampler import OwnSampler, SamplerPool
from vidllava.data.source import Source
from vidllava.data.token_counter import TokenCounter
from vidllava.errors import VidllavaError
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
        said = [__version__, source.fingerprint or source.name, named, self._rules]
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


UNKNOWN = 0
_TEXT = MODALITY_CODE["text"]


@dataclass
class Measuring:
    """What is known of a mixture's lengths while they are looked up; another thread may watch."""

    texts: np.ndarray
    """int32 [n]: text tokens of each sample, ``UNCOUNTED`` where nobody has counted; filled in on the way."""
    num_done: int = 0


def measure(
    mixture: Mixture,
    counter: TokenCounter,
    headers: Headers,
    pool: SamplerPool,
    measuring: Measuring | None = None,
) -> np.ndarray:
    """int32 [len(mixture)]: tokens of every sample, 0 where they are unknown."""
    measuring = measuring or Measuring(np.full(len(mixture), UNCOUNTED, np.int32))
    texts, codes = measuring.texts, mixture.modalities

    def look(sampler: OwnSampler, index: int) -> int:
        if texts[index] != UNCOUNTED and codes[index] == _TEXT:
            return int(texts[index])
        try:
            sample = mixture.sample(index)
            if texts[index] == UNCOUNTED:
                texts[index] = counter.prompt(sample).num_text_tokens
            return int(texts[index]) + counter.num_visual_tokens(sample, headers, sampler)
        except (VidllavaError, OSError):
            return UNKNOWN

    found = np.empty(len(mixture), np.int32)
    for index, length in enumerate(pool.map(look, range(len(mixture)))):
        found[index] = length
        measuring.num_done = index + 1
    return found
