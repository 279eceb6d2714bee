"""`vidllava bench kernels`: rows on stdout or in a file, a table on stderr, and 1 where a result is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start
from vidllava.bench import kernels as bench

pytestmark = pytest.mark.no_model
QUICK = (
    *("bench", "kernels", "--model", "nano", "--num-frames", "2", "--no-odd", "--no-share"),
    *("--samples", "5", "--row-seconds", "0.1"),
)


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_rows_go_to_stdout_and_the_table_to_stderr(run: Run):
    result = run(*QUICK, "--json", "--direction", "forward,both")
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["kernel"], row["direction"]) for row in rows] == [
        ("splice", "forward"),
        ("splice", "both"),
        ("rotate", "forward"),
        ("rotate", "both"),
    ]
    for row in rows:
        assert 0 < row["p10_ms"] <= row["p50_ms"] <= row["p90_ms"]
        assert row["ratio_transformers"] > 0
        assert row["copy_share"] > 0
        assert row["check"]["fault"] is None
        assert (row["implementation"], row["dtype"], row["threads"]) == ("torch", "float32", 1)
        assert all(row[name] for name in ("device", "torch", "transformers", "python", "date", "key"))
    assert "x eager" in result.err
    assert result.err.count("nano, 2 frames") >= 4


def test_without_being_asked_stdout_is_empty(run: Run):
    result = run(*QUICK, "--kernel", "rotate", "--direction", "forward")
    assert (result.code, result.out) == (0, "")
    assert "rotate" in result.err


def test_a_row_that_stands_in_the_file_is_not_measured_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A commit in between would make it another row.
    about = bench.conditions

    def unchanging(device, threads):
        return {**about(device, threads=threads), "commit": "abc", "uncommitted_changes": False}

    monkeypatch.setattr(bench, "conditions", unchanging)
    path = tmp_path / "rows.jsonl"
    flags = (*QUICK, "--kernel", "rotate", "-o", path)
    assert run(*flags, "--direction", "forward").code == 0
    before = path.read_text()
    assert run(*flags, "--direction", "forward").code == 0
    assert path.read_text() == before
    assert run(*flags, "--direction", "forward,both").code == 0
    assert path.read_text().startswith(before)
    assert [json.loads(line)["direction"] for line in path.read_text().splitlines()] == ["forward", "both"]
    assert run(*flags, "--direction", "forward", "--overwrite").code == 0
    assert len(path.read_text().splitlines()) == 1


def test_a_wrong_result_has_no_time_and_the_code_is_1(run: Run, monkeypatch: pytest.MonkeyPatch):
    right = bench.our_operation

    def wrong(case, constants, **others):
        path = right(case, constants, **others)
        if case.kernel == "splice":
            return path
        return lambda leaves: (path(leaves)[0] * 1.001, path(leaves)[1])

    monkeypatch.setattr(bench, "our_operation", wrong)
    result = run(*QUICK, "--json", "--direction", "forward")
    assert result.code == 1
    splice, rotate = map(json.loads, result.out.splitlines())
    assert splice["p50_ms"] > 0
    assert rotate["p50_ms"] is None
    assert "max error" in rotate["check"]["fault"]
    assert "WRONG" in result.err
    assert result.err.splitlines()[-1].startswith("error: rotate, nano, 2 frames, float32: q: max error")


def test_ctrl_c_leaves_the_finished_rows(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = bench.KernelBench.rows

    def cut(self, done):
        yield next(whole(self, done))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.KernelBench, "rows", cut)
    path = tmp_path / "rows.jsonl"
    result = run(*QUICK, "-o", path)
    assert result.code == 130
    assert len(path.read_text().splitlines()) == 1
    assert "splice  nano, 2 frames" in result.err


def test_what_does_not_fit_is_a_row_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "free_bytes", lambda device: 1000)
    result = run(*QUICK, "--json", "--kernel", "rotate", "--direction", "both")
    assert result.code == 0
    row = json.loads(result.out)
    assert row["p50_ms"] is None
    assert "of memory" in row["skipped"]
    assert "skipped: rotate, nano, 2 frames: needs" in result.err


def test_memory_that_runs_out_in_between_is_a_reason_too(run: Run, monkeypatch: pytest.MonkeyPatch):
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(bench, "make_inputs", out_of_memory)
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(bench, "make_inputs", lambda *_, **__: out_of_memory())
        result = run(*QUICK, "--json", "--kernel", "rotate", "--direction", "both")
    assert json.loads(result.out)["skipped"] == "memory ran out"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model", "13b"), "--model '13b'"),
        (("--kernel", "softmax"), "--kernel 'softmax'"),
        (("--direction", "sideways"), "--direction 'sideways'"),
        (("--dtype", "int8"), "--dtype 'int8'"),
        (("--newline-mode", "row"), "--newline-mode 'row'"),
        (("--num-frames", "0"), "--num-frames '0'"),
        (("--num-frames", "many"), "--num-frames 'many'"),
        (("--threads", "0"), "--threads 0"),
        (("--samples", "0"), "--samples 0"),
        (("--row-seconds", "0"), "--row-seconds 0"),
        (("--processes", "0"), "--processes 0"),
        (("--device", "abacus"), "--device abacus"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_one_line_and_2(run: Run, flags: tuple[str, str], words: str):
    result = run("bench", "kernels", *flags)
    assert result.code == 2
    assert words in result.error


def test_a_file_of_something_else_is_one_line_and_2(run: Run, tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    result = run(*QUICK, "-o", path)
    assert result.code == 2
    assert "not a row of this benchmark" in result.error
    assert run(*QUICK, "-o", tmp_path).code == 2
    assert run(*QUICK, "-o", tmp_path / "nowhere" / "rows").code == 2


def test_fresh_processes_append_to_one_file(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    flags = ("--kernel", "rotate", "--direction", "forward", "--processes", "2", "-o", path, "--json")
    process = start(*QUICK, *flags)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["process"] for row in rows] == [0, 1]
    assert [json.loads(line) for line in out.splitlines()] == rows
    # One line for both.
    assert err.count("rotate  nano, 2 frames") == 1
