"""``vidllava eval``: a status for every question; the same file resumed, in batches and in processes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Run, start
from tests.clips import write_clip
from vidllava.evaluation.asking import MEASURED

SHORT = ("--max-new-tokens", 4, "--num-frames", 3)
Write = Callable[..., Path]
OPTIONS = ["red", "blue"]


@pytest.fixture
def folder(tmp_path: Path, clip: Path, picture: Path) -> Path:
    """Clips of two lengths, a picture and a file that is neither."""
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "picture.png").write_bytes(picture.read_bytes())
    (tmp_path / "bad.mp4").write_text("no video at all\n" * 40)
    write_clip(tmp_path / "short.mp4", num_frames=7)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes the rows of ``data.jsonl``."""

    def rows(*given: dict[str, Any]) -> Path:
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
        return folder / "data.jsonl"

    return rows


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def comparable(path: Path) -> list[dict[str, Any]]:
    """All that two runs must agree on."""
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines(path)]


def test_a_range_within_a_held_frame_is_answered_about_it(run: Run, write: Write, folder: Path):
    write_clip(folder / "held.mkv", num_frames=4, times_ms=(0, 1000, 2000, 62000))
    asked = {"video": "held.mkv", "question": "which?", "answer": "red", "options": OPTIONS}
    data = write(
        {"id": "inside", "start": 30, "end": 40, **asked},
        {"id": "time", "num_frames": 3, **asked},
        {"id": "index", "num_frames": 3, "sampling": "index", **asked},
    )
    out = folder / "out.jsonl"
    run("eval", "--data", data, "-o", out, "--max-new-tokens", 4)
    media = [line["plan"]["media"][0] for line in lines(out)]
    assert [(one["frames"], one["sampling"]) for one in media] == [
        ([2], "all"),
        ([0, 2, 3], "time"),
        ([0, 1, 3], "index"),
    ]


def test_published_benchmarks_are_read_by_index_unless_a_flag_says_otherwise(
    run: Run, write: Write, folder: Path
):
    write_clip(folder / "v.mp4", num_frames=4, times_ms=(0, 1000, 2000, 62000))
    data = write({"video": "v.mp4", "question": "Which?", "candidates": OPTIONS, "answer": "red"})
    for flags, sampling in (((), "index"), (("--sampling", "time"), "time")):
        out = folder / f"{sampling}.jsonl"
        run("eval", "--data", data, "--task", "mvbench", "--media-root", folder, "-o", out, *SHORT, *flags)
        assert lines(out)[0]["plan"]["media"][0]["sampling"] == sampling


def summary(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(f"{path.name}.summary.json").read_text())


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A question like no other one in its words."""
    plain = {"id": str(number), "video": "clip.mp4", "question": f"what is {number}?", "answer": "x"}
    return {**plain, "category": "even" if number % 2 == 0 else "odd", **changes}


MIXED = (
    row(0),
    row(1, video="bad.mp4"),
    row(2, options=OPTIONS, answer="blue"),
    row(3, video="missing.mp4"),
    row(4, video=None, image="picture.png"),
    row(5, video="short.mp4", start=0.1),
)


def test_a_line_for_each_question_and_a_column_for_each_failure(run: Run, folder: Path, write: Write):
    out = folder / "out.jsonl"
    result = run("eval", "--data", write(*MIXED), "-o", out, *SHORT, "--max-failed", 0.4)
    assert (result.code, result.out) == (0, "")
    found = lines(out)
    assert [(line["doc_id"], line["id"]) for line in found] == [(n, str(n)) for n in range(6)]
    assert [line["status"] == "decode_error" for line in found] == [False, True, False, True, False, False]
    for line in found:
        if line["status"] == "decode_error":
            assert (line["resps"], line["score"]) == ([], None)
            assert line["error"].startswith(line["plan"]["media"][0]["media"] + ": ")
        else:
            assert len(line["resps"]) == 1
            assert line["tokens"]["visual"] > 0
            assert line["seconds"].keys() >= {"ahead", "vision", "prefill", "generate"}
            assert line["peak_memory_bytes"] > 0
    assert found[0]["plan"]["media"][0]["frames"] == [0, 29, 59]
    assert found[5]["plan"]["media"][0]["timestamps_seconds"][0] >= 0.1
    assert found[2]["prompt"].endswith("Answer with the option's letter from the given choices directly.")
    whole = summary(out)
    assert (whole["total"], whole["decode_error"]) == (6, 2)
    assert (whole["of_answered"]["n"], whole["of_all"]["n"]) == (4, 6)
    assert whole["groups"]["category"]["odd"]["decode_error"] == 2
    assert re.search(r"^questions +6 +\d +\d +2 +0 +0 ", result.err, re.MULTILINE)
    assert re.search(r"^  odd +3 +\d +\d +2 +0 +0 ", result.err, re.MULTILINE)


def test_flags_are_for_the_rows_that_they_fit_and_a_rows_own_faults_have_a_status(
    run: Run, folder: Path, write: Write
):
    write_frames(folder / "frames", 6)
    beyond, picture = {"start": 90, "end": 95}, {"video": None, "image": "picture.png"}
    data = write(
        row(0, **picture),
        row(1, video="frames", frame_rate=3),
        row(2, **beyond),
        row(3, **picture, num_frames=2),
        row(4, **picture, start=1),
        row(5, frame_rate=3),
        row(6, video="frames"),
        row(7, media=["clip.mp4", "picture.png"], video=None),
    )
    out = folder / "out.jsonl"
    flags = ("--num-frames", 3, "--max-frames", 8, "--sampling", "index", "--end", 5, "--max-new-tokens", 4)
    assert run("eval", "--data", data, "-o", out, *flags, "--max-failed", 1).code == 0
    found = lines(out)
    failed = [line["status"] == "usage_error" for line in found]
    assert failed == [False, False, True, True, True, True, True, False]
    assert "frames" not in found[0]["plan"]["media"][0]
    assert found[1]["plan"]["media"][0]["frames"] == [0, 2, 5]
    for line, words in zip(
        found[2:7], ("clip.mp4", "--num-frames", "--start", "--frame-rate", "frames"), strict=True
    ):
        assert line["error"].startswith(f"{words}: ")
    assert summary(out)["usage_error"] == 5
    assert summary(out)["decode_error"] == 0


def write_frames(folder: Path, count: int) -> None:
    """Numbered pictures, each of its own grey."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (96, 64), (10 * number,) * 3).save(folder / f"{number + 1:05}.png")


