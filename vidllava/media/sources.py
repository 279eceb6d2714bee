"""Media as local files: those of the user as they are, standard input and URLs through a file of ours.

    with Spool(limits, allow_url=True) as spool:
        path = spool.local("https://example.org/clip.mp4")    # /tmp/vidllava-.../1, gone after the block

FFmpeg sees local files only. Ours are for their owner alone, and an error names what the user named.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from vidllava.errors import MediaError, ResourceError, UsageError, VidllavaError
from vidllava.media.files import is_url, shown_url
from vidllava.media.limits import DEFAULT_LIMITS, Limits, check_seconds

STDIN = "-"
_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|thread-self)/fd/\d+")
URL_SECONDS = 120.0
_CHUNK_BYTES = 1 << 20


def is_descriptor(name: str) -> bool:
    """Whether ``name`` is an open file of this process, like /dev/stdin: another file in every process."""
    return _DESCRIPTOR.fullmatch(os.path.abspath(name)) is not None


def real_file(name: str) -> str:
    """The path of the regular file behind a descriptor's name, for other processes to open.

    Raises MediaError where there is none: a pipe, a device, a file that was deleted.
    """
    real = os.path.realpath(name)
    try:
        if os.path.isfile(real) and os.path.samefile(name, real):
            return real
    except OSError:
        pass
    raise MediaError(name, "is not a regular file with a name", "give the file, or - to read standard input")


class Spool:
    """Hands out local paths; what had to be copied is deleted at the end of the ``with``."""

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, *, allow_url: bool = False, url_seconds: float = URL_SECONDS
    ) -> None:
        check_seconds("--url-timeout", url_seconds)
        self._limits = limits
        self._allow_url = allow_url
        self._url_seconds = url_seconds
        self._folder: str | None = None
        self._names: dict[str, str] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, VidllavaError) and error.thing in self._names:
            raise type(error)(self._names[error.thing], error.what, error.hint) from error

    def close(self) -> None:
        """Delete every copy. May be called twice."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def local(self, name: str) -> str:
        """The path under which a medium can be opened: ``name`` itself, or a copy of what it stands for.

        Raises MediaError, ResourceError and UsageError; a URL is refused unless it was allowed.
        """
        if name == STDIN:
            return self._copied("standard input", self._read_stdin)
        if is_descriptor(name):  # the worker's own descriptors are others
            path = real_file(name)
            self._names[path] = name
            return path
        if not is_url(name) or os.path.lexists(name):
            return name
        if not self._allow_url:
            raise MediaError(
                shown_url(name),
                "is a URL, and only local files are read",
                "download it first, or --allow-url",
            )
        return self._copied(shown_url(name), lambda file: self._fetch(name, file))

    def shown(self, path: str) -> str:
        """What the user named, for a path that ``local`` gave."""
        return self._names.get(path, path)

    def _copied(self, shown: str, fill: Callable[[BinaryIO], None]) -> str:
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="vidllava-")  # 0700
        path = os.path.join(self._folder, str(len(self._names) + 1))
        self._names[path] = shown
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
        if Path(path).stat().st_size == 0:
            raise MediaError(shown, "is empty (0 bytes)", "check where it comes from")
        return path

    def _fetch(self, url: str, file: BinaryIO) -> None:
        # Not at the top: http and what it needs are loaded for those who fetch something.
        from vidllava.media.url import fetch

        fetch(url, file, max_bytes=self._limits.max_file_bytes, seconds=self._url_seconds)

    def _read_stdin(self, file: BinaryIO) -> None:
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:
            raise UsageError("media", "- was given, but standard input is closed", "give a file")
        if stream.isatty():
            raise UsageError(
                "media", "- was given, but standard input is a terminal", "cat clip.mp4 | vidllava ask - ..."
            )
        done = 0
        while chunk := stream.read1(_CHUNK_BYTES):
            done += len(chunk)
            if done > self._limits.max_file_bytes:
                what = f"has more bytes than the limit of {self._limits.max_file_bytes:,}"
                raise ResourceError("standard input", what, "raise --max-file-size")
            file.write(chunk)
