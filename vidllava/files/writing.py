"""Outputs: the one atomic write of the whole package, and the refusal of an output that is an input.

    write_text(path, text)                      # whole or not at all, on the disk when it returns
    with replacing(path) as file:               # the same for whatever writes into a file
        picture.save(file, format="PNG")
    refuse_inputs("--output", path, clips)      # UsageError where one of them is the very file

A file is written under another name beside its place, flushed, and renamed: a reader sees the old content or
the new one, and whatever goes wrong leaves the old one and nothing beside it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vidllava.errors import ResourceError, UsageError

UNFINISHED = ".unfinished-"
"""How the names of files begin that are being written."""
_NAME_CHARACTERS = 40


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """``path`` with this content, UTF-8; a lone surrogate stands as its JSON escape. Raises ResourceError."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable=durable)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """``path`` with ``value`` as JSON and a line end. Raises ResourceError."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """``path`` with this content. Raises ResourceError."""
    with replacing(path, durable=durable) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of ``path`` when the block ends well.

    A link is followed; the mode of a file that is replaced stays, a new one has what the umask leaves.
    ``durable``: file and folder are flushed to the disk. Raises ResourceError, for an OSError of the block
    too.
    """
    try:
        with unconverted_replacing(path, durable=durable) as file:
            yield file
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise ResourceError(path, f"cannot be written: {reason}", "make room, or another place") from fault


@contextmanager
def unconverted_replacing(path: Path, *, durable: bool = True, mode: int | None = None) -> Iterator[BinaryIO]:
    """As ``replacing``, but an OSError stays one. ``mode``: of the file, whatever the umask says."""
    target = os.path.realpath(path)
    earlier = _mode_of(target)
    place = os.path.join(
        os.path.dirname(target),
        f"{UNFINISHED}{os.path.basename(target)[-_NAME_CHARACTERS:]}-{secrets.token_hex(6)}",
    )
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode or 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            if mode or earlier is not None:
                os.fchmod(file.fileno(), mode or earlier or 0)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(place, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(place)
        raise
    if durable:
        flush_to_disk(os.path.dirname(target))


def flush_to_disk(path: str | Path) -> None:
    """Wait until the disk holds a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Wait until the disk holds every file in a folder, and the list of names of each folder."""
    for path in (*folder.rglob("*"), folder):
        flush_to_disk(path)


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines by one write, so that those of several processes do not mingle. Raises ResourceError.

    Handed to the operating system and not flushed: for logs of which a power cut may take the last lines.
    """
    data = b"".join(json_line(record) for record in records)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as fault:
        raise ResourceError(path, f"cannot be written: {fault.strerror}", "make room") from None


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as a line of UTF-8; a lone surrogate, which UTF-8 cannot hold, stands as its JSON escape."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def write_all(descriptor: int, data: bytes) -> None:
    """Every byte of ``data``: one write where the system takes it whole. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def refuse_inputs(
    flag: str, output: Path, inputs: Iterable[str | Path], *, what: str = "is an input of this command"
) -> None:
    """Raises UsageError where ``output`` is one of ``inputs``: the same file, by whatever name or link.

    An input that is a folder stands for itself, not for what lies in it.
    """
    try:
        found = os.stat(output)
    except OSError:  # not there yet: it is not a file that is read
        return
    for name in inputs:
        try:
            is_same = os.path.samestat(found, os.stat(name))
        except (OSError, ValueError):
            continue
        if is_same:
            known_as = "" if str(name) == str(output) else f": {name}"
            raise UsageError(f"{flag} {output}", what + known_as, "give another name")


def _mode_of(target: str) -> int | None:
    """The permissions of the regular file that stands there; None where there is none. Raises OSError."""
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return stat.S_IMODE(status.st_mode)
