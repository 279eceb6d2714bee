"""From what `--data` says to a `Source`: rows in a file, a mixture, or a generated world `scheme:rest`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidllava.data.mixture import Mixture
from vidllava.data.mixture_file import Part, is_mixture, read_mixture
from vidllava.data.records import OnFault, RecordSource
from vidllava.data.source import Source
from vidllava.data.subset import subset
from vidllava.errors import DatasetError, UsageError

_BRACES = re.compile(r"([^{}]*)\{([^{}]*)\}([^{}]*)")
Schemes = Mapping[str, Callable[[str], Source]]


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How data sets are opened.

    media_root  the folder of pictures and clips; None is beside each file of rows
    schemes     name -> function that is given the whole spec: `{"nano-world": world_source}` makes
                `nano-world:2-ov?seed=3` known. The caller passes it, so that data never imports upwards.
    seed        of the parts that a mixture file draws at random
    on_fault    told (file, row, id, reason) of every faulty row, which is then left out; None makes a
                faulty row an error
    on_note     told what else is odd about a file of rows, such as keys without a meaning
    """

    media_root: str | Path | None = None
    schemes: Mapping[str, Callable[[str], Source]] | None = None
    seed: int = 0
    on_fault: Callable[[str, int, str | None, str], None] | None = None
    on_note: Callable[[str], None] | None = None


def load_mixture(
    specs: Sequence[str], weights: Sequence[float] = (), loading: Loading | None = None
) -> Mixture:
    """Every data set that `specs` name; a mixture file's own weights are multiplied by its spec's.

    Raises DatasetError or UsageError.
    """
    loading = loading or Loading()
    if weights and len(weights) != len(specs):
        raise UsageError(
            "--data-weights",
            f"{len(weights)} weights for {len(specs)} data sets",
            "give one weight per --data, in the same order",
        )
    sources: list[Source] = []
    all_weights: list[float] = []
    for spec, weight in zip(specs, weights or [1.0] * len(specs), strict=True):
        for source, own in load_sources(spec, loading):
            sources.append(source)
            all_weights.append(weight * own)
    return Mixture(tuple(sources), tuple(all_weights))


def load_sources(spec: str, loading: Loading) -> list[tuple[Source, float]]:
    """The data sets behind one spec with their weights: one, or those of a mixture file."""
    scheme, colon, _ = spec.partition(":")
    schemes = loading.schemes or {}
    if colon and scheme in schemes:
        return [(schemes[scheme](spec), 1.0)]
    return [
        (subset(_rows(part, loading), part.strategy, seed=loading.seed), part.weight)
        for part in parts_of(spec, loading)
    ]


def parts_of(spec: str, loading: Loading) -> list[Part]:
    """The files of rows behind one spec. Raises DatasetError or UsageError."""
    names = spelt_out(spec)
    if len(names) > 1:
        return [part for name in names for part in parts_of(name, loading)]
    path = _checked(names[0], loading.schemes or {})
    if not is_mixture(path):
        return [Part(path=path)]
    parts = read_mixture(path)
    for part in parts:
        _checked(str(part.path), {})
        if is_mixture(part.path):
            raise DatasetError(
                part.path, f"is a mixture within the mixture {path}", "name its data sets there"
            )
    return parts


def spelt_out(spec: str) -> list[str]:
    """The files that LLaVA's `folder/{a,b}.json` names; a file that is really called so is itself."""
    match = _BRACES.fullmatch(spec)
    if match is None or os.path.lexists(spec):
        return [spec]
    return [f"{match[1]}{name}{match[3]}" for name in match[2].split(",")]


def load_source(spec: str, media_root: str | Path | None = None, *, schemes: Schemes | None = None) -> Source:
    """Open one data set that is no mixture. Raises DatasetError or UsageError."""
    found = load_sources(spec, Loading(media_root=media_root, schemes=schemes))
    if len(found) > 1:
        raise UsageError(spec, "is a mixture", "use load_mixture")
    return found[0][0]


def _rows(part: Part, loading: Loading) -> RecordSource:
    root = part.media_root if part.media_root is not None else loading.media_root
    tell, name = loading.on_fault, str(part.path)
    hear: OnFault | None = None
    if tell is not None:

        def hear(row: int, identity: str | None, reason: str) -> None:
            tell(name, row, identity, reason)

    source = RecordSource(part.path, root, on_fault=hear)
    note = source.key_note()
    if note is not None and loading.on_note is not None:
        loading.on_note(note)
    return source


def _checked(spec: str, schemes: Schemes) -> Path:
    """The path of a regular file. Raises DatasetError or UsageError."""
    path = Path(spec)
    if path.is_file():
        return path
    if path.is_dir():
        raise DatasetError(path, "is a folder", "name the .json or .jsonl file in it")
    if path.exists():
        raise DatasetError(path, "is not a regular file", "give a file of rows")
    if not spec:
        raise UsageError("--data", "is empty", "name a .json or .jsonl file")
    known = "".join(f", or {name}:..." for name in schemes)
    raise DatasetError(spec, "no such file", f"a .json or .jsonl file{known}")
