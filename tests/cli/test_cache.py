"""A second question decodes nothing, also in another process, and ``vidllava cache`` says what is kept."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import av
import pytest

from tests.cli.conftest import Run
from tests.clips import numbered_picture

SHORT = ("--max-new-tokens", 4)


def ask(run: Run, *arguments: object) -> dict[str, object]:
    result = run("ask", *arguments, "--json", *SHORT)
    assert result.code == 0, result.err
    return json.loads(result.out)


def without_times(report: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in report.items() if name != "seconds"}


def test_a_second_question_decodes_nothing_and_is_reported_as_the_first(run: Run, clip: Path, picture: Path):
    first, second = (ask(run, clip, picture, "what happens") for _ in range(2))
    assert without_times(first) == without_times(second)
    assert first["seconds"]["decode"] > 0.0  # type: ignore[index]
    assert second["seconds"]["decode"] == second["seconds"]["vision"] == 0.0  # type: ignore[index]
    assert without_times(ask(run, clip, picture, "what happens", "--no-cache")) == without_times(first)


def test_no_cache_reads_and_keeps_nothing(run: Run, clip: Path):
    for _ in range(2):
        report = ask(run, clip, "what happens", "--no-cache")
        assert report["seconds"]["decode"] > 0.0  # type: ignore[index]
    assert not Path(os.environ["VIDLLAVA_CACHE"]).exists()


def test_the_contact_sheet_of_a_second_question_shows_the_same(run: Run, clip: Path, tmp_path: Path):
    sheets = [tmp_path / "one.png", tmp_path / "two.png"]
    for sheet in sheets:
        assert run("ask", clip, "what happens", "--contact-sheet", sheet, *SHORT).code == 0
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


def test_verbose_says_where_features_are_from(run: Run, clip: Path):
    told = [run("ask", clip, "what happens", "-v", *SHORT).err for _ in range(2)]
    assert "read by the tower" in told[0]
    assert "features from the cache" in told[1]


def test_frames_that_repeat_are_told(run: Run, tmp_path: Path):
    path = tmp_path / "still.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgr0"
        for number in (1, 1, 2, 1):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    flags = ("--num-frames", 8, "-v", *SHORT)
    once, each = (run("ask", path, "what?", *flags, *more).err for more in ((), ("--no-reuse-frames",)))
    assert "2 of 4 pictures repeat an earlier one's pixels" in once
    assert "pictures repeat" not in each


def test_the_command_says_what_is_kept_and_clears_it(run: Run, clip: Path):
    empty = json.loads(run("cache", "--json").out)
    assert empty == {
        "folder": os.environ["VIDLLAVA_CACHE"],
        "entries": 0,
        "bytes": 0,
        "limit_bytes": 2 << 30,
    }
    ask(run, clip, "what happens")
    kept = json.loads(run("cache", "--json").out)
    assert kept["entries"] == 1
    assert kept["bytes"] > 8 * 25 * 48 * 4
    assert os.environ["VIDLLAVA_CACHE"] in run("cache").out
    assert "deleted 1 entries" in run("cache", "clear").out
    assert json.loads(run("cache", "clear", "--json").out)["entries"] == 0
    assert json.loads(run("cache", "--json").out)["bytes"] == 0


def test_what_is_known_of_data_sets_counts_and_is_cleared(run: Run, tmp_path: Path, picture: Path):
    os.utime(picture, (1e9, 1e9))
    said = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "yes"}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"image": str(picture), "conversations": said}))
    assert run("data", "check", rows, "--media-root", picture.parent, "--model", "nano").code == 0
    kept = json.loads(run("cache", "--json").out)
    assert kept["entries"] == 0
    assert kept["bytes"] > 0
    assert run("cache", "clear").code == 0
    index = next(Path(os.environ["VIDLLAVA_CACHE"]).glob("media-*.sqlite3"))
    with sqlite3.connect(index) as read:
        assert read.execute("SELECT count(*) FROM media").fetchone() == (0,)
    read.close()


def test_a_folder_that_cannot_be_written_is_a_note(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDLLAVA_CACHE", str(tmp_path / "file" / "cache"))
    result = run("ask", clip, "what happens", *SHORT)
    assert result.code == 0
    assert "note: features were not cached" in result.err


def test_a_limit_that_is_no_size_is_told_before_the_work(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VIDLLAVA_CACHE_LIMIT", "plenty")
    result = run("ask", clip, "what happens")
    assert result.code == 2
    assert "VIDLLAVA_CACHE_LIMIT" in result.error
