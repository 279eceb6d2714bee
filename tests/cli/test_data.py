"""`data check` and `data stats`: every bad row by file, row and reason, and what the good ones hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bad_media import make_decoder_faulty, make_media
from tests.cli.conftest import Run
from tests.clips import write_clip
from tests.media.test_damage import with_broken_packets

LIMIT = ("--model", "nano", "--model-max-length", 300)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return make_media(tmp_path)


@pytest.fixture
def faulty_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    make_decoder_faulty(monkeypatch)


def row(question: str, **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": "yes"}]
    return {"conversations": said, **more}


GOOD = [
    row("hi", id="text"),
    row("<image>?", id="picture", image="0.png"),
    row("<image><image>?", image=["0.png", "3.png"]),
    row("<video>?", id="clip", video="clip.mkv"),
    row("<image>?", id="folder", video="frames", fps=2),
    {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "0.png"}}]},
            {"role": "assistant", "content": "ok"},
        ]
    },
]
# What is wrong, whether only decoding finds it, and a part of the reason.
BAD: list[tuple[dict[str, Any], bool, str]] = [
    (row("<image>?", id="missing", image="gone.png"), False, "'gone.png': no such file"),
    (row("<image>?", id="outside", image="/etc/hostname"), False, "outside the media root"),
    (row("<image>?", id="url", image="https://example.org/a.png"), False, "remote media are not supported"),
    (row("<image>?", id="page", image="page.png"), False, "is an HTML page"),
    (row("<image>?", id="empty", image="empty.png"), False, "is empty"),
    (row("<image><image>?", id="one of two", image=["0.png", "page.png"]), False, "is an HTML page"),
    (row("<video>?", id="one of the frames", video=[["0.png", "empty.png"]]), False, "is empty"),
    (row("<video>?", id="cut", video="cut.mkv"), False, "cut.mkv"),
    (row("<image>?", id="picture as clip", video="0.png"), False, "0.png"),
    (row("<image>?", id="clip as picture", image="clip.mkv"), False, "clip.mkv"),
    (row("<video>?", id="range", video="clip.mkv", video_start=50), False, "after the last frame"),
    (row("<image>?", id="torn", image="torn.png"), True, "truncated or damaged"),
    (row("<image>?", id="hangs", image="hangs.png"), False, "was not decoded within the limit"),
    (row("<video>?", id="hangs too", video="hangs.mkv"), False, "was not decoded within the limit"),
    (row("<image>?", id="crashes", image="crashes.png"), False, "ended its decoder (SIGSEGV)"),
    (row("word " * 400, id="long"), False, "tokens, the limit is 300"),
    (row("<image><image>?", id="marks", image="0.png"), False, "2 placeholders for 1 visuals"),
    ({"id": "turns", "conversations": [{"from": "human", "value": "a"}] * 2}, False, "turn 2 is the user's"),
    ({"id": "format", "text": "x"}, False, "has the keys id, text"),
    (row("hi", id="text"), False, "id 'text' was used by row 1"),
]


def write(path: Path, rows: list[Any], *, as_list: bool = False) -> Path:
    text = json.dumps(rows, indent=1) if as_list else "".join(json.dumps(one) + "\n" for one in rows)
    path.write_text(text)
    return path


@pytest.mark.usefixtures("faulty_decoder")
@pytest.mark.parametrize("decode", [False, True], ids=["headers", "decode"])
def test_every_kind_of_bad_row_is_listed(run: Run, tmp_path: Path, media: Path, decode: bool):
    rows = write(tmp_path / "rows.json", [*GOOD, *(record for record, _, _ in BAD)], as_list=True)
    flags = ("--decode",) if decode else ()
    found = run("data", "check", rows, "--media-root", media, "--json", "-q", *flags, *LIMIT)
    *listed, summary = map(json.loads, found.out.splitlines())
    told = {one["row"]: one for one in listed}
    expected = {
        number: (record.get("id"), what)
        for number, (record, decoded, what) in enumerate(BAD, len(GOOD) + 1)
        if decode or not decoded
    }
    assert set(told) == set(expected)
    for number, (identity, what) in expected.items():
        assert told[number]["file"] == str(rows)
        assert told[number]["id"] == identity
        assert what in told[number]["reason"], told[number]
    assert found.code == 4
    assert found.err == (
        f"error: {rows}: {len(expected)} of {len(GOOD) + len(BAD)} rows cannot be used "
        "(-o FILE writes the others)\n"
    )
    counts = summary["summary"]
    assert (counts["rows"], counts["bad_rows"]) == (len(GOOD) + len(BAD), len(expected))
    assert counts["too_long_rows"] == 1


def test_good_rows_are_exit_code_0_and_a_summary(run: Run, tmp_path: Path, media: Path):
    rows = write(tmp_path / "rows.jsonl", GOOD)
    found = run("data", "check", rows, "--media-root", media, "--workers", 2, *LIMIT)
    assert (found.code, found.out) == (0, "")
    assert (
        "6 rows\n  text             1\n  picture          2\n  pictures         1\n  video            2\n"
        in found.err
    )
    assert "limit 300 tokens: all fit" in found.err


def test_a_bad_row_is_one_line(run: Run, tmp_path: Path, media: Path):
    rows = write(tmp_path / "rows.jsonl", [GOOD[1], row("<image>?", id="x\ny", image="gone.png"), row(" ")])
    found = run("data", "check", rows, "--media-root", media, *LIMIT)
    assert found.code == 4
    assert len(found.out.splitlines()) == 2
    first, second = found.out.splitlines()
    assert first == f"{rows} row 2 (id x\\ny): 'gone.png': no such file under {media}"
    assert second.startswith(f"{rows} row 3: ")


@pytest.mark.parametrize("as_list", [False, True], ids=["jsonl", "json"])
def test_good_rows_are_written_as_they_are(
    run: Run,
    tmp_path: Path,
    media: Path,
    as_list: bool,
):
    rows = write(
        tmp_path / "rows", [GOOD[0], *(record for record, _, _ in BAD[:3]), *GOOD[1:]], as_list=as_list
    )
    good = tmp_path / "good.jsonl"
    found = run("data", "check", rows, "--media-root", media, "-o", good, "-q", *LIMIT)
    assert found.code == 4
    assert [json.loads(line) for line in good.read_text().splitlines()] == GOOD
    assert run("data", "check", good, "--media-root", media, "-q", *LIMIT).code == 0
    assert run("data", "check", good, "-o", good, *LIMIT).code == 2, "nothing is overwritten unasked"
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_files_of_a_mixture_are_checked_each(run: Run, tmp_path: Path, media: Path):
    write(tmp_path / "a.json", GOOD)
    write(tmp_path / "b.json", [row("<image>?", image="gone.png"), *GOOD])
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        "datasets:\n- {json_path: a.json, media_root: media}\n"
        "- {json_path: b.json, media_root: media, sampling_strategy: 'first:1'}\n"
    )
    found = run("data", "check", mix, tmp_path / "a.json", "--media-root", media, "-q", *LIMIT)
    assert found.code == 4
    assert found.out.startswith(f"{tmp_path / 'b.json'} row 1: 'gone.png'")
    both = run("data", "check", mix, "-o", tmp_path / "good", *LIMIT)
    assert "takes the good rows of one file, not of 2" in both.error
    assert both.code == 2


def test_a_frame_that_stands_in_for_a_lost_one_is_a_note(run: Run, tmp_path: Path, media: Path):
    whole = write_clip(tmp_path / "whole.mp4", gop=1, b_frames=0)
    with_broken_packets(whole, media / "hole.mp4", [20])
    rows = write(
        tmp_path / "rows.jsonl",
        [row("<video>?", id="hole", video="hole.mp4", start=0.6, end=0.7), *GOOD],
    )
    flags = ("--media-root", media, "--decode", *LIMIT)
    found = run("data", "check", rows, "-o", tmp_path / "good", *flags)
    assert (found.code, found.out) == (0, "")
    assert f"note: {rows} row 1 (id hole): 1 planned frames cannot be decoded: the last good" in found.err
    assert f"{len(GOOD) + 1} rows, 1 with notes\n" in found.err
    assert len((tmp_path / "good").read_text().splitlines()) == len(GOOD) + 1
    counts = json.loads(run("data", "check", rows, *flags, "--json", "-q").out)["summary"]
    assert (counts["bad_rows"], counts["noted_rows"]) == (0, 1)
    unseen = run("data", "check", rows, "--media-root", media, "--json", "-q", *LIMIT)
    assert json.loads(unseen.out)["summary"]["noted_rows"] == 0


def test_a_file_that_is_looked_at_as_a_whole_says_so(run: Run, tmp_path: Path, media: Path):
    write(tmp_path / "a.json", GOOD)
    mix = tmp_path / "mix.yaml"
    mix.write_text("datasets:\n- {json_path: a.json, media_root: media, sampling_strategy: 'first:50%'}\n")
    found = run("data", "stats", mix, *LIMIT)
    assert "note: files are looked at as a whole: sampling_strategy and weight are for training" in found.err
    assert found.out.startswith(f"{len(GOOD)} rows\n")


def test_where_nothing_was_counted_nothing_is_said_to_fit(run: Run, tmp_path: Path):
    found = run("data", "check", write(tmp_path / "rows.jsonl", [{"a": 1}]), *LIMIT)
    assert found.code == 4
    assert "fit" not in found.err


def test_a_short_look_is_no_row_of_lines(run: Run, tmp_path: Path, media: Path):
    rows = write(tmp_path / "rows.jsonl", GOOD)
    assert " done, ETA" not in run("data", "check", rows, "--media-root", media, *LIMIT).err


def test_stats_say_the_same_and_do_not_fail(run: Run, tmp_path: Path, media: Path):
    rows = write(tmp_path / "rows.jsonl", [*GOOD, BAD[0][0], BAD[3][0], row("word " * 400)])
    found = run("data", "stats", rows, "--media-root", media, "--json", "-q", *LIMIT)
    assert found.code == 0
    counts = json.loads(found.out)
    assert (counts["rows"], counts["bad_rows"], counts["too_long_rows"]) == (9, 3, 1)
    assert counts["modalities"] == {"text": 2, "picture": 3, "pictures": 1, "video": 2}
    assert sum(one["rows"] for one in counts["histogram"]) == 7, "all but the two that cannot be read"
    beyond = [one["rows"] for one in counts["histogram"] if one["from_tokens"] > 300]
    assert sum(beyond) == 1
    shown = run("data", "stats", rows, "--media-root", media, *LIMIT)
    assert shown.code == 0
    assert "9 rows, 3 cannot be used" in shown.out
    assert "limit 300 tokens: 1 row would not fit" in shown.out


def test_planning_flags_change_the_count(run: Run, tmp_path: Path, media: Path):
    rows = write(tmp_path / "rows.jsonl", [GOOD[3]])

    def tokens(*flags: object) -> int:
        found = run("data", "stats", rows, "--media-root", media, "--json", "-q", "--model", "nano", *flags)
        return json.loads(found.out)["tokens"]["max"]

    assert tokens("--num-frames", 2) < tokens("--num-frames", 4) < tokens()
    assert tokens("--num-frames", 4, "--pool-stride", 1) > tokens("--num-frames", 4)
    assert tokens("--fps", 5, "--max-frames", 2) == tokens("--num-frames", 2)


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("gone.json",), 4, "gone.json: no such file"),
        ((".",), 4, "is a folder"),
        (("rows.jsonl", "--media-root", "nowhere"), 4, "the media root is not a folder"),
        (("rows.jsonl", "--fps", 0), 2, "--fps"),
        (("rows.jsonl", "--fps", 1, "--num-frames", 2), 2, "excludes --num-frames"),
        (("rows.jsonl", "--workers", 0), 2, "workers"),
        (("rows.jsonl", "--decode-timeout", 0), 2, "--decode-timeout"),
        (("rows.jsonl", "--pool-stride", 99), 2, "--pool-stride 99"),
        (("rows.jsonl", "--model", "no/such/model"), 5, "no/such/model"),
        (("rows.jsonl", "-o", "nowhere/good"), 6, "cannot be written"),
        (("empty.jsonl",), 4, "holds no rows"),
    ],
)
def test_wrong_input_is_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    code: int,
    what: str,
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", GOOD[:1])
    write(tmp_path / "empty.jsonl", [])
    model = () if "--model" in arguments else ("--model", "nano")
    found = run("data", "check", *arguments, "-q", *model)
    assert (found.code, what in found.error) == (code, True), found


def test_counting_needs_no_torch(tmp_path: Path, media: Path):
    rows = write(tmp_path / "rows.jsonl", GOOD)
    program = (
        "import sys\nfrom vidllava.cli import main\n"
        "code = main.run(sys.argv[1:])\n"
        "sys.exit(code or sorted({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", program, "data", "check", rows, "--media-root", media, "--decode", "-q"]
    ended = subprocess.run(
        [*map(str, command), "--model", "nano"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=100,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_keys_without_a_meaning_are_named_once_and_in_the_summary(run: Run, tmp_path: Path):
    said = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "this"}]
    rows = write(tmp_path / "rows.jsonl", [{"conversations": said, "mood": at} for at in range(3)])
    found = run("data", "check", rows, "--json", *LIMIT)
    assert found.code == 0
    assert found.err.count("keys without a meaning (rows that have them): mood (3)") == 1
    assert json.loads(found.out.splitlines()[-1])["summary"]["unknown_keys"] == {str(rows): {"mood": 3}}


def test_the_rows_that_the_help_shows_are_rows(run: Run, tmp_path: Path, media: Path):
    text = run("data", "--help").out
    for name, file in (("a.png", "0.png"), ("b.mp4", "clip.mkv")):
        text = text.replace(name, file)
    first = text[text.index("llava  ") :]
    shown = [
        json.JSONDecoder().raw_decode(first, first.index("{", first.index(name)))[0]
        for name in ("llava  ", "messages  ", "swift  ")
    ]
    rows = write(tmp_path / "rows.jsonl", shown)
    found = run("data", "check", rows, "--media-root", media, *LIMIT)
    assert found.code == 0, found.out
    assert "picture          2" in found.err
    assert "video            1" in found.err
    mixture = first[first.index("datasets:") : first.index("╭")]
    (tmp_path / "mix.yaml").write_text(mixture)
    (tmp_path / "coco").symlink_to(media)
    write(tmp_path / "pictures.json", shown[:1], as_list=True)
    assert run("data", "check", tmp_path / "mix.yaml", *LIMIT).code == 0
