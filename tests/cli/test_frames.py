"""``vidllava frames``: the plan and the budget, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.clips import read_number, write_clip
from tests.media.test_damage import with_broken_packets

KEYS = {
    "media",
    "backend",
    "width",
    "height",
    "rotation",
    "duration_seconds",
    "num_frames_in_file",
    "frames",
    "budget",
}
BUDGET_KEYS = {
    "visual_tokens",
    "newline_tokens",
    "text_tokens",
    "reserve_tokens",
    "total_tokens",
    "context_limit",
    "rope_factor",
    "least_factor",
    "fits",
    "frames_at_factor",
}


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_json_has_the_documented_keys(run: Run, clip: Path):
    result = run("frames", clip, "--num-frames", 4, "--json")
    report = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert set(report) >= KEYS
    assert set(report["budget"]) == BUDGET_KEYS
    assert set(report["budget"]["frames_at_factor"]) == {"1", "2", "3", "4"}
    assert report["media"] == str(clip)
    assert (report["backend"], report["width"], report["height"], report["rotation"]) == ("pyav", 128, 96, 0)
    assert report["duration_seconds"] == pytest.approx(2.0)
    assert report["num_frames_in_file"] == 60


def test_json_lists_the_frames_by_llavas_rule(run: Run, clip: Path):
    report = json.loads(run("frames", clip, "--num-frames", 4, "--json").out)
    assert [frame["index"] for frame in report["frames"]] == [0, 19, 39, 59]
    assert [frame["timestamp_seconds"] for frame in report["frames"]] == pytest.approx(
        [0, 19 / 30, 1.3, 59 / 30]
    )


def test_budget_adds_up(run: Run, clip: Path):
    budget = json.loads(run("frames", clip, "--num-frames", 4, "--json").out)["budget"]
    parts = ("visual_tokens", "newline_tokens", "text_tokens", "reserve_tokens")
    assert budget["total_tokens"] == sum(budget[part] for part in parts)
    assert (budget["visual_tokens"], budget["newline_tokens"]) == (
        4 * 9,
        1,
    )  # 5 x 5 cells -> 3 x 3, one newline
    assert budget["fits"] is (budget["total_tokens"] <= budget["context_limit"] * budget["rope_factor"])


def test_pool_stride_and_context_limit_change_the_budget(run: Run, clip: Path):
    report = run(
        "frames", clip, "--num-frames", 4, "--mm-spatial-pool-stride", 1, "--context-limit", 100, "--json"
    )
    budget = json.loads(report.out)["budget"]
    assert (budget["visual_tokens"], budget["context_limit"]) == (4 * 25, 100)
    assert budget["rope_factor"] == -(-budget["total_tokens"] // 100)
    assert "RoPE factor" in report.err


def test_a_plan_that_does_not_fit_is_shown_with_what_would(run: Run, clip: Path):
    result = run("frames", clip, "--context-limit", 150, "--rope-factor", "off")
    assert result.code == 0
    assert "does not fit" in result.out
    assert "--max-frames" in result.out


def test_underscores_in_options_are_dashes(run: Run, clip: Path):
    report = json.loads(run("frames", clip, "--num_frames", 3, "--newline_mode", "no_token", "--json").out)
    assert len(report["frames"]) == 3
    assert report["budget"]["newline_tokens"] == 0


def test_range_takes_minutes_and_both_spellings(run: Run, clip: Path):
    report = json.loads(run("frames", clip, "--from", "0:01", "--to", "1.5", "--fps", 10, "--json").out)
    assert [round(frame["timestamp_seconds"], 1) for frame in report["frames"]] == [1.0, 1.1, 1.2, 1.3, 1.4]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A screen recording: new pictures at 0, 1, 2 and 62 s."""
    return write_clip(tmp_path / "held.mkv", num_frames=4, times_ms=(0, 1000, 2000, 62000))


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        (("--start", 30, "--end", 40), [2]),
        (("--start", 30, "--end", 63, "--fps", 1), [2, 3]),
        (("--end", 40, "--fps", 0.3), [0, 2]),
        (("--num-frames", 3), [0, 2, 3]),
        (("--num-frames", 3, "--sampling", "index"), [0, 1, 3]),
        (("--fps", 1, "--max-frames", 3), [0, 2, 3]),
    ],
)
def test_a_held_frame_is_on_screen_until_the_next(run: Run, held: Path, asked, indices):
    report = json.loads(run("frames", held, *asked, "--json").out)
    assert [frame["index"] for frame in report["frames"]] == indices


def test_the_last_frame_is_on_screen_until_the_clip_ends(run: Run, held: Path):
    report = json.loads(run("frames", held, "--start", 62.01, "--json").out)
    assert [frame["index"] for frame in report["frames"]] == [3]
    result = run("frames", held, "--start", 62.5)
    assert result.code == 2
    assert "is after the last frame at 62.000 s, shown until 62.03" in result.err


def test_which_rule_was_followed_is_said(run: Run, held: Path):
    for asked, rule in ((("--num-frames", 3), "time"), (("--fps", 1), "fps"), (("--num-frames", 9), "all")):
        assert json.loads(run("frames", held, *asked, "--json").out)["sampling"] == rule
    index = ("--num-frames", 3, "--sampling", "index")
    assert json.loads(run("frames", held, *index, "--json").out)["sampling"] == "index"
    assert (
        "3 of the 4 frames of the whole clip, evenly by index, both ends" in run("frames", held, *index).out
    )


def test_table_for_people(run: Run, clip: Path):
    result = run("frames", clip, "--num-frames", 2)
    lines = [line.split() for line in result.out.splitlines()]
    assert ["0", "0.000"] in lines
    assert ["59", "1.967"] in lines
    assert (result.code, result.err) == (0, "")


