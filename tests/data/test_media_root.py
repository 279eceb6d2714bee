"""A row names files under its media root only, whatever the name and the links on the way look like."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidllava.data.media_root import MediaRoot
from vidllava.data.records import RecordSource
from vidllava.data.source import RowFault
from vidllava.errors import DatasetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`media` beside `media-private`, whose name begins with the root's, and `other`."""
    for name in ("media/1.png", "media/sub/2.png", "media-private/1.png", "other/1.png", "3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    media = tmp_path / "media"
    (media / "inside.png").symlink_to("sub/2.png")
    (media / "outside.png").symlink_to("../media-private/1.png")
    (media / "absolute.png").symlink_to(tmp_path / "other" / "1.png")
    (media / "twice.png").symlink_to("outside.png")
    (media / "subfolder").symlink_to("sub")
    (media / "private").symlink_to("../media-private")
    (media / "gone.png").symlink_to("nowhere.png")
    (media / "sub" / "up").symlink_to("../..")
    (tmp_path / "link-to-media").symlink_to("media")
    return media


INSIDE = {
    "1.png": "1.png",
    "./1.png": "1.png",
    "sub/2.png": "sub/2.png",
    "sub//2.png": "sub/2.png",
    "sub/../1.png": "1.png",
    "sub/./2.png": "sub/2.png",
    "../media/1.png": "1.png",
    "sub/up/media/1.png": "1.png",
    "inside.png": "sub/2.png",
    "subfolder/2.png": "sub/2.png",
    "subfolder/../1.png": "1.png",
    "{root}/1.png": "1.png",
    "file://{root}/sub/2.png": "sub/2.png",
    "{root}/../link-to-media/1.png": "1.png",
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_name_that_ends_within_the_root_is_its_real_file(name: str, root: Path):
    expected = os.path.realpath(root / INSIDE[name])
    assert MediaRoot(root).file(name.format(root=root)) == expected
    assert MediaRoot(root.parent / "link-to-media").file(name.format(root=root)) == expected


OUTSIDE = (
    "../media-private/1.png",
    "../other/1.png",
    "../3.png",
    "sub/../../media-private/1.png",
    "sub/../../3.png",
    "./../3.png",
    "outside.png",
    "absolute.png",
    "twice.png",
    "private/1.png",
    "private/../3.png",
    "sub/up/3.png",
    "sub/up/media-private/1.png",
    "{parent}/3.png",
    "{parent}/media-private/1.png",
    "{root}/../3.png",
    "{root}-private/1.png",
    "file://{parent}/3.png",
    "file://{root}/%2e%2e/3.png",
    "..",
    "../",
    "../.",
    "sub/../..",
    "sub/up",
    "sub/up/",
    "private",
    "private/",
    "/",
    "../media-private",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused_as_file_and_as_folder(name: str, root: Path):
    spelt = name.format(root=root, parent=root.parent)
    for look in (MediaRoot.file, MediaRoot.is_folder, MediaRoot.pictures):
        media = MediaRoot(root)
        with pytest.raises(RowFault, match="lies outside the media root"):
            look(media, spelt)
        with pytest.raises(RowFault, match="lies outside the media root"):
            look(media, spelt)  # its folder is remembered by now


@pytest.mark.parametrize("key", ["image", "video"])
def test_a_row_that_names_the_folder_beside_its_root_is_refused(key: str, root: Path):
    path = root.parent / "rows.jsonl"
    said = [{"from": "human", "value": f"<{key}>what?"}, {"from": "gpt", "value": "this"}]
    path.write_text(json.dumps({"conversations": said, key: "../media-private/1.png"}))
    with pytest.raises(DatasetError, match=r"row 1: '\.\./media-private/1\.png' lies outside the media root"):
        RecordSource(path, root)


def test_the_root_itself_is_a_folder_in_it_and_the_whole_disk_may_be_a_root(root: Path):
    assert MediaRoot(root).is_folder(".")
    assert [Path(path).name for path in MediaRoot(root / "sub").pictures(".")] == ["2.png"]
    assert MediaRoot("/").file(f"{root}/1.png") == os.path.realpath(root / "1.png")


def test_what_is_missing_within_the_root_is_told_as_missing(root: Path):
    for name in ("no.png", "gone.png", "sub/no/2.png"):
        with pytest.raises(RowFault, match="no such file under"):
            MediaRoot(root).file(name)
    with pytest.raises(RowFault, match="is not a regular file"):
        MediaRoot(root).file("sub")
    with pytest.raises(DatasetError, match="the media root is not a folder"):
        MediaRoot(root / "1.png")


def test_as_many_folders_as_are_remembered_may_be_named(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidllava.data.media_root._MAX_FOLDERS", 2)
    media = MediaRoot(root)
    for name in ("a", "b", "c", "d"):
        (root / name).mkdir()
        (root / name / "1.png").write_bytes(b"x")
        assert media.file(f"{name}/1.png") == os.path.realpath(root / name / "1.png")
        assert len(media._real_folders) <= 2


def test_names_at_the_length_that_is_shown(root: Path):
    exact, longer = "x" * 80, "x" * 81
    with pytest.raises(RowFault, match=f"^'{exact}': no such"):
        MediaRoot(root).file(exact)
    with pytest.raises(RowFault, match=f"^'{exact}\\.\\.\\.': no such"):
        MediaRoot(root).file(longer)
