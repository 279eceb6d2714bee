"""``vidllava ask --batch``: every row as a single ``ask`` would answer it, on disk at once, and resumed."""

from __future__ import annotations

import fcntl
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, start
from tests.clips import write_clip

SHORT = ("--max-new-tokens", 4)
Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, clip: Path, picture: Path) -> Path:
    """A folder with a clip, a picture and a file that is neither."""
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "picture.png").write_bytes(picture.read_bytes())
    (tmp_path / "bad.mp4").write_text("no video at all\n" * 40)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes the rows of ``questions.jsonl``; a text is written as it is."""

    def rows(*given: Any) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in given]
        (folder / "questions.jsonl").write_text("".join(line + "\n" for line in lines))
        return folder / "questions.jsonl"

    return rows


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


ROWS = (
    {"id": "a", "media": ["clip.mp4"], "question": "what happens", "num_frames": 4},
    {"id": 7, "video": "clip.mp4", "question": "what moves?", "fps": 2, "start": "0:00.5", "end": 1.5},
    {"image": "picture.png", "question": "what is this?"},
    {"id": "d", "media": ["clip.mp4", "picture.png"], "question": "what differs?", "max_frames": 3},
)


def test_rows_are_answered_as_single_questions_are(run: Run, folder: Path, write: Write, monkeypatch):
    result = run("ask", "--batch", write(*ROWS), "-o", folder / "answers.jsonl", *SHORT)
    assert (result.code, result.out) == (0, "")
    found = answers(folder)
    assert [row["id"] for row in found] == ["a", 7, 3, "d"]
    assert {row["status"] for row in found} == {"ok"}
    assert [item["media"] for item in found[3]["media"]] == ["clip.mp4", "picture.png"]
    monkeypatch.chdir(folder)
    flags = (
        ("clip.mp4", "what happens", "--num-frames", 4),
        ("clip.mp4", "what moves?", "--fps", 2, "--start", "0:00.5", "--end", "1.5"),
        ("picture.png", "what is this?"),
        ("clip.mp4", "picture.png", "what differs?", "--max-frames", 3),
    )
    for row, words in zip(found, flags, strict=True):
        single = json.loads(run("ask", *words, *SHORT, "--json", "--no-cache").out)
        for key in ("answer", "media", "usage", "finish_reason", "budget", "question"):
            assert row[key] == single[key], key


def test_flags_are_for_the_rows_that_they_fit(run: Run, folder: Path, write: Write):
    data = write(
        ROWS[2], {**ROWS[2], "id": "own", "num_frames": 2}, {"video": "clip.mp4", "question": "what?"}
    )
    flags = ("--num-frames", 2, "--start", 0, "--frame-rate", 3)
    run("ask", "--batch", data, "-o", folder / "answers.jsonl", *flags, *SHORT)
    assert [row["status"] for row in answers(folder)] == ["ok", "usage_error", "ok"]
    assert len(answers(folder)[2]["media"][0]["frames"]) == 2


def test_half_a_surrogate_is_the_fault_of_its_row(run: Run, folder: Path, write: Write):
    """JSON can spell what UTF-8 cannot hold: in the question, the id, a file's name, a key."""
    questions = write(
        {"id": "words", "media": "clip.mp4", "question": "what\ud800?"},
        {"id": "name", "media": "clip\ud800.mp4", "question": "what?"},
        {"id": "i\udcff", "media": "clip.mp4", "question": "what?", "key\udfff": 1, "fps": "30000/15015"},
        {"id": "long", "media": "x" * 300, "question": "what?"},
    )
    flags = ("ask", "--batch", questions, "-o", folder / "answers.jsonl", *SHORT)
    assert run(*flags).code == 10
    found = {row["id"]: row for row in answers(folder)}
    assert {name: row["status"] for name, row in found.items()} == {
        **{"words": "usage_error", "name": "decode_error", "i\udcff": "ok", "long": "decode_error"}
    }
    assert "is not valid Unicode text at character 4" in found["words"]["error"]
    assert "is not a file name" in found["name"]["error"]
    assert len(found["i\udcff"]["media"][0]["frames"]) == 4  # 1.998 a second, of 2 s
    again = run(*flags)
    assert (again.code, "1 of 4 questions are answered already" in again.err) == (10, True)


