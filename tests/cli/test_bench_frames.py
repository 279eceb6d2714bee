"""`bench frames` as a command: every file in its folder, a table on stderr, resumed, interrupted, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

CELLS = ("--num-frames", "2,4", "--pool-stride", "2", "--rope-factor", "off,auto", "--max-new-tokens", "3")
FILES = {"rows.jsonl", "cells.jsonl", "rows.csv", "report.html"}


@pytest.fixture
def data(tmp_path: Path, clip: Path) -> Path:
    """Two questions about one clip."""
    shutil.copyfile(clip, tmp_path / "clip.mp4")
    rows = [
        {"id": n, "video": "clip.mp4", "question": text, "answer": "red", "kind": "colour"}
        for n, text in enumerate(("which colour?", "what is it?"))
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_sweep_leaves_rows_cells_pictures_and_a_page_and_goes_on(run: Run, data: Path) -> None:
    out = data.parent / "out"
    done = run("bench", "frames", "--data", data, *CELLS, "--timing-clips", "1", "--output-dir", out)
    assert (done.code, done.out) == (0, "")
    pngs = {path.name for path in out.iterdir() if path.suffix == ".png"}
    measured = any(row["peak_memory_bytes"] is not None for row in rows_of(out))  # not on every system
    assert pngs == {"quality.png", "tokens.png", "latency.png"} | ({"memory.png"} if measured else set())
    assert {path.name for path in out.iterdir()} - pngs == FILES
    rows = rows_of(out)
    assert len(rows) == 2 * (4 + 1)
    assert {row["status"] for row in rows} <= {"ok", "unparsed"}
    assert {row["features"] for row in rows if row["cell"] != "blind"} == {"fresh", "shared"}
    assert all(row["commit"] or row["commit"] is None for row in rows)
    assert "accuracy (95 %)" in done.err
    assert "context: where prompt and reserve lie. within = " in done.err
    assert "frames in cells that share" in done.err
    before = (out / "rows.jsonl").read_bytes()
    again = run("bench", "frames", "--data", data, *CELLS, "--timing-clips", "1", "--output-dir", out)
    assert again.code == 0
    assert "10 of them stand" in again.err
    assert (out / "rows.jsonl").read_bytes() == before


def test_an_interrupted_sweep_leaves_what_is_finished_and_a_report_of_it(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidllava.bench.frames import measure

    whole = measure.Sweep.rows

    def cut(self: measure.Sweep, standing: Any) -> Any:
        for number, row in enumerate(whole(self, standing)):
            if number == 6:
                raise KeyboardInterrupt
            yield row

    out = data.parent / "out"
    monkeypatch.setattr(measure.Sweep, "rows", cut)
    done = run("bench", "frames", "--data", data, *CELLS, "--output-dir", out)
    assert done.code == 130
    assert len(rows_of(out)) == 6
    assert {path.name for path in out.iterdir()} >= FILES
    monkeypatch.setattr(measure.Sweep, "rows", whole)
    with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    again = run("bench", "frames", "--data", data, *CELLS, "--output-dir", out)
    assert again.code == 0
    assert "6 of them stand" in again.err
    rows = rows_of(out)
    assert len({row["key"] for row in rows}) == len(rows) == 10


def test_a_clip_that_cannot_be_read_is_told_at_the_end_and_tried_again(
    run: Run, data: Path, clip: Path
) -> None:
    out = data.parent / "out"
    (data.parent / "clip.mp4").write_bytes(clip.read_bytes()[:1000])
    words = ("bench", "frames", "--data", data, *CELLS, "--output-dir", out)
    done = run(*words)
    assert done.code == 10
    assert "2 questions of 2 could not be asked in some cell" in done.err.splitlines()[-1]
    lost = [row for row in rows_of(out) if row["cell"] != "blind"]
    assert {row["status"] for row in lost} == {"decode_error"}
    shutil.copyfile(clip, data.parent / "clip.mp4")
    assert run(*words).code == 0


def test_a_picture_is_asked_as_it_is_and_a_range_beyond_a_clip_is_the_rows_fault(
    run: Run, data: Path, picture: Path
) -> None:
    shutil.copyfile(picture, data.parent / "picture.png")
    rows = [
        {"id": "clip", "video": "clip.mp4", "question": "what is it?", "answer": "red"},
        {"id": "picture", "image": "picture.png", "question": "what is it?", "answer": "red"},
        {"id": "beyond", "video": "clip.mp4", "start": 90, "question": "what is it?", "answer": "red"},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = data.parent / "out"
    done = run("bench", "frames", "--data", data, *CELLS, "--timing-clips", "0", "--output-dir", out)
    assert done.code == 10
    found = [row for row in rows_of(out) if row["cell"] != "blind"]
    by_id = {name: [row for row in found if row["id"] == name] for name in ("clip", "picture", "beyond")}
    assert {row["status"] for row in by_id["clip"] + by_id["picture"]} <= {"ok", "unparsed"}
    assert {row["frames_planned"] for row in by_id["picture"]} == {0}
    assert {row["status"] for row in by_id["beyond"]} == {"usage_error"}


@pytest.mark.no_model
def test_random_weights_measure_cost_alone(run: Run, clip: Path, tmp_path: Path) -> None:
    words = ("--model", "nano", "--weights", "random", "--num-frames", "2", "--max-new-tokens", "2")
    done = run("bench", "frames", "--media", clip, *words, "--output-dir", tmp_path / "out")
    assert done.code == 0
    assert "random weights: this is about cost alone" in done.err
    assert "accuracy" not in done.err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--num-frames", "2"], "bench frames: needs either --data or --media"),
        (["--data", "{data}", "--media", "{clip}", "--num-frames", "2"], "needs either --data or --media"),
        (["--media", "{clip}", "--task", "own", "--num-frames", "2"], "--task: is for --data"),
        (["--data", "{data}", "--num-frames", "2,x"], "--num-frames 'x': must be whole numbers"),
        (["--data", "{data}", "--fps", "0"], "--fps: must be a number above 0, got 0.0"),
        (["--data", "{data}", "--num-frames", "2", "--pool-stride", "9"], "--pool-stride 9"),
        (["--data", "{data}", "--num-frames", "2", "--pool-mode", "mean"], "--pool-mode 'mean'"),
        (["--data", "{data}", "--num-frames", "2", "--rope-factor", "on"], "--rope-factor on"),
        (["--data", "{data}", "--num-frames", "2", "--output-dir", "{data}"], "--output-dir"),
    ],
)
def test_a_wrong_word_is_one_line(run: Run, data: Path, clip: Path, words: list[str], what: str) -> None:
    folder = ["--output-dir", str(data.parent / "out")] if "--output-dir" not in words else []
    done = run("bench", "frames", *(word.format(data=data, clip=clip) for word in words), *folder)
    assert done.code == 2
    assert what in done.error


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        ([], ["2 frames", "4 frames", "8 frames", "16 frames", "32 frames"]),
        (["--fps", "1"], ["1 fps"]),
        (["--num-frames", "3"], ["3 frames"]),
    ],
    ids=["neither", "rate", "number"],
)
def test_without_frames_and_rates_2_to_32_frames_are_asked(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], cells: list[str]
) -> None:
    from vidllava.bench.frames.request import FramesRequest
    from vidllava.cli import bench_frames_run

    seen: list[FramesRequest] = []
    monkeypatch.setattr(bench_frames_run, "run", lambda request, *_, **__: seen.append(request))
    done = run("bench", "frames", "--data", data, *words, "--output-dir", data.parent / "out")
    assert done.code == 0, done.err
    assert [c.frames for c in seen[0].completed(pool_stride=2, pool_mode="bilinear").cells] == cells


def test_a_folder_with_other_rows_is_left_alone(run: Run, data: Path) -> None:
    out = data.parent / "out"
    out.mkdir()
    (out / "rows.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    done = run("bench", "frames", "--data", data, *CELLS, "--output-dir", out, "--quiet")
    assert done.code == 2
    assert "line 1 is not a row of this benchmark" in done.error
    assert (out / "rows.jsonl").read_text(encoding="utf-8") == '{"a": 1}\n'
