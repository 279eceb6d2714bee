"""From the name or id that a data set gives to a file under the media root; nothing is opened.

finder = MediaFinder("media")
finder.find("v_mZYWfmsYQPA")        # media/.../v_mZYWfmsYQPA.webm; where there is none, a path to nothing

A missing file is no fault of the row: it becomes a ``decode_error`` of that question. A path that leads out
of the media root is one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidllava.data.row import RowFault
from vidllava.errors import DatasetError
from vidllava.media.files import is_file_name
from vidllava.media.sources import is_descriptor

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4", ".m4v", ".gif")
_SHOWN_CHARACTERS = 60


class MediaFinder:
    """The media of a data set, found by path, by name, or by name without its ending."""

    def __init__(self, folder: Path) -> None:
        """Raises DatasetError where there is no such folder."""
        if not folder.is_dir():
            raise DatasetError(
                folder, "the media root is no folder", "give an existing folder as --media-root"
            )
        self.folder = folder
        self._real = os.path.realpath(folder)
        self._by_name: dict[str, list[str]] | None = None

    def find(
        self,
        name: str,
        *,
        endings: Sequence[str] = VIDEO_ENDINGS,
        folders: Sequence[str] = (),
        of_pictures: bool = False,
    ) -> str:
        """The path of ``name``, looked for in ``folders`` first, then anywhere. Raises RowFault.

        ``of_pictures``: where there is no file, a folder of that name will do: it may hold a clip's pictures.
        """
        if "://" in name or not is_file_name(name):
            raise RowFault(f"{_short(name)} is no local file name")
        for folder in (*folders, ""):
            for ending in ("", *endings):
                path = os.path.join(self.folder, folder, name + ending)
                if os.path.isfile(path):
                    return self._inside(path, name)
        if of_pictures:
            for folder in (*folders, ""):
                path = os.path.join(self.folder, folder, name)
                if os.path.isdir(path):
                    return self._inside(path, name)
        found = self._anywhere(name, endings)
        return self._inside(found or os.path.join(self.folder, name), name)

    def _inside(self, path: str, name: str) -> str:
        """Links followed: a data set from elsewhere must not point at other files."""
        real = os.path.realpath(path)
        if is_descriptor(path) or (
            real != self._real and os.path.commonpath([real, self._real]) != self._real
        ):
            raise RowFault(f"{_short(name)} lies outside the media root {self._real} (--media-root)")
        return path

    def _anywhere(self, name: str, endings: Sequence[str]) -> str | None:
        """The one file of that name in any folder below."""
        if os.path.isabs(name) or os.pardir in Path(name).parts:
            return None
        if self._by_name is None:
            self._by_name = {}
            for folder, _, files in os.walk(self.folder):
                for file in files:
                    self._by_name.setdefault(file, []).append(os.path.join(folder, file))
        wanted = os.path.basename(name)
        for ending in ("", *endings):
            found = [
                path for path in self._by_name.get(wanted + ending, []) if _ends_with(path, name + ending)
            ]
            if len(found) > 1:
                listed = " and ".join(sorted(os.path.relpath(path, self.folder) for path in found)[:2])
                raise RowFault(f"{_short(name)} may be {listed}: give a --media-root that holds one of them")
            if found:
                return found[0]
        return None


def _ends_with(path: str, name: str) -> bool:
    parts = Path(name).parts
    return Path(path).parts[-len(parts) :] == parts


def _short(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"...{name[3 - _SHOWN_CHARACTERS :]}")