def test_a_number_of_thousands_of_digits_is_a_bad_row(run: Run, folder: Path, write: Write):
    long = f'{{"media": "clip.mp4", "question": "what?", "start": {"9" * 5000}}}'
    result = run("ask", "--batch", write(long, {**ROWS[0], "end": 10**400}), "-o", folder / "answers.jsonl")
    assert result.code == 4
    assert "line 1: invalid JSON: a number of too many digits" in result.error
    assert "line 2: `start` or `end` is more seconds than can be counted" in result.error


def test_a_rows_own_rate_replaces_the_flags_count(run: Run, folder: Path, write: Write):
    questions = write({"media": "clip.mp4", "question": "what?", "fps": 2})
    run("ask", "--batch", questions, "-o", folder / "answers.jsonl", "--num-frames", 9, *SHORT)
    assert len(answers(folder)[0]["media"][0]["frames"]) == 4


def test_what_fails_is_said_in_its_row_and_tried_again(run: Run, folder: Path, write: Write):
    questions = write(
        {"id": "bad", "media": "bad.mp4", "question": "what?"},
        {"id": "gone", "media": "gone.mp4", "question": "what?"},
        {"id": "late", "media": "clip.mp4", "question": "what?", "start": 99},
        {"id": "long", "media": "clip.mp4", "question": "what? " * 9000},
        {"id": "good", "media": "clip.mp4", "question": "what?"},
    )
    flags = ("ask", "--batch", questions, "-o", folder / "answers.jsonl", *SHORT)
    result = run(*flags)
    assert result.code == 10
    assert "answers.jsonl: 4 of 5 questions have no answer" in result.err.splitlines()[-1]
    found = {row["id"]: row for row in answers(folder)}
    assert [row["status"] for row in found.values()] == [
        *("decode_error", "decode_error", "usage_error", "over_budget", "ok")
    ]
    assert found["bad"]["answer"] is None
    assert "bad.mp4: is a plain text" in found["bad"]["error"]
    assert found["good"]["answer"] is not None
    (folder / "bad.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    before = found["good"]
    result = run(*flags)
    assert (result.code, "1 of 5 questions are answered already" in result.err) == (10, True)
    found = {row["id"]: row for row in answers(folder)}
    assert len(answers(folder)) == 5
    assert found["bad"]["status"] == "ok"
    assert found["good"] == before


def test_a_decoder_that_takes_too_long_is_the_rows_fault(run: Run, folder: Path, write: Write):
    write_clip(folder / "long.mp4", num_frames=900)
    questions = write(
        {"media": "long.mp4", "question": "what?"}, {"media": "picture.png", "question": "what?"}
    )
    flags = ("--decode-timeout", "0.0001")
    assert run("ask", "--batch", questions, "-o", folder / "answers.jsonl", *flags, *SHORT).code == 10
    assert answers(folder)[0]["status"] == "decode_error"
    assert "limit of 0.0001 s" in answers(folder)[0]["error"]


def test_a_finished_batch_needs_no_model(run: Run, folder: Path, write: Write, monkeypatch):
    flags = ("ask", "--batch", write(*ROWS), "-o", folder / "answers.jsonl", *SHORT)
    run(*flags)
    before = (folder / "answers.jsonl").read_bytes()
    monkeypatch.setattr("vidllava.cli.asking.load_model", lambda **_: pytest.fail("loaded"))
    assert run(*flags).code == 0
    assert (folder / "answers.jsonl").read_bytes() == before


def test_a_changed_question_or_clip_is_asked_again_and_the_old_answer_goes(
    run: Run, folder: Path, write: Write
):
    flags = ("ask", "--batch", write(*ROWS), "-o", folder / "answers.jsonl", *SHORT)
    run(*flags)
    write({**ROWS[0], "question": "what else?"}, *ROWS[1:])
    assert "3 of 4 questions are answered already" in run(*flags).err
    assert sorted(row["question"] for row in answers(folder)) == [
        *("what differs?", "what else?", "what is this?", "what moves?")
    ]
    write_clip(folder / "clip.mp4", num_frames=30)
    assert "1 of 4 questions are answered already" in run(*flags).err
    assert len(answers(folder)) == 4


def test_a_torn_last_line_is_dropped_and_said(run: Run, folder: Path, write: Write):
    flags = ("ask", "--batch", write(*ROWS), "-o", folder / "answers.jsonl", *SHORT)
    run(*flags)
    whole = (folder / "answers.jsonl").read_bytes()
    (folder / "answers.jsonl").write_bytes(whole[:-20])
    result = run(*flags)
    assert (result.code, "the last line was cut off" in result.err) == (0, True)
    assert [row["id"] for row in answers(folder)] == ["a", 7, 3, "d"]


def test_other_settings_or_files_are_refused_unless_overwritten(run: Run, folder: Path, write: Write):
    flags = ("ask", "--batch", write(ROWS[0]), "-o", folder / "answers.jsonl")
    run(*flags, *SHORT)
    result = run(*flags, "--max-new-tokens", 5)
    assert result.code == 2
    assert "was made with other settings or weights (another name, or --overwrite)" in result.error
    assert run(*flags, "--max-new-tokens", 5, "--overwrite").code == 0
    assert len(answers(folder)) == 1
    (folder / "answers.jsonl").write_text("my notes\n")
    assert "line 1 is not an answer of a batch" in run(*flags, *SHORT).error


def test_bad_rows_are_named_before_the_model_is_looked_for(run: Run, folder: Path, write: Write):
    questions = write(
        {"media": "clip.mp4", "question": "fine"},
        "{not json",
        {"media": "clip.mp4"},
        {"question": "of what?"},
        {"media": ["clip.mp4", 3], "question": "what?"},
        {"media": "../elsewhere.mp4", "question": "what?"},
        {"media": "http://127.0.0.1/x", "question": "what?"},
        {"media": "clip.mp4", "question": "what?", "num_frames": 0},
        {"media": "clip.mp4", "question": "what?", "fps": 1, "num_frames": 3},
        {"media": "clip.mp4", "question": "what?", "start": "soon"},
        {"id": "x", "media": "clip.mp4", "question": "what?"},
        {"id": "x", "media": "clip.mp4", "question": "what?"},
        {"id": 1.5, "media": "clip.mp4", "question": "what?"},
        "[1]",
    )
    result = run("ask", "--batch", questions, "-o", folder / "answers.jsonl", "--model", "./nowhere")
    assert result.code == 4
    assert "12 of 14 rows cannot be used" in result.error
    for line in (2, 3, 4, 5, 6):
        assert f"line {line}: " in result.error
    assert "line 7: " not in result.error
    assert "; and 7 more (" in result.error
    assert not (folder / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 1.5, "media": "clip.mp4", "question": "?"}, "`id` must be a text or a whole number"),
        ({"media": "http://127.0.0.1/x", "question": "?"}, "only local files are read in a batch"),
        ({"media": "clip.mp4", "question": "?", "num_frames": 0}, "--num-frames"),
        ({"media": "clip.mp4", "question": "?", "fps": 1, "num_frames": 3}, "--fps"),
        ({"media": "clip.mp4", "question": "?", "start": "soon"}, "soon"),
        ({"media": "/dev/stdin", "question": "?"}, "'/dev/stdin' is an open file of this process"),
        ("[1]", "must be an object"),
    ],
)
def test_a_bad_row_is_told_why(run: Run, folder: Path, write: Write, row: Any, words: str):
    result = run("ask", "--batch", write(row, ROWS[0]), "-o", folder / "answers.jsonl")
    assert (result.code, "1 of 2 rows cannot be used: line 1: " in result.error) == (4, True)
    assert words in result.error


