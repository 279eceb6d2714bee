"""The subtitles at the sampled frames, and no others, stand before the prompt, however a file is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidllava.errors import MediaError
from vidllava.evaluation import subtitles
from vidllava.evaluation.subtitles import preface, read_cues

SRT = """1
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
CUES = [(0.0, 2.5, "Hello there"), (2.5, 4.0, "two lines"), (3600.5, 3601.0, "much later")]
HEAD = "This video's subtitles are listed below: \n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.srt").write_text(SRT.replace("\n", "\r\n"), encoding="utf-8-sig")
    return str(tmp_path / "a.srt")


def cues(folder: Path, text: str | bytes) -> list[subtitles.Cue]:
    file = folder / "b.srt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_cues(str(file))


def test_times_and_texts(path: str):
    assert read_cues(path) == CUES


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_and_every_end_of_line(tmp_path: Path, encoding: str, end: str):
    assert cues(tmp_path, SRT.replace("\n", end).encode(encoding)) == CUES
    if encoding != "utf-16":  # Python writes it little-endian, with its mark
        assert (
            cues(tmp_path, SRT.replace("Hello", "Héllö").replace("\n", end).encode(encoding))[0][2]
            == "Héllö there"
        )


def test_big_endian_with_its_mark(tmp_path: Path):
    assert cues(tmp_path, b"\xfe\xff" + SRT.encode("utf-16-be")) == CUES


def test_utf_16_of_another_script_without_a_mark(tmp_path: Path):
    for encoding in ("utf-16-le", "utf-16-be"):
        assert cues(tmp_path, SRT.replace("Hello there", "你好" * 9).encode(encoding))[0][2] == "你好" * 9


def test_windows_quotes_are_read(tmp_path: Path):
    assert cues(tmp_path, SRT.replace("Hello", "“Hello”").encode("cp1252"))[0][2] == "“Hello” there"


@pytest.mark.parametrize(
    "data",
    [
        SRT.replace("Hello there", "你好世界我在这里等你").encode("gb18030"),
        SRT.replace("Hello there", "こんにちは、世界").encode("shift-jis"),
        SRT.encode("utf-16")[:-1],
        SRT.encode() + b"\0\0\0",
        b"no times here\n",
        b"WEBVTT\n\nstill none\n",
        b"\x89PNG\r\n\x1a\n\xff\x81",
    ],
)
def test_what_cannot_be_read_is_a_fault_and_never_an_empty_list(tmp_path: Path, data: bytes):
    with pytest.raises(MediaError):
        cues(tmp_path, data)


@pytest.mark.parametrize("data", [b"", b"\n \n", b"WEBVTT\n", b"\xef\xbb\xbf"])
def test_a_file_without_text_has_no_subtitles_and_it_is_said(tmp_path: Path, data: bytes):
    (tmp_path / "b.srt").write_bytes(data)
    assert preface(str(tmp_path / "b.srt"), (0.0,)) == f"{HEAD}No subtitles available\n"


def test_a_file_over_the_limit_is_refused_and_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subtitles, "MAX_BYTES", len(SRT))
    assert cues(tmp_path, SRT) == CUES
    with pytest.raises(MediaError, match="too much for subtitles"):
        cues(tmp_path, SRT + "\n")


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        # A blank line within a cue; none between two; no numbers at all.
        (
            "1\n00:00:00,0 --> 00:00:02,0\nHello\n\nthere\n\n2\n00:00:02,0 --> 00:00:04,0\nGeneral\n",
            ["Hello there", "General"],
        ),
        (
            "1\n00:00:00,0 --> 00:00:02,0\nHello\n2\n00:00:02,0 --> 00:00:04,0\nGeneral\n",
            ["Hello", "General"],
        ),
        ("00:00:00,0 --> 00:00:02,0\nHello\n00:00:02,0 --> 00:00:04,0\nGeneral\n", ["Hello", "General"]),
        # A number is a cue's own only right above the times, and only in a file that counts.
        (
            "1\n00:00:00,0 --> 00:00:02,0\nIt was\n1984\n\n2\n00:00:02,0 --> 00:00:04,0\n42",
            ["It was 1984", "42"],
        ),
        ("00:00:00,0 --> 00:00:02,0\nIn\n1984\n00:00:02,0 --> 00:00:04,0\nGeneral", ["In 1984", "General"]),
        # Hours left out, no fraction, a dot.
        ("1\n00:00 --> 00:02\nHello\n\n2\n00:02.000 --> 0:00:04.0\nGeneral\n", ["Hello", "General"]),
        ("1\n00:00:00,0 --> 00:00:02,0\n\n2\n00:00:02,0 --> 00:00:04,0\nGeneral\n", ["", "General"]),
    ],
)
def test_subrip_as_people_write_it(tmp_path: Path, text: str, texts: list[str]):
    found = cues(tmp_path, text)
    assert [said for _, _, said in found] == texts
    assert [(start, end) for start, end, _ in found] == [(0.0, 2.0), (2.0, 4.0)]


def test_webvtt(tmp_path: Path):
    text = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE 00:00 is where it begins

intro
00:00.000 --> 00:02.000 align:start position:10%
<v Ann>Hello <c.loud>there</c></v> <00:01.500>now

NOTE
no text of any cue

2
00:02.000 --> 01:00:04.000
AT&amp;T &lt;3, and 1 < 2 > 0
"""
    assert cues(tmp_path, text) == [(0.0, 2.0, "Hello there now"), (2.0, 3604.0, "AT&T <3, and 1 < 2 > 0")]


def test_markup_goes_and_text_stays(tmp_path: Path):
    text = "1\n00:00:00,0 --> 00:00:02,0\n{\\an8}<i>Hello</i>\n<b>there</b>, 1 < 2 > 0 {now}\n"
    assert cues(tmp_path, text)[0][2] == "Hello there, 1 < 2 > 0 {now}"


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
    assert preface(path, instants) == f"{HEAD}{lines}"


def test_overlapping_cues_are_each_said_once_by_their_start(tmp_path: Path):
    text = "1\n00:00:01,0 --> 00:00:03,0\nlater\n\n2\n00:00:00,0 --> 00:00:04,0\nlonger\n"
    (tmp_path / "a.srt").write_text(text, encoding="utf-8")
    assert preface(str(tmp_path / "a.srt"), (1.0, 2.0)) == f"{HEAD}longer\nlater\n"
    assert preface(str(tmp_path / "a.srt"), (3.0,)) == f"{HEAD}longer\n"


def test_a_missing_file_is_said_and_no_file_is_nothing(tmp_path: Path):
    assert preface("", (0.0,)).endswith("No subtitles available\n")
    assert preface(None, (0.0,)) == ""
    with pytest.raises(MediaError):
        preface(str(tmp_path), (0.0,))