def test_mvbenchs_folders_of_frames_are_clips_of_three_a_second(run: Run, folder: Path):
    write_frames(folder / "mv" / "tvqa" / "frames_fps3_hq" / "ep1", 18)
    (folder / "mv" / "json").mkdir()
    asked = {"video": "ep1", "question": "Which colour?", "candidates": OPTIONS, "answer": "blue"}
    rows = [
        {**asked, "start": 2.0, "end": 3.0},
        {**asked, "start": 90.0, "end": 95.0},
        {**asked, "video": "ep2"},
    ]
    (folder / "mv" / "json" / "episodic_reasoning.json").write_text(json.dumps(rows))
    out = folder / "out.jsonl"
    flags = ("--media-root", folder / "mv", "--max-failed", 1, "--max-new-tokens", 4)
    assert run("eval", "--data", folder / "mv" / "json", "-o", out, *flags).code == 0
    one, beyond, missing = lines(out)
    assert one["status"] in ("ok", "unparsed")
    assert one["plan"]["media"][0]["frames"] == [6, 7, 8]  # the pictures 7 to 9
    assert one["plan"]["media"][0]["timestamps_seconds"] == [2.0, 2.333333, 2.666667]
    assert (beyond["status"], missing["status"]) == ("usage_error", "decode_error")
    (folder / "mv" / "tvqa" / "frames_fps3_hq" / "ep1" / "00008.png").write_bytes(b"")
    assert run("eval", "--data", folder / "mv" / "json", "-o", out, *flags).code == 0
    assert lines(out)[0]["status"] == "decode_error"  # its content has changed: it is asked again


def test_the_answers_are_those_of_ask(run: Run, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch):
    out = folder / "out.jsonl"
    run("eval", "--data", write(row(0)), "-o", out, *SHORT)
    monkeypatch.chdir(folder)
    single = json.loads(run("ask", "clip.mp4", "what is 0?", *SHORT, "--json", "--no-cache").out)
    (line,) = lines(out)
    assert line["resps"] == [[single["answer"]]]
    assert line["tokens"]["visual"] == single["usage"]["visual_tokens"]
    assert line["plan"]["media"][0]["frames"] == [frame["index"] for frame in single["media"][0]["frames"]]


def test_too_many_failures_are_an_exit_code(run: Run, folder: Path, write: Write):
    flags = ("eval", "--data", write(*MIXED), "-o", folder / "out.jsonl", *SHORT)
    assert run(*flags).code == 10
    result = run(*flags, "--max-failed", 0.3, "--quiet")
    assert (result.code, "2 of 6 questions have no answer" in result.err) == (10, True)
    assert run(*flags, "--max-failed", 0.34).code == 0