def test_save_writes_the_frames_at_display_size(run: Run, clip: Path, tmp_path: Path):
    folder = tmp_path / "new" / "pictures"
    result = run("frames", clip, "--num-frames", 10, "--save", folder, "--json")
    indices = [frame["index"] for frame in json.loads(result.out)["frames"]]
    assert sorted(p.name for p in folder.iterdir()) == [f"frame_{index:02}.png" for index in sorted(indices)]
    for index in indices:
        pixels = read_picture(folder / f"frame_{index:02}.png")
        assert pixels.shape == (96, 128, 3)
        assert read_number(pixels) == index


def test_save_replaces_nothing_unless_told(run: Run, clip: Path, tmp_path: Path):
    (tmp_path / "frame_59.png").write_bytes(b"mine")
    refused = run("frames", clip, "--num-frames", 2, "--save", tmp_path)
    assert refused.code == 2
    assert "--overwrite" in refused.error
    assert [p.name for p in tmp_path.iterdir()] == ["frame_59.png"]
    assert run("frames", clip, "--num-frames", 2, "--save", tmp_path, "--overwrite").code == 0
    assert read_picture(tmp_path / "frame_59.png").shape == (96, 128, 3)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_save_says_which_file_shows_another_frame(run: Run, tmp_path: Path, flags: tuple[str, ...]):
    whole = write_clip(tmp_path / "whole.mp4", gop=1, b_frames=0)
    path = with_broken_packets(whole, tmp_path / "hole.mp4", [20, 41])
    folder = tmp_path / "pictures"
    result = run("frames", path, "--num-frames", 60, "--context-limit", 9000, "--save", folder, *flags)
    notes = [line.removeprefix("warning: ") for line in result.err.splitlines() if "warning: " in line]
    assert result.code == 0
    assert len(set(notes)) == len(notes) == 3
    assert notes[0].startswith("2 planned frames cannot be decoded")
    assert notes[1].startswith("damaged: 2 packets")
    assert notes[2] == "stand-ins for lost frames: frame_20.png shows frame 19, frame_41.png shows frame 40"
    assert [read_number(read_picture(folder / f"frame_{index}.png")) for index in (19, 20, 21)] == [
        19,
        19,
        21,
    ]
    if flags:
        assert json.loads(result.out)["notes"] == notes


def test_save_says_the_same_of_every_part_of_a_plan_once(run: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vidllava.cli.frames.BYTES_AT_ONCE", 1)
    whole = write_clip(tmp_path / "whole.mp4", gop=1, b_frames=0)
    path = with_broken_packets(whole, tmp_path / "hole.mp4", [4, 12])
    result = run("frames", path, "--num-frames", 60, "--save", tmp_path / "pictures")
    assert result.err.count("warning: 1 planned frames cannot be decoded") == 1
    assert "frame_04.png shows frame 3, frame_12.png shows frame 11" in result.err


def test_save_into_a_file_is_wrong_usage(run: Run, clip: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    assert run("frames", clip, "--save", tmp_path / "file").code == 2


def test_a_picture_is_a_clip_of_one_frame(run: Run, picture: Path):
    report = json.loads(run("frames", picture, "--json").out)
    assert report["frames"] == [{"index": 0, "timestamp_seconds": 0.0}]
    assert (report["kind"], report["width"], report["height"]) == ("picture", 128, 96)
    assert report["budget"]["frames_at_factor"] is None


@pytest.mark.no_model
def test_a_named_model_that_is_not_here_is_counted_all_the_same(run: Run, clip: Path):
    result = run("frames", clip, "--model", "onevision-7b", "--num-frames", 32, "--json")
    budget = json.loads(result.out)["budget"]
    assert (budget["visual_tokens"], budget["newline_tokens"]) == (6272, 1)
    assert budget["context_limit"] == 32768
    assert "upper bound" in result.err


def test_nearest_key_frames_are_taken_when_asked_for_and_how_far_off_is_said(run: Run, clip: Path):
    result = run("frames", clip, "--num-frames", 4, "--keyframes", "nearest", "--json")
    assert [frame["index"] for frame in json.loads(result.out)["frames"]] == [0, 24, 36, 48]
    shown = run("frames", clip, "--num-frames", 4, "--keyframes", "nearest").out
    assert "the nearest key frames instead" in shown


def test_what_a_picture_file_holds_besides_is_said_where_the_result_is(run: Run, tmp_path: Path):
    pages = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue", "yellow")]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    note = "holds 4 pages: only the first is read"
    result = run("frames", tmp_path / "pages.tiff", "--json")
    assert (result.code, result.err) == (0, f"warning: {note}\n")
    assert json.loads(result.out)["notes"] == [note]


def test_json_stays_json_whatever_a_name_holds(run: Run, clip: Path, tmp_path: Path):
    """An escape that drives the terminal, and characters that Python does not call printable."""
    name = tmp_path / "a\x1b[31m\x85\u200b\U000e0067\u202eb.mp4"
    name.write_bytes(clip.read_bytes())
    result = run("frames", name, "--json")
    assert json.loads(result.out)["media"] == str(name)
    assert result.out.replace("\n", "").isprintable()


def test_saved_frames_sort_by_name_as_by_time(run: Run, tmp_path: Path):
    """By the digits of the clip's last frame, not of the plan's: another plan gives the same names."""
    clip = write_clip(tmp_path / "long.mp4", num_frames=101, width=32, height=32)
    run("frames", clip, "--num-frames", 3, "--end", 0.4, "--save", tmp_path / "p")
    run("frames", clip, "--num-frames", 2, "--save", tmp_path / "p", "--overwrite")
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert (names[0], names[-1], len(set(map(len, names)))) == ("frame_000.png", "frame_100.png", 1)
