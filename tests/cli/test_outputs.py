"""Outputs destroy nothing: files of somebody else, and files that are read, stay byte for byte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

SHORT = ("--max-new-tokens", 2)
LIST = b'[{"id": 1, "video": "a.mp4"}, {"id": 2}]'
ONE_OBJECT = b'{"id": 1, "status": "wanted", "name": "theirs"}'
KERNELS = (
    "bench",
    "kernels",
    "--model",
    "nano",
    "--num-frames",
    "2",
    "--no-odd",
    "--no-share",
    "-o",
    "{file}",
)


@pytest.fixture
def folder(tmp_path: Path, clip: Path, picture: Path) -> Path:
    """A clip, a picture and a row of each kind about them."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    shutil.copy(picture, tmp_path / "frame_0.png")
    row = {"id": "a", "video": "clip.mp4", "question": "what moves?", "answer": "x"}
    (tmp_path / "ev.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "q.jsonl").write_text(json.dumps({**row, "id": "q"}) + "\n", encoding="utf-8")
    (tmp_path / "scores.jsonl").write_text('{"request": "0", "pred": "yes"}\n', encoding="utf-8")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(run: Run, folder: Path, *words: object) -> str:
    """The error of a command that must leave the folder as it is."""
    before = contents(folder)
    result = run(*words)
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    assert result.code == 2, result.err
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.err
    assert "Traceback" not in result.err
    return lines[0]


COMMANDS = {
    "eval": ("eval", "--data", "{folder}/ev.jsonl", "-o", "{file}", *SHORT),
    "batch": ("ask", "--batch", "{folder}/q.jsonl", "-o", "{file}", *SHORT),
    "kernels": KERNELS,
    "bench ask": ("bench", "ask", "{folder}/clip.mp4", "--repeats", 1, *SHORT, "-o", "{file}"),
    "bench decode": (
        "bench",
        "decode",
        "{folder}/clip.mp4",
        "--num-frames",
        2,
        "--repeats",
        1,
        "-o",
        "{file}",
    ),
    "bench frames": (
        "bench",
        "frames",
        "--data",
        "{folder}/ev.jsonl",
        "--num-frames",
        2,
        "--output-dir",
        "{dir}",
    ),
}


def filled(words: tuple[object, ...], folder: Path, file: Path) -> list[object]:
    values = {"folder": folder, "file": file, "dir": file.parent}
    return [word.format(**values) if isinstance(word, str) else word for word in words]


FOREIGN = {
    "list": LIST,
    "object": ONE_OBJECT,
    "object with a line end": ONE_OBJECT + b"\n",
    "an object that is cut off": ONE_OBJECT[:-9],
    "words": b"my notes, without a line end",
    "two lines": b"a heading\nand a last line",
    "video": bytes(range(256)) * 20,
    "a row and notes": b'{"key": "0", "kernel": "x", "direction": "y"}\nnotes',
    "nothing but zeros": bytes(500),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_of_somebody_else_stays(run: Run, folder: Path, command: str, content: bytes) -> None:
    file = folder / "theirs" / "rows.jsonl"
    file.parent.mkdir()
    file.write_bytes(content)
    words = filled(COMMANDS[command], folder, file)
    assert "another" in refused(run, folder, *words)
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", ["kernels", "bench ask", "bench decode", "eval", "batch"])
def test_whoever_ends_a_log_with_something_else_is_heard(run: Run, folder: Path, name: str) -> None:
    """Lines of ours before it do not make a last line ours."""
    ours = {
        "kernels": {"kernel": "splice", "shape": "a", "key": "0", "direction": "forward", "p50_ms": 1},
        "bench ask": {"path": "vidllava", "question": "first", "round": 1, "seconds": {}},
        "bench decode": {"clip": "c", "num_frames": 2, "reader": "pyav", "round": 1},
        "eval": {"doc_id": 0, "id": "a", "key": "0", "status": "ok", "model": "m", "settings": "2-0"},
        "batch": {"id": "q", "status": "ok", "key": "0", "model": "m", "settings": "2-0"},
    }
    for last in (b"and a note", b'["a", "list"]', b'{"theirs": 1}'):
        file = folder / "rows.jsonl"
        file.write_bytes(json.dumps(ours[name]).encode() + b"\n" + last)
        refused(run, folder, *filled(COMMANDS[name], folder, file))
        assert file.read_bytes().endswith(last)


@pytest.mark.parametrize("ending", ["summary.json", "judge.jsonl", "submission.json"])
def test_what_eval_writes_beside_its_answers_replaces_nothing_of_others(
    run: Run, folder: Path, ending: str
) -> None:
    theirs = folder / f"out.jsonl.{ending}"
    theirs.write_text('{"mine": "words"}\n', encoding="utf-8")
    error = refused(run, folder, "eval", "--data", folder / "ev.jsonl", "-o", folder / "out.jsonl", *SHORT)
    assert theirs.name in error
    assert (
        run("eval", "--data", folder / "ev.jsonl", "-o", folder / "out.jsonl", *SHORT, "--overwrite").code
        == 0
    )


def test_an_evaluation_replaces_what_an_earlier_one_wrote_beside(run: Run, folder: Path) -> None:
    words = ("eval", "--data", folder / "ev.jsonl", "-o", folder / "out.jsonl", *SHORT)
    assert run(*words).code == 0
    assert (folder / "out.jsonl.summary.json").exists()
    assert run(*words).code == 0
    (folder / "out.jsonl").unlink()
    assert run(*words).code == 0


INPUTS = {
    "bench ask": ("clip.mp4", ("bench", "ask", "{in}", "--repeats", 1, *SHORT, "-o", "{out}")),
    "bench decode": ("clip.mp4", ("bench", "decode", "{in}", "--num-frames", 2, "-o", "{out}")),
    "contact sheet": ("clip.mp4", ("ask", "{in}", "what moves?", "--contact-sheet", "{out}", "--overwrite")),
    "contact sheet of a picture": (
        "frame_0.png",
        ("ask", "{folder}/clip.mp4", "{in}", "what?", "--contact-sheet", "{out}", "--overwrite"),
    ),
    "a question's file": (
        "q.jsonl",
        ("ask", "{folder}/clip.mp4", "--question", "@{in}", "--contact-sheet", "{out}", "--overwrite"),
    ),
    "eval, rows": ("ev.jsonl", ("eval", "--data", "{in}", "-o", "{out}", "--overwrite")),
    "eval, clip": ("clip.mp4", ("eval", "--data", "{folder}/ev.jsonl", "-o", "{out}", "--overwrite")),
    "eval, judge": (
        "scores.jsonl",
        ("eval", "--data", "{folder}/ev.jsonl", "--judge-scores", "{in}", "-o", "{out}", "--overwrite"),
    ),
    "eval, weights": (
        "model/config.json",
        ("eval", "--model", "{folder}/model", "--data", "{folder}/ev.jsonl", "-o", "{out}", "--overwrite"),
    ),
    "batch, rows": ("q.jsonl", ("ask", "--batch", "{in}", "-o", "{out}", "--overwrite")),
    "batch, clip": ("clip.mp4", ("ask", "--batch", "{folder}/q.jsonl", "-o", "{out}", "--overwrite")),
    "data check": ("train.jsonl", ("data", "check", "{in}", "-o", "{out}", "--overwrite")),
    "data check, picture": (
        "frame_0.png",
        ("data", "check", "{folder}/train.jsonl", "-o", "{out}", "--overwrite"),
    ),
    "data check, mixture": (
        "train.jsonl",
        ("data", "check", "{folder}/mixture.yaml", "-o", "{out}", "--overwrite"),
    ),
}


def same_name(path: Path) -> Path:
    return path


def linked(path: Path) -> Path:
    link = path.parent / f"link-{path.name}"
    link.symlink_to(path)
    return link


def second_name(path: Path) -> Path:
    other = path.parent / f"hard-{path.name}"
    os.link(path, other)
    return other


@pytest.mark.parametrize("known_as", [same_name, linked, second_name])
@pytest.mark.parametrize("command", INPUTS)
def test_an_output_is_never_an_input(
    run: Run, folder: Path, model: Path, command: str, known_as: Callable[[Path], Path]
) -> None:
    shutil.copytree(model, folder / "model")
    row = {"id": "1", "image": "frame_0.png", "conversations": [
        {"from": "human", "value": "<image>what?"}, {"from": "gpt", "value": "this"}
    ]}  # fmt: skip
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / "mixture.yaml").write_text("datasets:\n  - json_path: train.jsonl\n", encoding="utf-8")
    name, words = INPUTS[command]
    values = {"folder": folder, "in": folder / name, "out": known_as(folder / name)}
    given = [word.format(**values) if isinstance(word, str) else word for word in words]
    error = refused(run, folder, *given)
    assert "is an input of this command" in error or "is the file of the questions" in error


def test_frames_are_not_saved_over_the_picture_they_come_from(run: Run, folder: Path) -> None:
    saved = run("frames", folder / "frame_0.png", "--save", folder / "new")
    assert saved.code == 0
    (made,) = (folder / "new").iterdir()
    shutil.copy(folder / "frame_0.png", made)
    refused(run, folder, "frames", made, "--save", made.parent, "--overwrite")


def test_a_sweep_writes_over_no_input_and_no_report_of_others(run: Run, folder: Path) -> None:
    words = ("bench", "frames", "--num-frames", 2, *SHORT, "--output-dir", folder, "--overwrite")
    shutil.copy(folder / "ev.jsonl", folder / "cells.jsonl")
    assert "is an input" in refused(run, folder, *words, "--data", folder / "cells.jsonl")
    (folder / "report.html").write_text("mine", encoding="utf-8")
    assert "exists" in refused(run, folder, *words[:-1], "--data", folder / "ev.jsonl")


def test_a_link_is_followed_and_a_file_keeps_its_mode(run: Run, folder: Path) -> None:
    real, link = folder / "real.png", folder / "sheet.png"
    real.write_bytes(b"old")
    real.chmod(0o600)
    link.symlink_to(real)
    words = ("ask", folder / "clip.mp4", "what?", *SHORT, "--contact-sheet", link, "--overwrite")
    assert run(*words).code == 0
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"\x89PNG")
    assert real.stat().st_mode & 0o777 == 0o600


