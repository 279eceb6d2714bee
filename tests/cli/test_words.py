"""Which arguments are media and which one is the question; texts that are given by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from vidllava.cli.console import Console
from vidllava.cli.words import media_and_question

SHORT = ("--max-new-tokens", 2)
LONG = "what happens " * 40


@pytest.fixture
def here(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a clip in it."""
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(run: Run, *words: object, stdin: str | None = None) -> tuple[str, list[str], str]:
    """The question that was asked, the media, and what stderr said besides the cut answer."""
    result = run("ask", *words, "--json", "--context-limit", 9000, *SHORT, stdin=stdin)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    told = [line for line in result.err.splitlines() if "the answer was cut" not in line]
    return report["question"], [item["media"] for item in report["media"]], "\n".join(told)


@pytest.mark.parametrize(
    "question",
    [
        *(LONG.strip(), "x" * 256, "\u00e9" * 3000, "a/" * 2500 + "a"),
        *("two\nlines", "what\0is this", "what\udcff?", "what\ud800?", "~", "~nobody/x", "@a"),
    ],
)
def test_a_question_is_never_looked_up_as_a_path(question: str):
    """More than a file name's 255 bytes, than a path's 4096, line ends, NUL, surrogates, an unknown home."""
    media = ["clip.mp4"]
    assert media_and_question([*media, question], None, Console()) == (media, question)
    named = f"@{question}" if question.startswith("@") else question
    assert media_and_question(media, named, Console()) == (media, question)


def test_a_question_longer_than_a_file_name_is_answered(run: Run, here: Path):
    assert asked(run, "clip.mp4", LONG) == (LONG.strip(), ["clip.mp4"], "")


def test_the_last_argument_is_asked_with_a_note_also_where_it_names_a_file(run: Run, here: Path):
    (here / "what happens").write_text("some notes")
    question, media, told = asked(run, "clip.mp4", "what happens")
    assert (question, media) == ("what happens", ["clip.mp4"])
    assert told.startswith("note: 'what happens' is asked as the question, and is a file's name too")
    assert "--question" in told
    (here / "folder").mkdir()
    assert "is a file's name too" in asked(run, "clip.mp4", "folder")[2]
    assert asked(run, "clip.mp4", "what else")[2] == ""


def test_with_a_question_by_name_every_argument_is_a_medium(run: Run, here: Path, picture: Path):
    for flag in ("--question", "-p"):
        question, media, told = asked(run, "clip.mp4", picture, flag, "what differs?")
        assert (question, media, told) == ("what differs?", ["clip.mp4", str(picture)], "")
    assert asked(run, "-p", "what?", "--video", picture, "clip.mp4")[1] == [str(picture), "clip.mp4"]
    assert asked(run, "--video", picture, "clip.mp4", "what?")[1] == [str(picture), "clip.mp4"]


