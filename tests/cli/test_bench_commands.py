"""`bench decode` and `bench ask` as commands: tables on stderr, rows on stdout, faults in one line."""

from __future__ import annotations

import errno
import json
import os
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
    assert f"vidllava: {row['wall_s']:.2f} s, {row['cpu_s']:.2f} s of CPU" in done.err
    assert "cells: wall seconds / CPU seconds of all threads" in done.err.splitlines()[-3]
    assert "in brackets: CPU seconds as a share of decord's" in done.err.splitlines()[-2]
    again = run(
        "bench", "decode", clip, "--num-frames", "4", "--reader", "vidllava", "--repeats", "1", "--json"
    )
    assert json.loads(again.out)["reader"] == "vidllava"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["{clip}", "--reader", "vlc"], "--reader vlc: no such reader"),
        (["{clip}", "--num-frames", "8,x"], "--num-frames 8,x: must be whole numbers"),
        (["{clip}", "--num-frames", "9" * 5000], "must be whole numbers"),
        (["{clip}", "--num-frames", "0"], "--num-frames 0: must be whole numbers"),
    ],
)
def test_a_wrong_word_of_bench_decode_is_one_line(run: Run, clip: Path, words: list[str], what: str) -> None:
    done = run("bench", "decode", *(word.format(clip=clip) for word in words))
    assert done.code == 2
    assert what in done.error


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder"])
@pytest.mark.parametrize("words", [("ask",), ("decode",), ("frames", "--output-dir", "out", "--media")])
def test_a_clip_that_cannot_be_used_is_told_before_anything_is_measured(
    run: Run,
    bad_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("bench", *words, bad_files[kind])
    assert (done.code, str(bad_files[kind]) in done.error) == (3, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("ask", "{clip}", "-o"), ("decode", "{clip}", "-o"), ("kernels", "-o")])
def test_an_output_that_cannot_be_written_is_a_lack_of_resources(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    output, opened = tmp_path / "rows.jsonl", os.open

    def read_only(path: str, *given: int, **named: int) -> int:
        if str(path).startswith(str(output)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, *given, **named)

    monkeypatch.setattr(os, "open", read_only)
    done = run("bench", *(word.format(clip=clip) for word in words), output)
    assert (done.code, f"{output}: cannot be written: Read-only" in done.error) == (6, True)


FOLDERS = [
    (("frames", "--media", "{clip}", "--output-dir"), "--output-dir"),
    (("decode", "--clips-dir"), "--clips-dir"),
]


@pytest.mark.parametrize(("words", "flag"), FOLDERS)
def test_a_folder_that_cannot_be_made_is_a_lack_of_resources(
    run: Run, clip: Path, words: tuple[str, ...], flag: str
) -> None:
    done = run("bench", *(word.format(clip=clip) for word in words), "/proc/folder")
    assert (done.code, f"{flag} /proc/folder: cannot be made" in done.error) == (6, True)


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
