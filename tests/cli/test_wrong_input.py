"""What cannot work ends in one line on stderr, the exit code of its kind, and nothing on stdout."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run, start

BAD_MEDIA = {
    "missing": "no such file",
    "empty": "is empty",
    "text": "text",
    "truncated": "",
    "folder": "is a directory",
    "fifo": "FIFO",
    "sound": "no video",
}


@pytest.mark.parametrize("command", ["ask", "frames"])
@pytest.mark.parametrize("kind", BAD_MEDIA)
def test_media_that_cannot_be_used(run: Run, bad_files: dict[str, Path], command: str, kind: str):
    question = ["what happens"] if command == "ask" else []
    result = run(command, bad_files[kind], *question)
    assert result.code == 3
    assert str(bad_files[kind]) in result.error
    assert BAD_MEDIA[kind] in result.error


def test_the_second_of_two_media_is_named(run: Run, clip: Path, bad_files: dict[str, Path]):
    result = run("ask", clip, bad_files["empty"], "what happens")
    assert (result.code, "empty.mp4" in result.error) == (3, True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--fps", "1", "--num-frames", "4"], "--fps"),
        (["--num-frames", "0"], "--num-frames"),
        (["--num-frames", "-1"], "--num-frames"),
        (["--num-frames", "four"], "--num-frames"),
        (["--max-frames", "0"], "--max-frames"),
        (["--fps", "0"], "--fps"),
        (["--fps", "nan"], "--fps"),
        (["--fps", "-1"], "--fps"),
        (["--fps", "1e308"], "--fps: must be from 1e-12 to 1e+12 frames a second"),
        (["--fps", "1/0"], "--fps: '1/0' is not a rate"),
        (
            ["--decode-timeout", "1e308"],
            "--decode-timeout: must be more than 0 seconds and at most 1,000,000",
        ),
        (["--url-timeout", "1e308"], "--url-timeout: must be more than 0 seconds and at most 1,000,000"),
        (["--max-file-size", "9" * 400], "--max-file-size: is more bytes than can be counted"),
        (["--start", f"{'9' * 5000}:00"], "is more seconds than can be counted"),
        (["--rope-factor", "1000001"], "a number from 1 to 1,000,000"),
        (["--context-limit", "9" * 400, "--rope-factor", "1.5"], "at most 1,000,000,000,000"),
        (["--num-frames", "9" * 5000], "--num-frames"),
        (["--preset", "x" * 5000], "[5,009 characters]"),
        (["--start", "5"], "after the last frame"),
        (["--start", "1", "--end", "0.5"], "--end"),
        (["--start", "1:99"], "1:99"),
        (["--end", "soon"], "soon"),
        (["--pool-stride", "0"], "stride"),
        (["--pool-mode", "median"], "--pool-mode"),
        (["--rope-factor", "0.5"], "--rope-factor"),
        (["--rope-factor", "much"], "--rope-factor"),
        (["--context-limit", "0"], "--context-limit"),
        (["--preset", "llava"], "--preset"),
        (["--video-backend", "ffmpeg"], "--video-backend"),
        (["--nm-frames", "3"], "did you mean"),
        (["--model", ""], "--model"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "frames"])
def test_flags_that_cannot_be_meant(run: Run, clip: Path, command: str, flags: list[str], words: str):
    question = ["what happens"] if command == "ask" else []
    result = run(command, clip, *question, *flags)
    assert result.code == 2
    assert words in result.error


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_damaged_picture_is_told_before_flags_for_videos(
    run: Run, picture: Path, tmp_path: Path, kind: str
):
    with Image.open(picture) as whole:
        whole.save(tmp_path / "whole", format=kind)
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    result = run("ask", tmp_path / "cut", "what happens", "--num-frames", 4)
    assert (result.code, "truncated or damaged" in result.error) == (3, True)
    assert run("ask", tmp_path / "whole", "what happens", "--num-frames", 4).code == 2


@pytest.mark.parametrize(
    "flags",
    [
        *(["--temperature", "-1"], ["--temperature", "1e-320"], ["--temperature", "nan"]),
        *(["--top-p", "0"], ["--top-p", "1e-320"], ["--max-new-tokens", "0"], ["--device", "cuda:99"]),
    ],
)
def test_flags_on_the_answer_that_cannot_be_meant(run: Run, clip: Path, flags: list[str]):
    result = run("ask", clip, "what happens", *flags)
    assert result.code == 2
    assert flags[0] in result.error


@pytest.mark.parametrize("arguments", [["what happens"], ["{clip}"], ["{clip}", ""], ["{clip}", "  "], []])
def test_ask_wants_media_and_a_question(run: Run, clip: Path, arguments: list[str]):
    result = run("ask", *(word.format(clip=clip) for word in arguments))
    assert result.code == 2
    assert result.error


def test_empty_stdin_is_no_question(run: Run, clip: Path):
    assert run("ask", clip, "-", stdin="\n").code == 2


def test_unknown_command_names_the_nearest(run: Run):
    result = run("frmes")
    assert (result.code, "did you mean frames?" in result.error) == (2, True)


@pytest.mark.no_model
@pytest.mark.parametrize(
    "name", ["onevision-0.5b", "owner/model", "./nowhere", "nonsense", "/nowhere/at/all", "x" * 300]
)
def test_a_model_that_is_not_here(run: Run, clip: Path, name: str):
    result = run("ask", clip, "what happens", "--model", name)
    assert result.code == 5
    assert name in result.error


def test_a_torn_checkpoint(run: Run, clip: Path, model: Path, tmp_path: Path):
    torn = tmp_path / "torn"
    shutil.copytree(model, torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    result = run("ask", clip, "what happens", "--model", torn)
    assert (result.code, "model.safetensors" in result.error) == (5, True)


def test_a_checkpoint_whose_configuration_is_no_json(run: Run, clip: Path, model: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "config.json").write_text("{", encoding="utf-8")
    assert run("frames", clip, "--model", broken).code == 5


def test_a_file_name_cannot_drive_the_terminal(run: Run, tmp_path: Path):
    result = run("frames", tmp_path / "red\x1b[31m\nclip.mp4")
    assert result.code == 3
    assert "\x1b" not in result.error


def test_a_file_whose_name_begins_with_a_dash_is_told_apart_from_an_option(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(clip, "-dash.mp4")
    shutil.copyfile(clip, "--long")
    for words in (("frames", "-dash.mp4"), ("ask", "-dash.mp4", "what?"), ("frames", "--long")):
        result = run(*words)
        told = f"error: {words[1]}: is a file whose name is read as an option (./{words[1]})"
        assert (result.code, result.error) == (2, told)
    assert "(./-gone.mp4)" in run("frames", "-gone.mp4").error
    assert "(see --help)" in run("frames", "-3", clip).error
    assert run("frames", "./-dash.mp4", "--num-frames", 1).code == 0


def test_awkward_names_work(run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.mp4", "%03d.mp4", "a b'[1]\".mp4", "file:x.mp4", "héllo.mp4"):
        shutil.copyfile(clip, tmp_path / name)
        result = run("frames", "--num-frames", 2, "--json", "--", name)
        assert (result.code, json.loads(result.out)["media"]) == (0, name)


@pytest.mark.parametrize(
    ("media", "flags", "code"),
    [
        ("missing", [], 3),
        ("truncated", [], 3),
        ("fifo", [], 3),
        ("good", ["--fps", "1", "--num-frames", "2"], 2),
        ("good", ["--start", "99"], 2),
        ("good", ["--temperature", "-1"], 2),
        ("good", ["--context-limit", "20", "--rope-factor", "off"], 2),
        ("good", ["--model", "onevision-7b"], 5),
    ],
)
def test_what_needs_no_weights_is_told_before_torch_is_imported(
    bad_files: dict[str, Path], clip: Path, media: str, flags: list[str], code: int
):
    path = clip if media == "good" else bad_files[media]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start("ask", path, "what happens", *flags)
    out, err = process.communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (process.returncode, out, err.count("\n")) == (code, "", 1)
    # CPU seconds, since test runs share their cores. Half of one is usual; torch alone takes more than one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.3
