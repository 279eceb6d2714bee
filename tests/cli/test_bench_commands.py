"""`bench decode` and `bench ask` as commands: tables on stderr, rows on stdout, faults in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_bench_decode_writes_rows_and_shows_a_table(run: Run, clip: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    done = run(
        "bench", "decode", clip, "--num-frames", "4", "--reader", "vidllava", "--repeats", "1", "-o", rows
    )
    assert done.code == 0
    assert done.out == ""
    (row,) = [json.loads(line) for line in rows.read_text().splitlines()]
    assert row["wrong"] == 0
    assert f"{row['wall_s']:.2f} / {row['cpu_s']:.2f}" in done.err
    again = run(
        "bench", "decode", clip, "--num-frames", "4", "--reader", "vidllava", "--repeats", "1", "--json"
    )
    assert json.loads(again.out)["reader"] == "vidllava"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["{clip}", "--reader", "vlc"], "--reader vlc: no such reader"),
        (["{clip}", "--num-frames", "8,x"], "--num-frames 8,x: must be whole numbers"),
        (["{clip}", "--num-frames", "0"], "--num-frames 0: must be whole numbers"),
    ],
)
def test_a_wrong_word_of_bench_decode_is_one_line(run: Run, clip: Path, words: list[str], what: str) -> None:
    done = run("bench", "decode", *(word.format(clip=clip) for word in words))
    assert done.code == 2
    assert what in done.error


@pytest.mark.no_model
def test_bench_ask_shows_both_paths_and_that_they_agree(run: Run, clip: Path) -> None:
    done = run("bench", "ask", clip, "--model", "nano", "--repeats", "1", "--max-new-tokens", "4", "--json")
    assert done.code == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["path"] for row in rows] == ["vidllava"] * 3 + ["transformers"] * 2
    assert {row["model"] for row in rows} == {"nano"}
    assert "same answer" in done.err


@pytest.mark.no_model
def test_bench_ask_refuses_what_transformers_cannot_do(run: Run, clip: Path) -> None:
    done = run("bench", "ask", clip, "--model", "nano", "--pool-stride", "4", "--quiet")
    assert done.code == 2
    assert "--no-transformers" in done.error