def test_paths_outside_the_media_root_are_told_the_way_out(run: Run, folder: Path, write: Write):
    rows = [{"media": f"/elsewhere/{'deep/' * 30}{n}.mp4", "question": "what?"} for n in range(40)]
    result = run("ask", "--batch", write(*rows), "-o", folder / "answers.jsonl")
    assert result.code == 4
    assert f"(the media root is {folder}; --media-root / allows every path)" in result.error
    assert "/39.mp4' " not in result.error
    assert "/4.mp4' lies outside the media root; and 35 more" in result.error
    assert len(result.error) < 1000
    gone = ("--batch", write(ROWS[0], *rows[:1]), "-o", folder / "answers.jsonl", "--media-root", "/", *SHORT)
    assert run("ask", *gone).code == 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch", "{q}", "-o", "{a}", "--allow-url"], "URLs are not read in a batch"),
        (["--batch", "{q}"], "--batch: needs a file for the answers"),
        (["-o", "{a}", "clip.mp4", "what?"], "--output: is for --batch"),
        (["--batch", "{q}", "-o", "{q}"], "is the file of the questions"),
        (["--batch", "{q}", "-o", "{a}", "what?"], "QUESTION: cannot be given with --batch"),
        (["--batch", "{q}", "-o", "{a}", "--json"], "--json: cannot be given with --batch"),
        (["--workers", "2", "{c}", "what?"], "--workers: is for --batch"),
        (["--media-root", ".", "{c}", "what?"], "--media-root: is for --batch"),
        (["--batch", "{q}", "-o", "{a}", "--workers", "0"], "--workers"),
    ],
)
def test_flags_that_do_not_go_together(run: Run, folder: Path, write: Write, flags: list[str], words: str):
    names = {"q": write(ROWS[0]), "a": folder / "answers.jsonl", "c": folder / "clip.mp4"}
    result = run("ask", *(flag.format(**names) for flag in flags))
    assert result.code == 2
    assert words in result.error


