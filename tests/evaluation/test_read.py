"""Which data set is it, and is every row of it sound? What cannot be used is named at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.published import EGO, EGO_OPTIONS, LVB, NEXTQA, VIDEOMME, clips, write_csv, write_json
from vidllava.errors import DatasetError, UsageError
from vidllava.evaluation.read import read_set

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "nextqa-mc": (
        {**NEXTQA, "question": "q", "answer": 9, **{f"a{n}": "x" for n in range(5)}},
        "`answer` is 9",
    ),
    "videomme": ({**VIDEOMME, "answer": "Z"}, "`answer` must be the letter"),
    "mvbench": ({"video": "a.mp4", "question": "q", "candidates": ["a"], "answer": "b"}, "not one of"),
    "egoschema": ({**EGO, **EGO_OPTIONS, "option 4": ""}, "`option 4`"),
    "perceptiontest": ({"video_name": "a", "options": "x", "answer_id": 1, "question": "q"}, "`options`"),
    "activitynetqa": ({"video_name": "a", "question_id": "1", "question": " "}, "`question`"),
    "mlvu": (
        {"video": "a", "question_type": "x", "question": "q", "candidates": ["a"], "answer": "b"},
        "neither a cand",
    ),
    "longvideobench": ({**LVB, "candidates": ["a"], "correct_choice": 4}, "`correct_choice` is 4"),
    "interleave-bench": (
        {"conversations": [], "metadata": {"question_type": "x"}, "sample_id": 1},
        "`conversations`",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_bad_row_is_named(tmp_path: Path, name: str):
    record, said = BROKEN[name]
    data = write_json(tmp_path / "data.json", [record])
    with pytest.raises(DatasetError) as fault:
        read_set(data)
    assert "1 of 1 rows cannot be used: row 1: " in str(fault.value)
    assert said in str(fault.value)
    assert f"read as {name}" in str(fault.value)


def test_a_format_that_nobody_knows_and_a_task_that_does_not_exist(tmp_path: Path):
    data = write_json(tmp_path / "data.json", [{"text": "hello"}])
    with pytest.raises(DatasetError, match="in no format that is known"):
        read_set(data)
    with pytest.raises(UsageError, match="mvbench"):
        read_set(data, task="mvbnech")


def test_parquet_without_its_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"pyarrow is not installed \(pip install pyarrow\)"):
        read_set(tmp_path / "test.parquet")


def test_a_name_that_may_be_two_files_is_refused(tmp_path: Path):
    clips(tmp_path, "a/4010069381.mp4", "b/4010069381.mp4")
    options = {f"a{number}": f"option {number}" for number in range(5)}
    data = write_csv(tmp_path / "test.csv", [{**NEXTQA, "question": "q", "answer": 1, **options}])
    with pytest.raises(DatasetError, match=r"may be a/4010069381.mp4 and b/4010069381.mp4"):
        read_set(data)


@pytest.mark.parametrize("link", [False, True], ids=["dots", "link"])
def test_media_outside_the_root_are_refused(tmp_path: Path, link: bool):
    clips(tmp_path, "secret.mp4", "data/a.mp4")
    name = "../secret.mp4"
    if link:
        name = "b.mp4"
        (tmp_path / "data/b.mp4").symlink_to(tmp_path / "secret.mp4")
    row = {"video": name, "question": "q", "answer": "x"}
    data = write_json(tmp_path / "data/own.json", [row])
    with pytest.raises(DatasetError, match="lies outside the media root"):
        read_set(data)


def test_wrong_media_root_is_told_before_anything_is_asked(tmp_path: Path):
    data = write_json(tmp_path / "own.json", [{"video": "a.mp4", "question": "q", "answer": "x"}])
    with pytest.raises(DatasetError, match=r"none of its media is there; the first is 'a.mp4'"):
        read_set(data)


def test_limit_keeps_the_first(tmp_path: Path):
    clips(tmp_path, "a.mp4")
    rows = [{"id": n, "video": "a.mp4", "question": "q", "answer": "x"} for n in range(5)]
    assert [item.id for item in read_set(write_json(tmp_path / "own.json", rows), limit=2).items] == [
        "0",
        "1",
    ]
