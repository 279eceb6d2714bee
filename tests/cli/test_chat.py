"""``vidllava chat``: lines in, answers out, and commands that never end the session."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start

SHORT = ("--max-new-tokens", 4)


def test_from_a_pipe_each_question_gives_one_line(run: Run, clip: Path):
    result = run("chat", clip, "-q", *SHORT, stdin="what happens\n\n  and then?  \nwhy?")
    assert result.code == 0
    assert len(result.out.splitlines()) == 3


def test_the_first_answer_is_that_of_ask(run: Run, clip: Path):
    asked = run("ask", clip, "what happens", *SHORT).out
    assert run("chat", clip, *SHORT, stdin="what happens\n").out.splitlines() == [
        " ".join(asked.splitlines())
    ]


def test_json_gives_one_object_a_line(run: Run, clip: Path):
    result = run("chat", clip, "--json", *SHORT, stdin="what happens\nand then?\n")
    first, second = (json.loads(line) for line in result.out.splitlines())
    keys = {"answer", "model", "question", "media", "usage", "finish_reason", "budget", "seconds", "notes"}
    assert set(first) == set(second) == keys | {"turn"}
    assert (first["turn"], second["turn"], second["question"]) == (1, 2, "and then?")
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    assert first["seconds"]["decode"] > 0.0 == second["seconds"]["decode"]


def test_reset_forgets_the_conversation_and_keeps_the_clip(run: Run, clip: Path):
    result = run("chat", clip, "--json", *SHORT, stdin="what happens\nand then?\n/reset\nwhat happens\n")
    first, _, reset, third = (json.loads(line) for line in result.out.splitlines())
    assert reset == {"command": "/reset", "error": None}
    assert (third["answer"], third["usage"], third["turn"]) == (first["answer"], first["usage"], 1)
    assert third["seconds"]["decode"] == 0.0


def test_frames_rate_and_range_change_what_is_looked_at(run: Run, clip: Path):
    lines = "a?\n/frames 4\nb?\n/fps 3\nc?\n/range 0.5 1\nd?\n/range\ne?\n/frames\n"
    result = run("chat", clip, "--json", *SHORT, stdin=lines)
    lines_out = [json.loads(line) for line in result.out.splitlines()]
    assert len(lines_out) == len(lines.splitlines())  # one line in, one line out
    rows = [row for row in lines_out if "command" not in row]
    frames = [[frame["index"] for frame in row["media"][0]["frames"]] for row in rows]
    assert [len(taken) for taken in frames] == [8, 4, 6, 2, 6]
    assert frames[1] == [0, 19, 39, 59]
    assert all(15 <= index < 30 for index in frames[3])
    assert rows[-1]["turn"] == 5
    assert f"{clip}: frames 0 at 0.00 s" in result.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nope", "/nope: no such command"),
        ("/frames many", "/frames many: takes one number"),
        ("/frames 1 2", "takes one number"),
        ("/frames 0", "--num-frames"),
        ("/range 9 10", "after the last frame"),
        ("/range 1", "a start and an end"),
        ("/save", "needs a file name"),
        ("/save /nowhere/at/all.json", "cannot be written"),
    ],
)
def test_a_wrong_command_is_one_line_and_changes_nothing(run: Run, clip: Path, line: str, words: str):
    result = run("chat", clip, "--json", *SHORT, "-q", stdin=f"what happens\n{line}\n/reset\nwhat happens\n")
    assert result.code == 0
    (told,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert words in told
    first, failed, _, second = (json.loads(line) for line in result.out.splitlines())
    assert (failed["command"], words in failed["error"]) == (line, True)
    assert (first["answer"], first["media"]) == (second["answer"], second["media"])


def test_help_lists_every_command(run: Run, clip: Path):
    result = run("chat", clip, "-q", stdin="/help\n")
    for command in ("/frames", "/fps", "/range", "/reset", "/save", "/exit"):
        assert command in result.err
    assert result.out == ""


def test_exit_ends_before_the_lines_that_follow(run: Run, clip: Path):
    assert len(run("chat", clip, *SHORT, stdin="one?\n/exit\ntwo?\n").out.splitlines()) == 1


def test_save_writes_the_conversation_and_never_over_a_file(run: Run, clip: Path, tmp_path: Path):
    path = tmp_path / "my talk.json"
    result = run("chat", clip, *SHORT, stdin=f"what happens\nand then?\n/save {path}\n/save {path}\n")
    assert "exists already" in result.err
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert [turn["question"] for turn in saved["turns"]] == ["what happens", "and then?"]
    for turn in saved["turns"]:
        assert len(turn["media"][0]["frames"]) == 8
        assert turn["usage"]["completion_tokens"] <= 4


def test_a_raised_factor_is_said_once(run: Run, clip: Path):
    result = run("chat", clip, "--context-limit", 200, *SHORT, stdin="a?\nb?\nc?\nd?\n")
    told = [line for line in result.err.splitlines() if "RoPE factor 2" in line]
    assert len(told) == 1
    assert "read again" in told[0]


def test_a_question_that_does_not_fit_is_one_line_and_reset_helps(run: Run, clip: Path):
    flags = ("--context-limit", 200, "--rope-factor", "off", "--json", *SHORT)
    result = run("chat", clip, *flags, stdin="a?\n" + "b? " * 60 + "\n/reset\na?\n")
    assert result.code == 0
    (told,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "/reset forgets the conversation" in told
    first, refused, _, third = (json.loads(line) for line in result.out.splitlines())
    assert refused["answer"] is None
    assert "exceed" in refused["error"]
    assert first["answer"] == third["answer"]


def test_media_without_room_for_a_question_are_refused_before_torch(clip: Path):
    process = start("chat", clip, "--context-limit", 60, "--rope-factor", "off", "--debug")
    out, err = process.communicate("what happens\n", timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "would fit" in err
    assert "torch" not in err


def test_standard_input_cannot_be_both_media_and_questions(run: Run, clip: Path):
    result = run("chat", clip, "-", stdin="what happens\n")
    assert result.code == 2
    assert "where the questions come from" in result.error


def test_wrong_media_end_the_command_with_their_code(run: Run, bad_files: dict[str, Path]):
    result = run("chat", bad_files["text"], stdin="what happens\n")
    assert result.code == 3
    assert "plain text" in result.error


class Screen:
    """What a terminal shows."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = ""

    def until(self, words: str) -> str:
        """What comes next, up to ``words``; what follows them is kept for the next call."""
        deadline = time.monotonic() + 60
        while words not in self._rest:
            wait = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._descriptor], [], [], wait)
            assert ready, f"no {words!r} in {self._rest!r}"
            self._rest += os.read(self._descriptor, 4096).decode(errors="replace")
        shown, _, self._rest = self._rest.partition(words)
        return shown


def test_at_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(clip: Path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    # A model that never ends an answer by itself.
    program = f"""
        import sys
        from vidllava.backbone import generate
        generate.stop_ids = lambda backbone: frozenset()
        from vidllava.cli import main
        sys.argv[1:] = ["chat", {str(clip)!r}, "--max-new-tokens", "100000", "--context-limit", "1000000"]
        main.main()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = Screen(ours)
    try:
        assert "8 frames" in screen.until("> ")
        os.write(ours, b"what happens\n")
        screen.until("what happens\r\n")
        assert os.read(ours, 1)  # the first word
        process.send_signal(signal.SIGINT)
        screen.until("note: stopped")
        screen.until("\n> ")
        os.write(ours, b"/frames\n")
        assert "frames 0 at 0.00 s" in screen.until("1.97 s\r\n> ")
        os.write(ours, b"\x04")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