def test_a_second_run_into_the_same_file_is_refused(run: Run, folder: Path, write: Write):
    flags = ("ask", "--batch", write(ROWS[0]), "-o", folder / "answers.jsonl", *SHORT)
    with open(folder / "answers.jsonl", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "is being written by another run" in run(*flags).error


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_run_that_is_cut_off_goes_on(
    run: Run, folder: Path, write: Write, number: signal.Signals, code: int
):
    rows = [{"id": index, "media": "clip.mp4", "question": f"what {index}?"} for index in range(60)]
    flags = ("--batch", write(*rows), "-o", folder / "answers.jsonl", *SHORT)
    process = start("ask", *flags)
    end = time.monotonic() + 60
    while not ((folder / "answers.jsonl").exists() and (folder / "answers.jsonl").stat().st_size > 4000):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err
    early = answers(folder)
    assert 0 < len(early) < 60
    assert run("ask", *flags).code == 0
    found = answers(folder)
    assert found[: len(early)] == early
    assert [row["id"] for row in found] == list(range(60))
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_answers_stand_in_the_order_of_the_questions(run: Run, folder: Path, write: Write):
    write_clip(folder / "slow.mp4", num_frames=300, width=320, height=240)
    rows = [{"media": "slow.mp4" if n % 3 == 0 else "clip.mp4", "question": f"what {n}?"} for n in range(9)]
    flags = ("--workers", 3, "--no-cache", *SHORT)
    result = run("ask", "--batch", write(*rows), "-o", folder / "answers.jsonl", *flags)
    assert result.code == 0
    assert [row["id"] for row in answers(folder)] == list(range(1, 10))
    assert result.err.splitlines()[-1] == "note: 9/9 done, ETA 0:00:00"


def test_extra_keys_are_named_not_hidden(run: Run, folder: Path, write: Write):
    questions = write({**ROWS[0], "answer": "a star", "kind": "motion"})
    result = run("ask", "--batch", questions, "-o", folder / "answers.jsonl", *SHORT)
    assert "keys without a meaning here: answer, kind" in result.err