TRAINING: dict[str, tuple[Any, ...]] = {
    "the model's own folder": ("--model", "{folder}/model", "--output-dir", "{folder}/model"),
    "a checkpoint that would be deleted": (
        *("--model", "{folder}/out/checkpoint-5", "--output-dir", "{folder}/out", "--overwrite-output-dir"),
    ),
    "data among the results": ("--data", "{folder}/out/ledger.jsonl", "--output-dir", "{folder}/out"),
    "data named like the model's files": (
        "--data",
        "{folder}/out/config.json",
        "--output-dir",
        "{folder}/out",
    ),
    "its own configuration": (
        *("--config", "{folder}/out/settings.json", "--output-dir", "{folder}/out", "--overwrite-output-dir"),
    ),
}


@pytest.mark.parametrize("command", TRAINING)
def test_finetune_overwrites_neither_its_model_nor_its_data(
    run: Run, folder: Path, model: Path, command: str
) -> None:
    shutil.copytree(model, folder / "model")
    shutil.copytree(model, folder / "out" / "checkpoint-5")
    row = {"id": "1", "conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]}
    for name in ("ledger.jsonl", "config.json", "train.jsonl"):
        (folder / "out" / name).write_text(json.dumps([row]) if "config" in name else json.dumps(row) + "\n")
    (folder / "out" / "settings.json").write_text("max_steps: 1\n", encoding="utf-8")
    words = [word.format(folder=folder) for word in TRAINING[command]]
    data = [] if "--data" in words else ["--data", folder / "out" / "train.jsonl"]
    overwrite = [] if "--overwrite-output-dir" in words else ["--overwrite-output-dir"]
    error = refused(run, folder, "finetune", *words, *data, *overwrite, "--max-steps", 1)
    assert "--output-dir" in error
