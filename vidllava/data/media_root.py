"""From the name that a row gives to a file under the media root, links followed; nothing is opened.

root = MediaRoot("media")
root.file("a/1.png")            # the real path; RowFault for what is missing, remote or outside
root.pictures("clip_frames")    # the pictures of a folder, 2.png before 10.png
root.place("a/1.png")           # where it would lie: what is missing is told when it is opened
root.find("v_mZYWfmsYQPA")      # media/.../v_mZYWfmsYQPA.webm, in any folder below; also a missing one
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from vidllava.data.source import RowFault
from vidllava.errors import DatasetError
from vidllava.media.files import is_file_name, picture_names
from vidllava.media.sources import is_descriptor

_SCHEMES = ("data:", "concat:", "subfile,", "pipe:")
_MAX_FOLDERS = 1 << 16
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4", ".m4v", ".gif")
_SHOWN_CHARACTERS = 80


class OutsideRoot(RowFault):
    """A name that leads out of the media root: a data set from elsewhere must not point at other files."""


class MediaRoot:
    """The one folder in which the media of a data set lie."""

    def __init__(self, folder: str | Path) -> None:
        """Raises DatasetError where there is no such folder."""
        if not os.path.isdir(folder):
            raise DatasetError(
                folder, "the media root is not a folder", "give an existing folder as --media-root"
            )
        self.path = os.path.realpath(folder)
        self._real_folders: dict[str, str] = {}
        self._by_name: dict[str, list[str]] | None = None

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

    def place(self, name: str) -> str:
        """The path that ``name`` stands for, whether or not it is there. Raises RowFault."""
        return self._inside(os.path.join(self.path, name), name)

    def find(
        self,
        name: str,
        *,
        endings: Sequence[str] = VIDEO_ENDINGS,
        folders: Sequence[str] = (),
        of_pictures: bool = False,
    ) -> str:
        """The path of ``name``, with one of ``endings`` or none, in ``folders`` first, then anywhere below.

        ``of_pictures``: where there is no file, a folder of that name will do: it may hold a clip's pictures.
        Where there is nothing, the path at which it was looked for first. Raises RowFault.
        """
        if "://" in name or not is_file_name(name):
            raise RowFault(f"{_ending(name)} is not a local file name")
        places = [os.path.join(self.path, folder, name) for folder in (*folders, "")]
        files = (place + ending for place in places for ending in ("", *endings))
        path = next(filter(os.path.isfile, files), None)
        if path is None and of_pictures:
            path = next(filter(os.path.isdir, places), None)
        return self._inside(path or self._anywhere(name, endings) or places[-1], name)

    def _anywhere(self, name: str, endings: Sequence[str]) -> str | None:
        """The one file of that name in any folder below. Raises RowFault where there are several."""
        if os.path.isabs(name) or os.pardir in Path(name).parts:
            return None
        if self._by_name is None:
            self._by_name = {}
            for folder, _, files in os.walk(self.path):
                for file in files:
                    self._by_name.setdefault(file, []).append(os.path.join(folder, file))
        parts = Path(name).parts
        for ending in ("", *endings):
            wanted = (*parts[:-1], parts[-1] + ending)
            listed = self._by_name.get(wanted[-1], [])
            found = [path for path in listed if Path(path).parts[-len(wanted) :] == wanted]
            if len(found) > 1:
                two = " and ".join(sorted(os.path.relpath(path, self.path) for path in found)[:2])
                raise RowFault(f"{_ending(name)} may be {two}: give a --media-root that holds one of them")
            if found:
                return found[0]
        return None

    def _inside(self, path: str, name: str) -> str:
        """``path`` itself, once it is known to end within the root."""
        if is_descriptor(path):
            raise RowFault(f"{_ending(name)} is an open file of this process: give its own path")
        self._checked(path, _ending(name))
        return path

    def _checked(self, path: str, shown: str) -> str:
        """The real path of what a message calls ``shown``. Raises OutsideRoot."""
        real = self._real(path)
        if real != self.path and not real.startswith(self.path.rstrip(os.sep) + os.sep):
            raise OutsideRoot(f"{shown} lies outside the media root {self.path}")
        return real

    def _find(self, name: str) -> tuple[str, int]:
        name = _local(name)
        path = self._checked(os.path.join(self.path, name), _short(name))
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
        raise RowFault(f"{_short(name)} is not a file name")
    return name


def _short(name: str) -> str:
    """In quotes; a data: URL holds a whole picture."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "...")


def _ending(name: str) -> str:
    """In quotes; of a long one the end, where files differ."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"...{name[-_SHOWN_CHARACTERS:]}")