def test_what_does_not_fit_is_over_budget(run: Run, folder: Path, write: Write):
    out = folder / "out.jsonl"
    flags = (*SHORT, "--context-limit", 60, "--rope-factor", "off", "--max-failed", 1)
    assert run("eval", "--data", write(row(0)), "-o", out, *flags).code == 0
    (line,) = lines(out)
    assert (line["status"], line["resps"]) == ("over_budget", [])


@pytest.mark.parametrize("size", [2, 3, 10])
def test_a_batch_gives_the_answers_of_single_questions(run: Run, folder: Path, write: Write, size: int):
    rows = (*MIXED, row(6, num_frames=8), row(7, question="a longer question about what happens where?"))
    data = write(*rows)
    flags = ("--max-new-tokens", 6, "--num-frames", 3, "--max-failed", 1)
    run("eval", "--data", data, "-o", folder / "one.jsonl", *flags)
    run("eval", "--data", data, "-o", folder / "more.jsonl", *flags, "--batch-size", size)
    assert comparable(folder / "more.jsonl") == comparable(folder / "one.jsonl")


def test_a_batch_and_a_temperature_do_not_go_together(run: Run, folder: Path, write: Write):
    flags = ("--temperature", 0.5, "--batch-size", 2)
    result = run("eval", "--data", write(row(0)), "-o", folder / "out.jsonl", *flags)
    assert (result.code, "--temperature" in result.error) == (2, True)


def test_blind_answers_stand_beside_and_say_what_they_are(run: Run, folder: Path, write: Write):
    out = folder / "out.jsonl"
    run("eval", "--data", write(*MIXED), "-o", out, *SHORT, "--max-failed", 1, "--blind", "--batch-size", 2)
    plain = folder / "plain.jsonl"
    run("eval", "--data", folder / "data.jsonl", "-o", plain, *SHORT, "--max-failed", 1)
    for line, other in zip(lines(out), lines(plain), strict=True):
        assert line["resps"] == other["resps"]
        assert ("blind" in line) == (line["status"] in ("ok", "unparsed"))
        if "blind" in line:
            assert (line["blind"]["media_shown"], len(line["blind"]["resps"])) == (0, 1)
    assert summary(out)["blind"]["total"] == 4
    assert summary(plain)["blind"] is None


def test_what_is_answered_is_not_asked_again(run: Run, folder: Path, write: Write):
    out = folder / "out.jsonl"
    flags = ("-o", out, *SHORT, "--max-failed", 1)
    run("eval", "--data", write(*MIXED), *flags)
    whole, first = out.read_bytes(), comparable(out)
    assert "4 of 6 questions are answered already" in run("eval", "--data", folder / "data.jsonl", *flags).err
    assert comparable(out) == first
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[2:])[:-30])
    assert "the last line was cut off" in run("eval", "--data", folder / "data.jsonl", *flags).err
    assert comparable(out) == first
    write_clip(folder / "bad.mp4", num_frames=9)
    run("eval", "--data", folder / "data.jsonl", *flags)
    assert lines(out)[1]["status"] in ("ok", "unparsed")


def test_other_settings_and_other_questions_are_refused(run: Run, folder: Path, write: Write):
    out = folder / "out.jsonl"
    data = write(row(0), row(2))
    run("eval", "--data", data, "-o", out, *SHORT)
    before = out.read_bytes()
    for more, said in ((("--num-frames", 2), "other settings"), (("--blind",), "other settings")):
        result = run("eval", "--data", data, "-o", out, *SHORT, *more, "--quiet")
        assert (result.code, said in result.error) == (2, True)
    result = run("eval", "--data", data, "-o", out, *SHORT, "--limit", 1, "--quiet")
    assert (result.code, "1 questions that are not asked now" in result.error) == (2, True)
    assert out.read_bytes() == before
    assert run("eval", "--data", data, "-o", out, *SHORT, "--limit", 1, "--overwrite").code == 0
    assert len(lines(out)) == 1


def test_a_judge_is_asked_on_disk_and_heard_from_a_file(run: Run, folder: Path, write: Write):
    out = folder / "out.jsonl"
    data = write(row(0, scoring="judge"), row(2, scoring="judge"), row(4))
    assert "2 answers have no score: a judge must say" in run("eval", "--data", data, "-o", out, *SHORT).err
    asked = lines(folder / "out.jsonl.judge.jsonl")
    assert [one["id"] for one in asked] == ["0", "2"]
    assert asked[0]["prediction"] == lines(out)[0]["resps"][0][0]
    assert (summary(out)["unscored"], summary(out)["of_all"]["mean"]) == (2, None)
    said = folder / "said.jsonl"
    verdict = {"request": asked[0]["request"], "pred": "yes", "score": 4}
    other = {"request": "of another answer", "pred": "yes", "score": 5}
    said.write_text(json.dumps(verdict) + "\n" + json.dumps(other) + "\n")
    run("eval", "--data", data, "-o", out, *SHORT, "--judge-scores", said)
    found = lines(out)
    assert [(line["score"], line.get("judge_score")) for line in found[:2]] == [(1.0, 4.0), (None, None)]
    said.write_text('{"request": "x", "pred": "maybe"}\n')
    result = run("eval", "--data", data, "-o", out, *SHORT, "--judge-scores", said, "--quiet")
    assert (result.code, "row 1: needs `pred`, yes or no" in result.error) == (4, True)


