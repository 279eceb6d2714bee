"""nano about media that are not of its world: refused, or answered with a warning where it was asked for."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run

pytestmark = pytest.mark.no_model
OWN = Path(__file__).resolve().parents[2] / "examples" / "picture.png"
UNKNOWN = "does not look like anything that nano was trained on"
PULL = "vidllava models pull onevision-0.5b"
ASKED_BY_NAME = pytest.mark.parametrize("by", ["flag", "variable"])


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "blobs.png"
    levels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


def named(by: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """nano asked for by a flag, or by the variable."""
    if by == "flag":
        return ("--model", "nano")
    monkeypatch.setenv("VIDLLAVA_MODEL", "nano")
    return ()


@pytest.mark.parametrize("flags", [(), ("--model", "auto"), ("--json",), ("--no-cache", "-q")])
def test_ask_stops_with_one_line_that_says_how_to_get_a_real_model(
    run: Run, foreign: Path, flags: tuple[str, ...]
):
    result = run("ask", foreign, "what is this?", *flags)
    assert result.code == 5
    assert result.error.startswith(f"error: {foreign}: {UNKNOWN}")
    assert PULL in result.error


def test_features_from_the_cache_get_the_same_verdict(run: Run, foreign: Path):
    assert run("ask", foreign, "what is this?").code == 5
    assert run("ask", foreign, "what is this?", "--model", "nano").code == 0
    assert run("ask", foreign, "what is this?").code == 5


def test_standard_input_is_named_as_the_user_named_it(
    run: Run, foreign: Path, monkeypatch: pytest.MonkeyPatch
):
    stream = io.TextIOWrapper(io.BytesIO(foreign.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stream)
    result = run("ask", "-", "what is this?")
    assert result.code == 5
    assert result.error.startswith(f"error: standard input: {UNKNOWN}")


@ASKED_BY_NAME
def test_asked_for_by_name_it_answers_with_a_warning_that_quiet_does_not_silence(
    run: Run, foreign: Path, by: str, monkeypatch: pytest.MonkeyPatch
):
    model = named(by, monkeypatch)
    result = run("ask", foreign, "what is this?", "-q", *model)
    assert (result.code, result.out.strip() != "") == (0, True)
    (line,) = result.err.splitlines()
    assert line.startswith(f"warning: the picture {UNKNOWN}")
    assert PULL in line
    report = json.loads(run("ask", foreign, "what is this?", "--json", *model).out)
    (note,) = report["notes"]
    assert f"warning: {note}" == line


def test_its_own_media_and_questions_without_media_are_answered(run: Run):
    result = run("ask", OWN, "what is in the picture")
    assert result.code == 0
    assert result.err.splitlines()[0].startswith("note: nano answers")
    assert len(result.err.splitlines()) == 1
    assert UNKNOWN not in run("ask", OWN, "what is in the picture", "--model", "nano").err


def test_a_batch_says_it_row_by_row(run: Run, foreign: Path, tmp_path: Path):
    rows = [{"id": "own", "image": str(OWN)}, {"id": "other", "image": str(foreign)}]
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text("".join(json.dumps(row | {"question": "what is this?"}) + "\n" for row in rows))
    flags = ("ask", "--batch", questions, "--media-root", "/", "-o", answers)
    assert run(*flags).code == 10
    own, other = map(json.loads, answers.read_text().splitlines())
    assert (own["status"], own["notes"]) == ("ok", [])
    assert (other["status"], other["answer"]) == ("unfamiliar", None)
    assert UNKNOWN in other["error"]
    assert run(*flags, "--model", "nano").code == 0
    again = json.loads(answers.read_text().splitlines()[-1])
    assert (again["id"], again["status"]) == ("other", "ok")
    assert UNKNOWN in again["notes"][0]


def test_eval_measures_and_says_it_row_by_row(run: Run, foreign: Path, tmp_path: Path):
    rows = [{"id": "own", "image": str(OWN)}, {"id": "other", "image": str(foreign)}]
    data, output = tmp_path / "set.jsonl", tmp_path / "out.jsonl"
    data.write_text(
        "".join(json.dumps(row | {"question": "what?", "answer": "A star."}) + "\n" for row in rows)
    )
    flags = ("eval", "--data", data, "--media-root", "/", "-o", output)
    for more in ((), ("--model", "nano", "--overwrite")):
        result = run(*flags, "-q", *more)
        assert result.code == 0
        assert "warning: 1 of 2 questions are about media that look like nothing that nano" in result.err
        lines = {one["id"]: one for one in map(json.loads, output.read_text().splitlines())}
        assert lines["other"]["resps"] != []
        assert UNKNOWN in lines["other"]["notes"][0]
        assert not any(UNKNOWN in note for note in lines["own"]["notes"])


def test_chat_stops_too_and_with_a_name_warns_once(run: Run, foreign: Path):
    result = run("chat", foreign, stdin="what is this?\nwhat colour is it?\n")
    assert result.code == 5
    assert result.error.startswith(f"error: {foreign}: {UNKNOWN}")
    result = run("chat", foreign, "--model", "nano", "--json", "-q", stdin="what?\nwhat colour?\n")
    assert result.code == 0
    assert result.err.count(UNKNOWN) == 1
    turns = [json.loads(line) for line in result.out.splitlines()]
    assert [any(UNKNOWN in note for note in turn["notes"]) for turn in turns] == [True, True]


@pytest.mark.parametrize("tokens", [0, 2])
def test_an_empty_answer_is_told_as_such_everywhere(
    run: Run, tmp_path: Path, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    """The first token ends it, or its tokens hold no text."""
    from vidllava.backbone import generate
    from vidllava.backbone.folders import nano_folder
    from vidllava.backbone.tokens import read_codec

    codec = read_codec(nano_folder())
    words = [*codec.encode("\n") * tokens, codec.special("<|im_end|>")]
    drawn = iter(words * 9)

    def choose(logits, *_):
        return logits.new_tensor([next(drawn)] * len(logits)).long()

    monkeypatch.setattr(generate, "choose_token", choose)
    said = "its 2 tokens hold no text" if tokens else "the model ended it before a first word"
    asked = run("ask", OWN, "what?", "-q", "--json")
    assert (asked.code, json.loads(asked.out)["answer"]) == (0, "")
    assert json.loads(asked.out)["notes"] == [f"the answer is empty: {said}"]
    assert asked.err == f"warning: the answer is empty: {said}\n"
    questions, data = tmp_path / "q.jsonl", tmp_path / "set.jsonl"
    row = {"id": 1, "image": str(OWN), "question": "what?"}
    questions.write_text(json.dumps(row) + "\n")
    data.write_text(json.dumps(row | {"id": "1", "answer": "A star."}) + "\n")
    answers = tmp_path / "a.jsonl"
    assert run("ask", "--batch", questions, "--media-root", "/", "-o", answers).code == 0
    assert json.loads(answers.read_text())["notes"] == [f"the answer is empty: {said}"]
    assert run("eval", "--data", data, "--media-root", "/", "-o", tmp_path / "e.jsonl").code == 0
    assert json.loads((tmp_path / "e.jsonl").read_text())["notes"] == [f"the answer is empty: {said}"]
