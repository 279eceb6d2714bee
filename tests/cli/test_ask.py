"""``vidllava ask`` through the whole pipeline, on a small random model: only the words mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from vidllava.cli.outputs import write_picture
from vidllava.errors import ResourceError

SHORT = ("--max-new-tokens", 4)


def test_answer_goes_to_stdout_and_nothing_else_does(run: Run, clip: Path):
    result = run("ask", clip, "what happens", *SHORT)
    assert result.code == 0
    assert len(result.out.splitlines()) >= 1
    assert result.err == "warning: the answer was cut at --max-new-tokens 4\n"


def test_json_has_the_documented_keys(run: Run, clip: Path):
    report = json.loads(run("ask", clip, "what happens", "--num-frames", 4, "--json", *SHORT).out)
    assert set(report) >= {"answer", "model", "media", "usage", "seconds"}
    assert set(report["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "visual_tokens"}
    stages = {"import", "load", "cache", "decode", "vision", "overlap", "prefill", "generate", "total"}
    assert set(report["seconds"]) == stages
    (item,) = report["media"]
    assert [frame["index"] for frame in item["frames"]] == [0, 19, 39, 59]
    assert (item["backend"], item["width"], item["height"]) == ("pyav", 128, 96)


def test_usage_agrees_with_the_budget(run: Run, clip: Path):
    report = json.loads(run("ask", clip, "what happens", "--json", *SHORT).out)
    usage, budget = report["usage"], report["budget"]
    assert usage["prompt_tokens"] == budget["total_tokens"] - budget["reserve_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["visual_tokens"] == budget["visual_tokens"]
    assert usage["completion_tokens"] <= 4


def test_frames_and_ask_agree_on_the_plan(run: Run, clip: Path):
    flags = ("--fps", 3, "--start", "0.5", "--max-frames", 3, "--json")
    planned = json.loads(run("frames", clip, *flags).out)["frames"]
    assert json.loads(run("ask", clip, "what happens", *flags, *SHORT).out)["media"][0]["frames"] == planned


def test_question_comes_from_stdin(run: Run, clip: Path):
    report = json.loads(run("ask", clip, "-", "--json", *SHORT, stdin="what is moving?\n").out)
    assert report["question"] == "what is moving?"


def test_several_media_keep_their_order(run: Run, clip: Path, picture: Path):
    report = json.loads(run("ask", picture, clip, picture, "what differs?", "--json", *SHORT).out)
    assert [item["media"] for item in report["media"]] == [str(picture), str(clip), str(picture)]
    assert [item["kind"] for item in report["media"]] == ["picture", "video", "picture"]


def test_media_given_by_flag_keep_the_order_across_both_flags(run: Run, clip: Path, picture: Path):
    flags = ("--image", picture, "--video", clip, "--image", picture)
    report = json.loads(run("ask", *flags, "what differs?", "--json", *SHORT).out)
    assert [item["kind"] for item in report["media"]] == ["picture", "video", "picture"]


def test_greedy_answers_are_the_same_twice_and_seeds_matter(run: Run, clip: Path):
    def answer(*flags: object) -> str:
        return json.loads(run("ask", clip, "what happens", "--json", "--max-new-tokens", 12, *flags).out)[
            "answer"
        ]

    assert answer() == answer()
    drawn = [answer("--temperature", 2, "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_contact_sheet_shows_what_the_model_saw(run: Run, clip: Path, picture: Path, tmp_path: Path):
    path = tmp_path / "sheet.png"
    result = run("ask", clip, picture, "what happens", "--num-frames", 3, "--contact-sheet", path, *SHORT)
    assert result.code == 0
    assert str(path) in result.err
    with Image.open(path) as sheet:
        assert sheet.size[0] > 3 * 160
        assert sheet.size[1] > 2 * 160


def test_a_contact_sheet_is_in_the_format_of_its_ending(run: Run, clip: Path, tmp_path: Path):
    for name, kind in (("sheet.jpg", "JPEG"), ("sheet.WEBP", "WEBP"), ("a.b.tiff", "TIFF")):
        result = run("ask", clip, "what?", "--num-frames", 1, "--contact-sheet", tmp_path / name, *SHORT)
        assert result.code == 0
        with Image.open(tmp_path / name) as sheet:
            assert sheet.format == kind


@pytest.mark.parametrize(
    ("name", "words"), [("-", "is standard output"), ("a", "no ending"), ("a.mp4", "'.mp4'")]
)
def test_a_contact_sheet_without_a_pictures_ending_is_refused_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
):
    monkeypatch.chdir(tmp_path)
    result = run("ask", "gone.mp4", "what?", "--contact-sheet", name)
    assert (result.code, words in result.error, list(tmp_path.iterdir())) == (2, True, [])


def test_a_sheet_that_its_format_cannot_hold_is_told(tmp_path: Path):
    most, height = Image.new("L", (16_383, 1)), Image.new("L", (1, 16_384))
    write_picture(most, tmp_path / "most.webp")
    with pytest.raises(ResourceError, match="has 1 x 16384 pixels, more than WEBP can hold"):
        write_picture(height, tmp_path / "more.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["most.webp"]


def test_contact_sheet_is_refused_before_the_work_if_it_exists(run: Run, clip: Path, tmp_path: Path):
    path = tmp_path / "sheet.png"
    path.write_bytes(b"mine")
    result = run("ask", clip, "what happens", "--contact-sheet", path)
    assert result.code == 2
    assert "--overwrite" in result.error
    assert path.read_bytes() == b"mine"


def test_verbose_tells_the_plan_and_the_seconds(run: Run, clip: Path):
    result = run("ask", clip, "what happens", "-v", *SHORT)
    assert "8 of the 60 frames" in result.err
    assert "prefill" in result.err


def test_quiet_keeps_warnings(run: Run, clip: Path):
    assert "warning" in run("ask", clip, "what happens", "-q", *SHORT).err


def test_a_raised_factor_is_said_and_off_refuses_in_one_line(run: Run, clip: Path):
    tight = ("--context-limit", 150)
    assert "RoPE factor 2" in run("ask", clip, "what happens", *tight, *SHORT).err
    refused = run("ask", clip, "what happens", *tight, "--rope-factor", "off")
    assert refused.code == 2
    assert "would fit" in refused.error


def test_time_instruction_and_system_cost_text_tokens(run: Run, clip: Path):
    def text_tokens(*flags: str) -> int:
        return json.loads(run("ask", clip, "what happens", "--json", *flags, *SHORT).out)["budget"][
            "text_tokens"
        ]

    plain = text_tokens()
    assert text_tokens("--time-instruction") > plain
    assert text_tokens("--system", "") < plain


@pytest.mark.no_model
def test_auto_says_what_nano_is(run: Run, clip: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidllava.backbone.folders.nano_folder", lambda: model)
    result = run("ask", clip, "what happens", *SHORT)
    assert "vidllava models pull onevision-0.5b" in result.err
    assert "generated world" in result.err
    assert "generated world" not in run("ask", clip, "what happens", "--model", "nano", *SHORT).err
