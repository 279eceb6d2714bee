"""From what `--data` says to a `Source`: rows in a file or a subset, a mixture file, a generated world."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidllava.data.keys import kind_of
from vidllava.data.mixing import shuffled
from vidllava.data.mixture import Mixture
from vidllava.data.records import OnFault, RecordSource
from vidllava.data.source import Modality, Sample, Source
from vidllava.errors import DatasetError, UsageError

_HEAD_BYTES = 1 << 16
_DATASETS = re.compile(rb"^datasets[ \t]*:", re.MULTILINE)
_PATHS = ("json_path", "path")
_ROOTS = ("media_root", "image_folder", "video_folder")
_KEYS = (*_PATHS, "sampling_strategy", "weight", *_ROOTS)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set of a mixture."""

    path: Path
    strategy: str = "all"
    weight: float = 1.0
    media_root: Path | None = None
    """None leaves it to the command, and else to where the rows lie."""


def is_mixture(path: Path) -> bool:
    """Whether a file is not JSON and is named .yaml or has `datasets:` at the start of a line.

    Raises DatasetError.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise DatasetError(
            path, error.strerror or "cannot be read", "check the path and its permissions"
        ) from None
    named_so = path.suffix.lower() in (".yaml", ".yml")
    return head[:1] not in (b"[", b"{") and (named_so or _DATASETS.search(head) is not None)


def read_mixture(path: Path) -> list[Part]:
    """The data sets of a mixture file. Raises DatasetError naming every entry that cannot be meant."""
    # Not at the top: only those who have such a file need it.
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(
            path, f"is not YAML: {' '.join(str(error).split())}", "see vidllava data --help"
        ) from None
    except OSError as error:
        raise DatasetError(
            path, error.strerror or "cannot be read", "check the path and its permissions"
        ) from None
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DatasetError(
            path, "`datasets` must be a list with an entry for each data set", "see vidllava data --help"
        )
    others = [str(key) for key in content if key != "datasets"]
    if others:
        raise DatasetError(path, f"has unknown keys: {', '.join(others)}", "only `datasets` means something")
    parts: list[Part] = []
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            parts.append(_part(entry, path.parent))
        except (DatasetError, UsageError) as error:
            faults.append(f"entry {number}: {error.what}")
    if faults:
        raise DatasetError(path, "; ".join(faults), f"known keys are {', '.join(_KEYS)}")
    return parts


def _part(entry: Any, folder: Path) -> Part:
    if not isinstance(entry, dict):
        raise DatasetError("entry", f"must be a mapping, not {kind_of(entry)}", "see vidllava data --help")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise DatasetError("entry", f"unknown key {', '.join(unknown)}", "see vidllava data --help")
    path = _one_text(entry, _PATHS)
    if path is None:
        raise DatasetError("entry", "needs `json_path`", "json_path: rows.jsonl")
    strategy = _one_text(entry, ("sampling_strategy",)) or "all"
    parse_strategy(strategy)
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1000:
        raise DatasetError(
            "entry", f"`weight` must be a number above 0, at most 1000, not {weight!r}", "weight: 0.5"
        )
    root = _one_text(entry, _ROOTS)
    return Part(
        path=folder / path,
        strategy=strategy,
        weight=float(weight),
        media_root=None if root is None else folder / root,
    )


def _one_text(entry: dict[Any, Any], names: tuple[str, ...]) -> str | None:
    """The text under one of these names for the same thing."""
    given = {entry[name] for name in names if isinstance(entry.get(name), str)}
    wrong = [name for name in names if entry.get(name) is not None and not isinstance(entry[name], str)]
    if wrong:
        raise DatasetError(
            "entry",
            f"`{wrong[0]}` must be a text, not {kind_of(entry[wrong[0]])}",
            "see vidllava data --help",
        )
    if len(given) > 1:
        raise DatasetError("entry", f"{' and '.join(names)} name different things", "give one of them")
    return next(iter(given), None)


_STRATEGY = re.compile(r"(first|end|random):(\d+(?:\.\d+)?)(%?)")
_HINT = "all, first:N, end:N or random:N, where N is a count or a percentage such as 30%"


class Subset(Source):
    """Some samples of a source, in the source's order."""

    def __init__(self, source: Source, chosen: np.ndarray, strategy: str) -> None:
        """`chosen` is int64 [n], ascending."""
        self.source, self.chosen = source, chosen
        self.name = source.name
        digest = hashlib.blake2b(chosen.tobytes(), digest_size=8).hexdigest()
        self.fingerprint = f"{source.fingerprint or source.name} {strategy} {digest}"

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
        return self.source.row(int(self.chosen[index]))


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
