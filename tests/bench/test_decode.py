"""`bench decode`: only right frames have a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.clips import write_clip
from vidllava.bench import decode
from vidllava.bench.decode import PACKAGES, READERS, num_wrong, thinned


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 240, (5, 64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference(pictures: np.ndarray) -> np.ndarray:
    """Of frames 1, 2 and 3, each between its neighbours."""
    return np.array([[thinned(pictures[index + step]) for step in (-1, 0, 1)] for index in (1, 2, 3)])


def test_the_very_frames_are_right(pictures: np.ndarray, reference: np.ndarray) -> None:
    assert num_wrong(pictures[1:4], reference) == 0


def test_another_library_may_round_colours_otherwise(pictures: np.ndarray, reference: np.ndarray) -> None:
    assert num_wrong(pictures[1:4] + 2, reference) == 0
    assert num_wrong(pictures[1:4] + 5, reference) == 3


def test_a_frame_late_by_one_is_wrong(pictures: np.ndarray, reference: np.ndarray) -> None:
    assert num_wrong(pictures[[1, 3, 3]], reference) == 1
    assert num_wrong(pictures[2:5], reference) == 3


def test_a_frame_as_close_to_its_neighbour_is_wrong_even_within_rounding() -> None:
    """In a slow clip a late frame differs by less than rounding: then the neighbour decides."""
    slow = np.stack([np.full((64, 96, 3), 100 + number, np.uint8) for number in range(3)])
    copies = np.array([[thinned(picture) for picture in slow]])
    assert num_wrong(slow[1:2], copies) == 0
    assert num_wrong(slow[2:3], copies) == 1


def test_missing_and_turned_frames_are_wrong(pictures: np.ndarray, reference: np.ndarray) -> None:
    assert num_wrong(pictures[1:3], reference) == 1
    assert num_wrong(list(pictures[1:4].transpose(0, 2, 1, 3)), reference) == 3


def test_a_reading_of_ours_has_a_time_and_no_wrong_frame(clip: Path) -> None:
    rows = list(decode.measure([clip], num_frames=(4, 4000), readers=("vidllava", "pyav"), repeats=1))
    assert [(row["reader"], row["wrong"]) for row in rows[:2]] == [("vidllava", 0), ("pyav", 0)]
    assert {row["num_frames"] for row in rows} == {4, 24}  # never more than the clip has
    assert all(row["cpu_s"] > 0 and row["wall_s"] > 0 and row["peak_mb"] > 20 for row in rows)
    heading, first, _ = decode.table(rows)
    assert heading == ("clip", "frames", "vidllava", "pyav")
    assert first[2] == f"{rows[0]['wall_s']:.2f} / {rows[0]['cpu_s']:.2f}"


def test_who_is_wrong_absent_or_broken_has_no_time_in_the_table() -> None:
    row = {"clip": "a", "num_frames": 8}
    rows = [
        {**row, "reader": "decord", "wrong": 0, "wall_s": 2.0, "cpu_s": 4.0},
        {**row, "reader": "vidllava", "wrong": 0, "wall_s": 1.0, "cpu_s": 1.0},
        {**row, "reader": "pyav", "wrong": 3, "wall_s": 0.1, "cpu_s": 0.1},
        {**row, "reader": "opencv", "skipped": "No module named 'cv2'"},
        {**row, "reader": "torchcodec", "failed": "OSError"},
    ]
    assert decode.table(rows)[1][2:] == (
        "2.00 / 4.00 (1.00)",
        "1.00 / 1.00 (0.25)",
        "3 frames wrong",
        "not here",
        "failed",
    )


def test_every_reader_says_which_package_it_is_of() -> None:
    assert READERS.keys() == PACKAGES.keys()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "bars.mp4", num_frames=24)


def test_the_legend_names_what_may_stand_in_a_cell() -> None:
    legend = " ".join(decode.LEGEND)
    for word in ("wall seconds / CPU seconds", "in brackets", "wrong", "not here", "failed"):
        assert word in legend
