"""Headers of media files, each read once however many rows name it, through a sampler with a deadline.

    headers = Headers(MediaIndex(folder, note))
    headers.picture("a.png", sampler)        # Header(height=480, width=640); MediaError says why not

What the index remembers is not opened again. A deadline that passed is not remembered: a disk may have slept.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from vidllava.data.media_index import Header, MediaIndex
from vidllava.errors import MediaError
from vidllava.media.sampler import HeaderSampler


class Headers:
    """Looks files up in the index, else opens them. For any number of threads."""

    def __init__(self, index: MediaIndex) -> None:
        self._index = index

    def picture(self, path: str, sampler: HeaderSampler) -> Header:
        """The upright size of a picture. Raises MediaError, ResourceError."""
        return self._look(path, lambda: Header(*sampler.picture_size(path)), clip=False)

    def clip(self, path: str, sampler: HeaderSampler) -> Header:
        """The upright size and the times of a clip. Raises MediaError, ResourceError."""

        def probed() -> Header:
            info = sampler.probe(path)
            return Header(info.height, info.width, info.frame_times, info.duration_seconds)

        return self._look(path, probed, clip=True)

    def _look(self, path: str, look: Callable[[], Header], *, clip: bool) -> Header:
        known = self._index.find(path)
        # A file may be named as a picture and as a clip: what one look found says nothing of the other.
        if known is not None and known.fault is None and (known.frame_times is not None) == clip:
            return known
        if known is not None and known.fault is not None and known.fault.startswith(_MARKS[clip]):
            thing, what, hint = known.fault.removeprefix(_MARKS[clip]).split("\0")
            raise MediaError(thing, what, hint)
        try:
            status = os.stat(path)
        except OSError as error:
            raise MediaError(
                path, (error.strerror or "cannot be read").lower(), "check its permissions"
            ) from None
        try:
            found = look()
        except MediaError as error:
            words = "\0".join((error.thing, error.what, error.hint or ""))
            self._index.keep(path, status, Header(fault=_MARKS[clip] + words))
            raise
        self._index.keep(path, status, found)
        return found


_MARKS = {True: "clip:", False: "picture:"}
