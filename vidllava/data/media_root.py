"""From the name that a row gives to a file under the media root, links followed; nothing is opened.

root = MediaRoot("media")
root.file("a/1.png")            # the real path; RowFault for what is missing, remote or outside
root.pictures("clip_frames")    # the pictures of a folder, 2.png before 10.png
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from vidllava.data.source import RowFault
from vidllava.errors import DatasetError
from vidllava.media.files import is_file_name, picture_names

_SCHEMES = ("data:", "concat:", "subfile,", "pipe:")
_MAX_FOLDERS = 1 << 16
_SHOWN_CHARACTERS = 80


class MediaRoot:
    """The one folder in which the media of a data set lie."""

    def __init__(self, folder: str | Path) -> None:
        """Raises DatasetError where there is no such folder."""
        if not os.path.isdir(folder):
            raise DatasetError(
                folder, "the media root is no folder", "give an existing folder as --media-root"
            )
        self.path = os.path.realpath(folder)
        self._real_folders: dict[str, str] = {}

    def file(self, name: str) -> str:
        """The real path of a regular file. Raises RowFault."""
        path, mode = self._find(name)
        if not stat.S_ISREG(mode):
            raise RowFault(f"{_short(name)} is not a regular file")
        return path

    def is_folder(self, name: str) -> bool:
        """Whether a folder is named. Raises RowFault where nothing is."""
        return stat.S_ISDIR(self._find(name)[1])

    def pictures(self, name: str) -> tuple[str, ...]:
        """The picture files of a folder in natural order. Raises RowFault where it has none."""
        folder, _ = self._find(name)
        try:
            names = picture_names(folder)
        except OSError as error:
            raise RowFault(f"{_short(name)}: {error.strerror}") from None
        if not names:
            raise RowFault(f"{_short(name)} is a folder without pictures")
        return tuple(self.file(os.path.join(folder, each)) for each in names)

    def _find(self, name: str) -> tuple[str, int]:
        name = _local(name)
        path = self._real(os.path.join(self.path, name))
        if path != self.path and not path.startswith(self.path.rstrip(os.sep) + os.sep):
            raise RowFault(f"{_short(name)} lies outside the media root {self.path}")
        try:
            return path, os.stat(path).st_mode
        except OSError:
            raise RowFault(f"{_short(name)}: no such file under {self.path}") from None

    def _real(self, path: str) -> str:
        """``os.path.realpath``, with the folders remembered: data sets name a few of them a million times."""
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in self._real_folders:
            if len(self._real_folders) >= _MAX_FOLDERS:
                self._real_folders.clear()
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)


def _local(name: str) -> str:
    """The path in ``name``; ``file://`` names one too."""
    if name.startswith("file://"):
        name = unquote(name.removeprefix("file://"))
    if "://" in name or name.startswith(_SCHEMES):
        raise RowFault(f"{_short(name)}: remote media are not supported; download the file first")
    if not is_file_name(name):
        raise RowFault(f"{_short(name)} is no file name")
    return name


def _short(name: str) -> str:
    """In quotes; a data: URL holds a whole picture."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "...")
