"""What ``vidllava eval`` refuses, it refuses before anything is asked, written or deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

SHORT = ("--max-new-tokens", 4, "--num-frames", 3)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, clip: Path) -> Write:
    """Writes the rows of a data file beside a clip and a file that is none."""
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "bad.mp4").write_text("no video at all\n" * 40)

    def rows(*given: dict[str, Any]) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        return path

    return rows


def test_a_refused_run_changes_nothing(run: Run, write: Write, tmp_path: Path) -> None:
    """Also not the rows without an answer, which a run that goes on asks again."""
    output = tmp_path / "out.jsonl"
    data = write(
        {"id": "a", "video": "clip.mp4", "question": "what?", "answer": "x"},
        {"id": "b", "video": "bad.mp4", "question": "what?", "answer": "x"},
    )
    assert run("eval", "--data", data, "-o", output, *SHORT).code == 10
    before = output.read_bytes(), (tmp_path / "out.jsonl.summary.json").read_bytes()
    other = write({"id": "c", "video": "clip.mp4", "question": "who?", "answer": "x"})
    refused = run("eval", "--data", other, "-o", output, *SHORT)
    assert refused.code == 2
    assert (output.read_bytes(), (tmp_path / "out.jsonl.summary.json").read_bytes()) == before


@pytest.mark.parametrize("output", ["/dev/full", "-"])
def test_an_output_that_is_no_file_is_refused_at_once(run: Run, write: Write, output: str) -> None:
    data = write({"id": "a", "video": "clip.mp4", "question": "what?", "answer": "x"})
    refused = run("eval", "--data", data, "-o", output, *SHORT)
    assert refused.code == 2
    assert "is not a regular file" in refused.err
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--num-frames", "0"], "--num-frames: must be a whole number of at least 1"),
        (["--num-frames", "4", "--fps", "2"], "--fps: excludes --num-frames 4"),
        (["--pool-stride", "0"], "--pool-stride 0: must be 1"),
        (["--start", "9", "--end", "3"], "--end: 3 s must be after --start 9 s"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "batch"])
def test_a_flag_that_fits_no_clip_is_told_before_anything_is_asked(
    run: Run, write: Write, tmp_path: Path, flags: list[str], what: str, command: str
) -> None:
    data = write({"id": "a", "video": "clip.mp4", "question": "what?", "answer": "x"})
    words = ["eval", "--data", data] if command == "eval" else ["ask", "--batch", data]
    refused = run(*words, "-o", tmp_path / "out.jsonl", *flags, "--quiet")
    assert refused.code == 2
    assert what in refused.err
    assert not (tmp_path / "out.jsonl").exists()
