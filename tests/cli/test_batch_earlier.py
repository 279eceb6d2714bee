"""Files of answers that earlier versions began: they are gone on with, or told and left as they are.

``earlier/answers.jsonl`` and ``results.jsonl`` are what the version before the common engine wrote for
``questions.jsonl`` and ``labelled.jsonl`` beside them, ``*-older.jsonl`` those of one that named weights and
media by less than their whole content.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from vidllava.backbone import locate

EARLIER = Path(__file__).parent / "earlier"
MEDIA = ("clip.mp4", "one.mp4", "two.mp4", "picture.png")
FLAGS = ("--model", "nano", "--max-new-tokens", 8)
WEIGHTS = "63ceeca36a5d1b3228decfcb31cf29cee9aef311"
"""Of the nano that answered."""
COMMANDS = {
    "answers": ("ask", "--batch", "questions.jsonl", "-o", "answers.jsonl", *FLAGS),
    "results": ("eval", "--data", "labelled.jsonl", "-o", "results.jsonl", "--max-failed", 1, *FLAGS),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the earlier version ran, with the model that it had."""
    for name in MEDIA:
        shutil.copy(Path(__file__).parents[2] / "examples" / name, tmp_path)
    for name in ("questions.jsonl", "labelled.jsonl"):
        shutil.copy(EARLIER / name, tmp_path)
    (tmp_path / "bad.mp4").write_text("no video\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locate, "weights_identity", lambda _: WEIGHTS)
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_that_an_earlier_version_began_goes_on(run: Run, folder: Path):
    shutil.copy(EARLIER / "answers.jsonl", folder)
    early = lines(folder / "answers.jsonl")
    assert [one["status"] for one in early].count("media_error") == 2
    result = run(*COMMANDS["answers"])
    assert (result.code, "note: 3 of 6 questions are answered already" in result.err) == (10, True)
    found = lines(folder / "answers.jsonl")
    assert found[:3] == [one for one in early if one["status"] == "ok"]
    assert [(one["id"], one["status"]) for one in found[3:]] == [
        *(("missing", "decode_error"), ("bad", "decode_error"), ("beyond", "usage_error"))
    ]
    assert {one["key"] for one in found} == {one["key"] for one in early}


def test_an_evaluation_that_an_earlier_version_began_goes_on(run: Run, folder: Path):
    early = lines(EARLIER / "results.jsonl")
    whole = (EARLIER / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(whole[:3]) + whole[3][:200])  # killed within the fourth
    result = run(*COMMANDS["results"])
    assert (result.code, "note: 2 of 5 questions are answered already" in result.err) == (0, True)
    assert "the last line was cut off and is answered again" in result.err
    found = lines(folder / "results.jsonl")
    assert [found[0], found[2]] == [early[0], early[2]]
    for name in ("id", "key", "status", "target", "groups", "settings"):
        assert [one[name] for one in found] == [one[name] for one in early], name


@pytest.mark.parametrize("name", ["answers", "results"])
def test_answers_that_no_content_vouches_for_are_left_as_they_are(run: Run, folder: Path, name: str):
    path = folder / f"{name}.jsonl"
    shutil.copy(EARLIER / f"{name}-older.jsonl", path)
    before = path.read_bytes()
    result = run(*COMMANDS[name])
    assert (result.code, path.read_bytes()) == (2, before)
    assert "was made by an earlier version, which did not read the weights and media whole" in result.err
    assert run(*COMMANDS[name], "--overwrite").code in (0, 10)
