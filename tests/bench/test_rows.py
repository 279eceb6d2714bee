"""A row says everything, a file of rows goes on where it was cut off, and the table says the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from vidllava.bench.check import CheckResult
from vidllava.bench.clock import Timing, timing
from vidllava.bench.kernel_cases import (
    MODELS,
    KernelRequest,
    parse_counts,
    parse_words,
    rotate_case,
    splice_case,
)
from vidllava.bench.kernel_rows import Measured, Subject, table_lines, to_row
from vidllava.bench.models import Prefill
from vidllava.bench.operations import BASELINES
from vidllava.bench.rows import RowLog, commit_of
from vidllava.cli.bench_kernels import flags_of, run_fresh
from vidllava.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CONDITIONS = {"device": "a device", "threads": 1, "commit": "abc"}
RIGHT = CheckResult(None, "float64", 1e-7)


def flat(ms: float) -> Timing:
    return timing([ms])


def subject(kernel: str = "rotate", direction: str = "forward") -> Subject:
    make = rotate_case if kernel == "rotate" else splice_case
    return Subject(
        case=make(MODELS["0.5b"], 32),
        dtype="bfloat16",
        direction=direction,  # type: ignore[arg-type]
        implementation="torch",
        element_bytes=2,
    )


def row(one: Subject, **changes: object) -> dict:
    times = {
        "ours": {"process": flat(2.0), "wall": flat(5.0)},
        "copy": {"process": flat(1.0), "wall": flat(1.0)},
        "transformers": {"process": flat(8.0), "wall": flat(9.0)},
    }
    fields = {"times": times, "reasons": {"liger": "not installed"}, "clocks": ("process", "wall")}
    fields |= {"checked": RIGHT, "prefill": Prefill(1000.0, "measured whole"), **changes}
    stamp = {**CONDITIONS, "process": 0, "key": one.key(CONDITIONS, 0)}
    return to_row(one, Measured(**fields), stamp)  # type: ignore[arg-type]


def test_a_row_holds_every_figure():
    one = subject()
    found = row(one)
    assert (found["p10_ms"], found["p50_ms"], found["p90_ms"], found["num_samples"]) == (2.0, 2.0, 2.0, 1)
    assert found["bytes"] == one.num_bytes == 2 * (2 * 6337 * 16 * 64 + 2 * 6337 * 64)
    assert found["gb_per_second"] == pytest.approx(found["bytes"] / 2e-3 / 1e9, rel=1e-3)
    assert (found["copy_share"], found["ratio_transformers"], found["ratio_liger"]) == (0.5, 4.0, None)
    assert found["baselines"]["liger"] == {"reason": "not installed"}
    assert found["baselines"]["transformers"]["wall"]["p50_ms"] == 9.0
    assert found["sizes"]["q_heads"] == 14
    assert (found["clock"], found["other_clocks"]["wall"]["p50_ms"]) == ("process", 5.0)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("kernel", "direction", "share"),
    [
        ("rotate", "forward", 24 * 2 / 1000),
        ("rotate", "backward", 24 * 2 / 2000),
        ("rotate", "both", 24 * 2 / 3000),
        ("splice", "forward", 2 / 1000),
    ],
)
def test_the_share_counts_every_call_and_every_pass(kernel: str, direction: str, share: float):
    found = row(subject(kernel, direction))
    assert found["end_to_end_share"] == pytest.approx(share, rel=1e-3)
    assert found["end_to_end"]["how"] == "measured whole"


def test_without_a_prefill_there_is_no_share():
    assert row(subject(), prefill=None)["end_to_end_share"] is None


def test_a_ratio_compares_one_clock():
    times = {
        "ours": {"graph": flat(1.0), "events": flat(4.0)},
        "transformers": {"events": flat(8.0)},
        "liger": {"graph": flat(3.0)},
    }
    found = row(subject(), times=times, clocks=("graph", "events"))
    assert (found["p50_ms"], found["clock"]) == (1.0, "graph")
    assert (found["ratio_transformers"], found["ratio_liger"]) == (2.0, 3.0)


def test_a_wrong_result_has_no_time():
    found = row(subject(), times={}, reasons={}, clocks=(), checked=CheckResult("q: off", "float64", 0.1))
    assert found["check"]["fault"] == "q: off"
    figures = ("p10_ms", "p50_ms", "p90_ms", "gb_per_second", "copy_share", "end_to_end_share")
    assert all(found[name] is None for name in (*figures, *(f"ratio_{name}" for name in BASELINES)))
    assert "WRONG" in "\n".join(table_lines([found]))


def test_a_key_is_of_shape_and_conditions():
    one = subject()
    assert one.key(CONDITIONS, 0) == subject().key(dict(CONDITIONS), 0)
    others = [subject(direction="both").key(CONDITIONS, 0), one.key(CONDITIONS, 1)]
    others += [one.key({**CONDITIONS, "commit": "def"}, 0), subject("splice").key(CONDITIONS, 0)]
    assert len({one.key(CONDITIONS, 0), *others}) == 5


def test_a_file_goes_on_where_it_was_cut_off(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    first, second = row(subject()), row(subject("splice"))
    skipped = row(subject(direction="both"), times={}, clocks=(), skipped="too large")
    with RowLog(path, overwrite=False) as file:
        for one in (first, skipped):
            file.append(one)
    with path.open("a", encoding="utf-8") as torn:
        torn.write('{"kernel": "rot')
    with RowLog(path, overwrite=False) as file:
        assert file.rows == [first, skipped]
        # What was not measured is tried again.
        assert file.done == {first["key"]}
        file.append(second)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [first, skipped, second]
    with RowLog(path, overwrite=True) as file:
        assert file.rows == []
    assert path.read_text() == ""


@pytest.mark.parametrize("text", ["not json\n", "[1]\n", '{"answer": 1}\n', "1\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match="line 1 is not a row"):
        RowLog(path, overwrite=False)
    assert path.read_text() == text


def test_nan_is_no_figure(tmp_path: Path):
    with RowLog(tmp_path / "rows", overwrite=False) as file, pytest.raises(ValueError, match="JSON"):
        file.append({"key": "a", "p50_ms": float("nan")})


def test_the_table_reads_without_colour_and_its_columns_are_aligned():
    slow = {"ours": {"process": flat(2.0)}, "transformers": {"process": flat(1.0)}}
    skipped = row(subject("splice"), times={}, clocks=(), checked=None, skipped="needs 9 GB")
    lines = table_lines([row(subject()), row(subject("splice", "both"), times=slow), skipped])
    assert "\x1b" not in "".join(lines)
    head, *cells = lines[:4]
    assert head.split()[:5] == ["kernel", "shape", "tokens", "dtype", "direction"]
    end = head.index("x eager") + len("x eager")
    assert [line[:end].split()[-1] for line in cells] == ["4.00", "0.50", "-"]
    notes = "\n".join(lines[4:])
    assert "slower than eager: splice both, 0.5b, 32 frames, bfloat16: 0.50" in notes
    assert "skipped: splice, 0.5b, 32 frames: needs 9 GB" in notes
    assert "1000 ms, measured whole" in notes
    assert "x liger" not in head


def test_several_processes_are_one_line_of_medians():
    rows = [
        {**row(subject(), times={"ours": {"process": flat(ms)}}), "process": n}
        for n, ms in enumerate((1.0, 9.0, 2.0))
    ]
    lines = table_lines(rows)
    assert lines[2] == ""
    assert lines[1].split()[-6:-4] == ["2", "2"]


def test_the_commit_is_that_of_this_checkout_and_of_no_other(tmp_path: Path):
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode == 0:
        assert commit_of(ROOT / "vidllava")[0] == head.stdout.strip()
        # Within the checkout, but not of it.
        assert commit_of(ROOT / "build") == (None, None)
    assert commit_of(tmp_path) == (None, None)


@pytest.mark.parametrize(
    "request_",
    [
        KernelRequest(),
        KernelRequest(
            models=("nano", "7b"),
            num_frames=(8, 9),
            newline_modes=("grid",),
            kernels=("rotate",),
            directions=("both",),
            dtypes=("float16",),
            odd=False,
            share=False,
            compile=True,
            threads=2,
            num_samples=7,
            row_seconds=0.5,
        ),
    ],
    ids=["defaults", "everything"],
)
def test_a_fresh_process_is_asked_for_the_same(request_: KernelRequest, monkeypatch: pytest.MonkeyPatch):
    from vidllava.cli import bench_kernels, main

    seen = []
    monkeypatch.setattr(bench_kernels, "run", lambda request, **others: seen.append((request, others)))
    assert main.run(["bench", "kernels", *flags_of(request_), "--process", "4"]) == 0
    ((request, others),) = seen
    assert request == request_
    assert (others["process"], others["processes"]) == (4, 1)


def test_no_flag_is_the_request_of_no_argument(monkeypatch: pytest.MonkeyPatch):
    from vidllava.cli import bench_kernels, main

    seen = []
    monkeypatch.setattr(bench_kernels, "run", lambda request, **others: seen.append((request, others)))
    assert main.run(["bench", "kernels"]) == 0
    ((request, others),) = seen
    assert request == KernelRequest()
    assert (others["process"], others["processes"]) == (None, None)


@pytest.mark.parametrize(("codes", "expected", "started"), [("00", 0, 2), ("01", 1, 2), ("2", 2, 1)])
def test_a_wrong_result_lets_the_other_processes_run_and_a_fault_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: str, expected: int, started: int
):
    (tmp_path / "child.py").write_text(
        "import sys, pathlib\nnumber = int(sys.argv[-1])\n"
        f"pathlib.Path(sys.argv[1]).open('a').write('x')\nsys.exit(int({codes!r}[number]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    count = tmp_path / "count"
    assert run_fresh([str(count)], module="child", processes=2) == expected
    assert len(count.read_text()) == started


def test_lists_are_read_once_each_and_checked():
    assert parse_words("--kernel", "rotate, splice,rotate", ("splice", "rotate")) == ("rotate", "splice")
    assert parse_counts("--num-frames", "8, 32,8", 100) == (8, 32)
    for text in ("0", "101", "-1", "x", "8,,9", "1.5", "²"):
        with pytest.raises(UsageError, match="--num-frames"):
            parse_counts("--num-frames", text, 100)
