"""A file is read a row at a time: places in bytes, faults with their place, and memory that stays flat."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.data import row_file
from vidllava.data.records import RecordSource
from vidllava.data.row import RowFault
from vidllava.data.row_file import RecordFile
from vidllava.errors import DatasetError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def scanned(path: Path) -> list[Any]:
    """Numbers and values; every value is read a second time at its place."""
    rows = RecordFile(path)
    found = list(rows.scan())
    for raw in found:
        if not isinstance(raw.value, RowFault):
            assert rows.read(raw.start, raw.size) == raw.value
    return [(raw.number, raw.value) for raw in found]


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(VALUES, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    bom=st.booleans(),
    ascii_only=st.booleans(),
)
def test_a_list_is_cut_into_its_entries_wherever_the_chunks_end(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[Any],
    chunk: int,
    indent: int | None,
    bom: bool,
    ascii_only: bool,
):
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(b"\xef\xbb\xbf" * bom + text.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_file, "_CHUNK_BYTES", chunk)
        expected = json.loads(path.read_text(encoding="utf-8-sig"))
        assert scanned(path) == list(enumerate(expected, 1))


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("number", ["0.0", "1e300", "-2E+7", "1.5e-7", "12"])
def test_a_number_is_whole_wherever_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, chunk: int
):
    monkeypatch.setattr(row_file, "_CHUNK_BYTES", chunk)
    path = tmp_path / "rows.json"
    path.write_text(f"[{number}, {number}]")
    assert scanned(path) == [(1, float(number)), (2, float(number))]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'[{"a": 1},\n nope]', "line 2 column 2: Expecting value"),
        (b'[{"a": 1},\n {"b": 2]', "line 2 column 9: Expecting ',' delimiter"),
        (b'[{"a": 1}\n {"b": 2}]', "line 2 column 2: Expecting ',' delimiter"),
        (b'[{"a": 1},', "line 1 column 11: the list does not end"),
        (b'[{"a": 1}', "line 1 column 10: Expecting ',' delimiter"),
        (b'[{"a": 1}, {"b": "never', "line 1 column 18: Unterminated string"),
        (b'[{"a": 1}, ]', "line 1 column 12: Expecting value"),
        (b'[{"a": 1}] more', "line 1 column 12: Extra data"),
        (b'[{"a": 1}, {"b": "\xff"}]', "is not UTF-8 (byte 18)"),
    ],
)
def test_a_faulty_list_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, what: str, chunk: int
):
    monkeypatch.setattr(row_file, "_CHUNK_BYTES", chunk)
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    # Whole entries before the fault are rows all the same, unless their own chunk cannot be read.
    *before, (_, fault) = scanned(path)
    assert isinstance(fault, RowFault)
    assert what in str(fault)
    assert len(before) == 1 or "UTF-8" in what


def test_lines_go_on_after_a_faulty_one(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": \n\n"\xff"\n{"c": 2}' + b"\n" + b"9" * 5000)
    found = scanned(path)
    assert [number for number, _ in found] == [1, 2, 4, 5, 6]
    assert [isinstance(value, RowFault) for _, value in found] == [False, True, True, False, True]


@pytest.mark.parametrize("begin", ["", "["])
def test_a_row_of_absurd_size_is_refused_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
):
    monkeypatch.setattr(row_file, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(row_file, "_CHUNK_BYTES", 100)
    path = tmp_path / "rows"
    path.write_text(begin + json.dumps({"a": "x" * 5000}) + "\n" + '{"b": 1}')
    found = scanned(path)
    assert "MiB" in str(found[0][1])
    assert begin or found[1] == (2, {"b": 1})


def test_the_fingerprint_is_the_content(tmp_path: Path):
    marks = []
    for content in (b'{"a": 1}\n', b'{"a": 1}\n', b'{"a": 2}\n', b'[{"a": 1}]', b'[{"a": 2}]'):
        path = tmp_path / str(len(marks))
        path.write_bytes(content)
        rows = RecordFile(path)
        list(rows.scan())
        marks.append(rows.fingerprint)
    assert marks[0] == marks[1]
    assert len(set(marks)) == 4


def test_a_file_that_changes_while_it_is_used_is_told(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n')
    rows = RecordFile(path)
    raw = next(iter(list(rows.scan())))
    path.write_text('{"a": 22}\n')
    with pytest.raises(DatasetError, match="changed while it was in use"):
        rows.read(raw.start, raw.size)


def rows_in(path: Path, count: int, *, lines: bool) -> Path:
    answer = "words " * 100
    said = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": answer}]
    rows = (json.dumps({"id": f"row number {n}", "conversations": said}) for n in range(count))
    path.write_text("\n".join(rows) if lines else "[" + ",\n".join(rows) + "]")
    return path


@pytest.mark.parametrize("lines", [True, False], ids=["jsonl", "json"])
def test_rows_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: bool):
    monkeypatch.setattr(row_file, "_CHUNK_BYTES", 1 << 14)
    path = rows_in(tmp_path / "rows", 4000, lines=lines)
    RecordSource(path)  # imports and caches are not what is measured
    tracemalloc.start()
    try:
        source = RecordSource(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source) == 4000
    assert path.stat().st_size > 2_500_000
    assert held < 40 * 4000, "some 21 bytes a row, and no text"
    assert peak < 80 * 4000 + (1 << 18)


def read_one(source: RecordSource, index: int, found: Any) -> None:
    found.put((os.getpid(), source.sample(index).id))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_either_kind_read_it(tmp_path: Path, method: str):
    source = RecordSource(rows_in(tmp_path / "rows", 50, lines=True))
    assert source.sample(3).id == "row number 3"  # the descriptor is open when the worker starts
    context = multiprocessing.get_context(method)
    found = context.Queue()
    workers = [context.Process(target=read_one, args=(source, index, found)) for index in (7, 8)]
    for worker in workers:
        worker.start()
    got = [found.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert {name for _, name in got} == {"row number 7", "row number 8"}
    assert os.getpid() not in {process for process, _ in got}


def test_a_source_that_was_pickled_reads_the_same(tmp_path: Path):
    source = RecordSource(rows_in(tmp_path / "rows", 5, lines=False))
    again = pickle.loads(pickle.dumps(source))
    assert [again.sample(n).turns for n in range(5)] == [source.sample(n).turns for n in range(5)]