def test_a_question_by_name_is_read_from_a_file_or_standard_input(run: Run, here: Path):
    (here / "q.txt").write_bytes("\ufeffwas geschieht\nhier? \n".encode())
    assert asked(run, "clip.mp4", "-p", "@q.txt")[0] == "was geschieht\nhier?"
    for word in ("-", "@-"):
        assert asked(run, "clip.mp4", "-p", word, stdin=" from a pipe\n")[0] == "from a pipe"
    assert asked(run, "clip.mp4", "-", stdin=" from a pipe\n")[0] == "from a pipe"
    assert asked(run, "clip.mp4", "-p", "@@q.txt")[0] == "@q.txt"
    assert asked(run, "clip.mp4", "@q.txt")[0] == "@q.txt"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["clip.mp4"], "'clip.mp4': is a file, but there is no question (the question comes last"),
        (["."], "'.': is a folder, but there is no question"),
        (["what happens"], "'what happens': is a question, but no media"),
        ([LONG], "...': is a question, but no media"),
        (["-p", "what?"], "MEDIA: is missing (for example: vidllava ask"),
        ([], "question: is missing"),
        (["clip.mp4", "-p", " "], "question: is empty"),
        (["clip.mp4", "-p", ""], "question: is empty"),
        (["-", "-p", "-"], "-: stands for two things"),
        (["-", "-p", "@-"], "-: stands for two things"),
        (["clip.mp4", "-p", "@gone.txt"], "--question '@gone.txt': cannot be read: no such file"),
        (["clip.mp4", "-p", "@clip.mp4"], "is not UTF-8 text (byte"),
        (["clip.mp4", "-p", "@."], "cannot be read: is a directory"),
        (["clip.mp4", "-p", f"@{LONG}"], "cannot be read: file name too long"),
        (["clip.mp4", "-p", "@a\0b"], "cannot be read: is not a file name"),
        (["clip.mp4", "what?", "--system", "@gone.txt"], "--system '@gone.txt': cannot be read"),
        (["clip.mp4", "what\udcff?"], "question: is not valid Unicode text at character 4"),
        (["clip.mp4", "-p", "what\ud800?"], "question: is not valid Unicode text at character 4"),
    ],
)
def test_what_is_missing_or_cannot_be_read_is_one_line(run: Run, here: Path, words: list[str], told: str):
    result = run("ask", *words)
    assert (result.code, told in result.error) == (2, True), result.err
    assert result.error.endswith(")")


def test_a_text_without_end_is_not_read_to_its_end(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidllava.cli.words._MOST_BYTES", 1 << 20)
    (here / "long.txt").write_bytes(b"x" * (1 << 20))
    from vidllava.cli.words import text_option

    assert len(text_option("--question", "@long.txt")) == 1 << 20
    with (here / "long.txt").open("ab") as file:
        file.write(b"x")
    assert "has more than 1 MB of text" in run("ask", "clip.mp4", "-p", "@long.txt").error
    assert run("ask", "clip.mp4", "-p", "@/dev/zero").code == 2


def test_the_system_line_is_read_from_a_file(run: Run, here: Path):
    def text_tokens(system: str) -> int:
        report = run("frames", "clip.mp4", "--json", "--system", system)
        return int(json.loads(report.out)["budget"]["text_tokens"])

    (here / "system.txt").write_text("Answer in one word.\n")
    assert text_tokens("@system.txt") == text_tokens("Answer in one word.") > text_tokens("")


def test_frames_counts_a_question_of_any_length(run: Run, here: Path):
    (here / "q.txt").write_text(LONG)

    def text_tokens(*question: str) -> int:
        report = run("frames", "clip.mp4", "--json", *question)
        return int(json.loads(report.out)["budget"]["text_tokens"])

    assert text_tokens("-p", "@q.txt") == text_tokens("--question", LONG.strip()) > text_tokens() + 50


def test_a_chat_begins_with_the_question_that_is_named(run: Run, here: Path):
    flags = ("--json", "--num-frames", 1, *SHORT)
    result = run("chat", "clip.mp4", "-p", f"/{LONG}", *flags, stdin="and then?\n")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["question"], row["turn"]) for row in rows] == [(f"/{LONG.strip()}", 1), ("and then?", 2)]
    refused = run("chat", "clip.mp4", "what happens")
    assert (refused.code, "(the first one may be named: --question TEXT)" in refused.error) == (2, True)
    assert run("chat", "clip.mp4", "gone.mp4").code == 3


def test_bench_ask_takes_the_question_as_ask_does(run: Run, here: Path):
    few = ("--no-transformers", "--repeats", 1, "--num-frames", 1, "--json", "-q", *SHORT)
    for words in ((LONG,), ("-p", LONG)):
        result = run("bench", "ask", "clip.mp4", *words, *few)
        assert (result.code, len(result.out.splitlines())) == (0, 3), result.err
    both = run("bench", "ask", "clip.mp4", "what?", "-p", "what?", *few)
    assert (both.code, "give one of them" in both.error) == (2, True)