def test_hidden_labels_leave_a_file_for_the_server(run: Run, folder: Path):
    options = {f"option {number}": f"thing {number}" for number in range(5)}
    rows = [{"q_uid": name, "question": "what?", **options} for name in ("clip", "short")]
    (folder / "questions.json").write_text(json.dumps(rows))
    out = folder / "out.jsonl"
    assert run("eval", "--data", folder / "questions.json", "-o", out, *SHORT).code == 0
    sent = json.loads((folder / "out.jsonl.submission.json").read_text())
    assert sent.keys() == {"clip", "short"}
    assert set(sent.values()) <= {-1, 0, 1, 2, 3, 4}
    assert summary(out)["of_answered"]["n"] == 0


def test_bad_rows_are_told_before_a_model_is_looked_for(run: Run, folder: Path, write: Write):
    data = write(row(0), row(1, question=""))
    result = run("eval", "--data", data, "-o", folder / "out.jsonl", "--model", "no/such")
    assert (result.code, "row 2: needs `question`, a text" in result.error) == (4, True)
    assert not (folder / "out.jsonl").exists()


def test_two_processes_give_the_file_of_one(run: Run, folder: Path, write: Write, model: Path):
    rows = (*MIXED, *(row(number, video="short.mp4") for number in range(6, 11)))
    data = write(*rows)
    flags = (*SHORT, "--max-failed", "1", "--batch-size", "2", "--no-cache")
    run("eval", "--data", data, "-o", folder / "one.jsonl", *flags)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = folder / "two.jsonl"
    command = ["-m", "vidllava.cli.main", "eval", "--data", data, "-o", out, *flags]
    environment = {**os.environ, "VIDLLAVA_MODEL": str(model), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert comparable(out) == comparable(folder / "one.jsonl")
    assert [path.name for path in folder.iterdir() if ".rank" in path.name] == []
    assert summary(out)["total"] == len(rows)


def test_killed_at_random_it_ends_with_the_file_of_an_undisturbed_run(
    run: Run, folder: Path, write: Write, model: Path
):
    rows = tuple(row(number, video=("clip.mp4", "short.mp4")[number % 2]) for number in range(60))
    rows = tuple({**one, "video": "bad.mp4"} if n % 20 == 19 else one for n, one in enumerate(rows))
    data, out = write(*rows), folder / "killed.jsonl"
    flags = ("--data", data, *SHORT, "--max-failed", "0.05", "--batch-size", "3", "--no-cache")
    assert run("eval", *flags, "-o", folder / "whole.jsonl").code == 0
    process = start("eval", *flags, "-o", out)
    deadline, wanted = time.monotonic() + 60, random.randint(1, 40)
    while process.poll() is None and time.monotonic() < deadline:
        if out.exists() and out.read_bytes().count(b"\n") >= wanted:
            break
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert 0 < len(lines(out)) < 60
    assert run("eval", *flags, "-o", out).code == 0
    assert comparable(out) == comparable(folder / "whole.jsonl")
    assert summary(out)["decode_error"] == 3


def test_half_a_surrogate_stops_no_evaluation(run: Run, folder: Path, write: Write):
    """JSON can spell what UTF-8 cannot hold: in a question, an id, an answer, a group."""
    data = write(
        {"id": "words", "video": "clip.mp4", "question": "what\ud800?", "answer": "x"},
        {"id": "i\ud800", "video": "clip.mp4", "question": "what?", "answer": "x\ud800", "kind": "k\udfff"},
    )
    result = run("eval", "--data", data, "-o", folder / "out.jsonl", *SHORT)
    assert result.code == 10
    found = {line["id"]: line for line in lines(folder / "out.jsonl")}
    assert found["i\ud800"]["status"] == "ok"
    assert "is not valid Unicode text" in found["words"]["error"]
    assert summary(folder / "out.jsonl")
    assert (
        run(
            "eval", "--data", write({"video": "clip\ud800.mp4", "question": "?", "answer": "x"}), "-o", "o"
        ).code
        == 4
    )
