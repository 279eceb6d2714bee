"""The file of answers: a JSON line each, on disk before the next is begun; what stands is not done again.

with AnswerFile(path, settings="3f7a", model="nano", asked={"9be1": "7"}, overwrite=False) as answers:
    answers.append({"id": "7", "key": "9be1", "status": "ok", ...})
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from vidllava.errors import ResourceError, UsageError

Record = dict[str, Any]


class AnswerFile:
    """Locked while it is open: a second run into the same file is refused."""

    def __init__(
        self,
        path: Path,
        *,
        settings: str,
        model: str,
        asked: Mapping[str, str],
        overwrite: bool,
        stands: Sequence[str] = ("ok",),
        earlier: Iterable[Path] = (),
        only: bool = False,
    ) -> None:
        """``asked``: the id of each question by its key. ``stands``: with these statuses an answer is kept.
        ``earlier``: other files whose answers are taken over. ``only``: a file that holds answers to other
        questions is refused, and left as it is.

        Raises UsageError for a file of other settings, another model, or no answers at all.
        """
        self.path = path
        self.notes: list[str] = []
        self._stamp = {"model": model, "settings": settings}
        if path.is_dir():
            raise UsageError(f"--output {path}", "is a folder", "give a file name")
        if str(path) == "-" or (path.exists() and not path.is_file()):
            raise UsageError(f"--output {path}", "is no regular file", "give a file name: answers are kept")
        self._files = [self._open(path)]
        try:
            sources = () if overwrite else (path, *earlier)
            kept = standing([row for each in sources for row in self._read(each)], asked, stands)
            others = sum(str(record["key"]) not in asked for record in kept) if only else 0
            if others:
                what = f"holds answers to {others} questions that are not asked now"
                raise UsageError(f"--output {path}", what, "another name, or --overwrite")
            self.replace(kept)
        except BaseException:
            self.close()
            raise
        self.done = frozenset(str(record["key"]) for record in kept)
        """Keys of the questions that are answered."""

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file free."""
        while self._files:
            os.close(self._files.pop())

    def append(self, record: Record) -> None:
        """One answer, on disk when this returns."""
        line = json_line({**record, **self._stamp})
        try:
            os.write(self._files[-1], line)
            os.fsync(self._files[-1])
        except OSError as fault:
            raise ResourceError(self.path, f"cannot be written: {fault.strerror}", "make room") from None

    def read(self) -> list[Record]:
        """The answers that are on disk, in the order in which they came."""
        return self._read(self.path)

    def _read(self, path: Path) -> list[Record]:
        records, is_torn = read_answers(path, self._stamp)
        if is_torn:
            self.notes.append(f"{path}: the last line was cut off and is answered again")
        return records

    def _open(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
        except OSError as fault:
            raise ResourceError(path, f"cannot be written: {fault.strerror}", "another --output") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            what = "is being written by another run"
            raise UsageError(f"--output {path}", what, "wait for it, or give another name") from None
        return descriptor

    def replace(self, records: Sequence[Record]) -> None:
        """The file with these records alone: whole at every moment, and locked under its old name and new."""
        data = b"".join(json_line(record) for record in records)
        if data == self.path.read_bytes():
            return
        try:
            descriptor, unfinished = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(unfinished, 0o644)
                self._files.append(self._open(Path(unfinished)))
                os.replace(unfinished, self.path)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as fault:
            raise ResourceError(self.path, f"cannot be written: {fault.strerror}", "make room") from None


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as a line of UTF-8; a lone surrogate, which UTF-8 cannot hold, stands as its JSON escape."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def read_answers(path: Path, stamp: Mapping[str, str]) -> tuple[list[Record], bool]:
    """(records, whether the last line is torn). Raises UsageError for those of another run."""
    *whole, torn = path.read_bytes().split(b"\n")
    records: list[Record] = []
    for line in whole:
        try:
            record = json.loads(line)
            _ = record["key"]
        except (ValueError, TypeError, KeyError, RecursionError):
            what = f"line {len(records) + 1} is no answer of a batch"
            raise UsageError(f"--output {path}", what, "another name, or --overwrite") from None
        if any(record.get(name) != value for name, value in stamp.items()):
            made = record.get("model")
            other = f"model {made}" if made != stamp["model"] else "other settings or weights"
            what = f"was made with {other}"
            raise UsageError(f"--output {path}", what, "another name, or --overwrite")
        records.append(record)
    return records, bool(torn)


def standing(found: Iterable[Record], asked: Mapping[str, str], stands: Sequence[str]) -> list[Record]:
    """The answers that stand: of these questions as they are now, and of others; each once."""
    ids = frozenset(asked.values())
    kept: dict[str, Record] = {}
    for record in found:
        key = str(record["key"])
        if record.get("status") in stands and (key in asked or str(record.get("id")) not in ids):
            kept.setdefault(key, record)
    return list(kept.values())
