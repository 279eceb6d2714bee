"""The subtitles at the sampled frames, and no others, stand before the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidllava.errors import MediaError
from vidllava.evaluation.subtitles import preface, read_srt

SRT = """\ufeff1
00:00:00,000 --> 00:00:02,500
<font color="white" size=".72c">Hello there</font>

2
00:00:02,500 --> 00:00:04,000
two
lines

3
01:00:00,5 --> 01:00:01,000
much later
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.srt").write_text(SRT.replace("\n", "\r\n"), encoding="utf-8")
    return str(tmp_path / "a.srt")


def test_times_and_texts(path: str):
    assert read_srt(path) == [
        (0.0, 2.5, "Hello there"),
        (2.5, 4.0, "two lines"),
        (3600.5, 3601.0, "much later"),
    ]


@pytest.mark.parametrize(
    ("instants", "lines"),
    [
        ((0.0, 1.0, 2.4), "Hello there\n"),
        ((2.5,), "two lines\n"),
        ((1.0, 3.0, 3600.7), "Hello there\ntwo lines\nmuch later\n"),
        ((100.0,), "\n"),
    ],
)
def test_lines_that_are_active_at_an_instant(path: str, instants: tuple[float, ...], lines: str):
    assert preface(path, instants) == f"This video's subtitles are listed below: \n{lines}"


def test_a_missing_file_is_said_and_no_file_is_nothing(tmp_path: Path):
    assert preface("", (0.0,)).endswith("No subtitles available\n")
    assert preface(None, (0.0,)) == ""
    with pytest.raises(MediaError):
        preface(str(tmp_path), (0.0,))
