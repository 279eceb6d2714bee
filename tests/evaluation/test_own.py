"""Our own sets: the answer in any of its spellings, every other scalar a group, every bad row named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidllava.errors import DatasetError
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.read import read_set

ROW: dict[str, Any] = {"id": "7", "video": "a.mp4", "question": "which colour?", "answer": "blue"}
COLOURS = ["red", "blue"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.png"):
        (tmp_path / name).write_bytes(b"media")
    return tmp_path


def read(folder: Path, *rows: dict[str, Any]) -> tuple[EvalItem, ...]:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_set(path)
    assert found.task.name == "own"
    return found.items


@pytest.mark.parametrize("answer", ["blue", "Blue", "B", "(B)", 1])
def test_an_answer_is_a_text_a_letter_or_a_number(folder: Path, answer: object):
    (item,) = read(folder, {**ROW, "options": COLOURS, "answer": answer})
    assert (item.answer, item.scoring, item.options) == ("B", "choice", ("red", "blue"))
    assert item.prompt == (
        "which colour?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    )


def test_letters_before_the_options_are_taken_off(folder: Path):
    (item,) = read(folder, {**ROW, "options": ["A. red", "B. blue"]})
    assert (item.options, item.answer) == (("red", "blue"), "B")


SIDES = ["left", "right"]


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["A. left", "B. right"], "B. right", "B"),
        (["A. left", "B. right"], "right", "B"),
        (["a) left", "b) right"], "b", "B"),
        (["a) left", "b) right"], "b) right", "B"),
        (["1. left", "2. right"], "2. right", "B"),
        (SIDES, "(B) right", "B"),
        (SIDES, "B: right", "B"),
        (SIDES, "b", "B"),
        (SIDES, "b.", "B"),
        (SIDES, "[B]", "B"),
        (SIDES, "Option B", "B"),
        (SIDES, "2. right", "B"),
        (SIDES, "1) right", "B"),
        (["red", "Red", "RED."], "Red", "B"),
        (["red", "Red", "RED."], "B", "B"),
        (["a", "b"], "b", "B"),
        (["A", "B"], "(B)", "B"),
        (["1", "2", "3"], "2", "B"),
        (["0", "1", "2"], 1, "B"),
        (["10", "20"], 20, "B"),
        (["10", "20"], 1, "B"),
        (["2.5", "3.5"], 3.5, "B"),
        (SIDES, 1.0, "B"),
    ],
)
def test_a_label_is_read_as_people_write_it(folder: Path, options: list[str], answer: object, letter: str):
    (item,) = read(folder, {**ROW, "options": options, "answer": answer})
    assert item.answer == letter


@pytest.mark.parametrize(
    ("options", "answer", "why"),
    [
        (["1", "2", "3", "4"], 2, "one option's text and another one's place"),
        (["1", "2"], 1.0, "one option's text and another one's place"),
        (["B", "A"], "b", "one option's text and another one's letter"),
        (SIDES, "A. right", "one option's text and another one's letter"),
        (SIDES, "3. right", "one option's text and another one's letter"),
        (["red", "Red"], "RED", "two options' text"),
        (SIDES, "C", "not an option"),
        (SIDES, "B. up", "not an option"),
        (SIDES, "2", "not an option"),
        (SIDES, "", "not an option"),
        (SIDES, -1, "option -1, counted from 0"),
        (SIDES, 0.5, "option 0.5, counted from 0"),
    ],
)
def test_a_label_that_could_be_two_options_or_is_none_is_refused(
    folder: Path, options: list[str], answer: object, why: str
):
    with pytest.raises(DatasetError, match=why):
        read(folder, {**ROW, "options": options, "answer": answer})


def test_options_lose_their_letters_only_where_each_has_its_own(folder: Path):
    for options in (["A. left", "C. right"], ["A. left", "right"], ["A. left", "b. right"], ["A.", "B."]):
        (item,) = read(folder, {**ROW, "options": options, "answer": "A"})
        assert item.options == tuple(options)


def test_a_free_answer_may_have_several_texts_and_its_own_scoring(folder: Path):
    one, other = read(
        folder, {**ROW, "answer": ["blue", "navy"]}, {**ROW, "id": 8, "answer": 3, "scoring": "rouge"}
    )
    assert (one.answer, one.alternatives, one.scoring, one.prompt) == (
        *("blue", ("navy",)),
        *("exact", "which colour?"),
    )
    assert (other.id, other.answer, other.scoring) == ("8", "3", "rouge")


def test_other_scalars_are_groups_and_the_rest_is_for_the_sampler(folder: Path):
    extra = {"category": "colour", "duration_seconds": 64.0, "easy": True, "tags": ["x"], "start": "0:10"}
    (item,) = read(folder, {**ROW, **extra, "end": 20, "num_frames": 4, "max_new_tokens": 8})
    assert item.groups == (("category", "colour"), ("duration_seconds", "64"), ("easy", "yes"))
    assert dict(item.own) == {"start_seconds": 10.0, "end_seconds": 20.0, "num_frames": 4}
    assert item.max_new_tokens == 8


def test_several_pictures(folder: Path):
    (item,) = read(folder, {"images": ["b.png", "a.mp4"], "question": "q", "answer": "x"})
    assert (item.id, item.media) == ("1", ("b.png", "a.mp4"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": ""}, "`question`, a text"),
        ({"image": "b.png"}, "needs one of"),
        ({"options": COLOURS, "answer": "green"}, "'green' is not an option"),
        ({"options": COLOURS, "answer": 2}, "option 2, counted from 0"),
        ({"options": COLOURS, "answer": True}, "`answer` must be"),
        ({"options": ["B", "A"], "answer": "A"}, "one option's text and another one's letter"),
        ({"options": ["blue", "blue"]}, "two `options` are the same"),
        ({"options": "red"}, "`options`, a list"),
        ({"answer": {}}, "`answer` must be"),
        ({"scoring": "bleu"}, "`scoring` must be one of"),
        ({"scoring": "rouge", "options": COLOURS}, "does not go with options"),
        ({"num_frames": 0}, "num-frames"),
        ({"start": 5, "end": 2}, "--start"),
        ({"max_new_tokens": 0}, "`max_new_tokens`"),
        ({"video": "http://example.org/a.mp4"}, "not a local file name"),
        ({"id": 1.5}, "`id` must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_bad_row_is_named_with_its_number(folder: Path, change: dict[str, Any], said: str):
    with pytest.raises(DatasetError) as fault:
        read(folder, {**ROW, "id": "fine"}, {**ROW, **change})
    assert "1 of 2 rows cannot be used: row 2: " in str(fault.value)
    assert said in str(fault.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"video": "a.mp4", "answer": "blue"}, "row 1: needs `question`"),
        ({"question": "which colour?", "answer": "blue"}, "row 1: needs one of `video`, `image`"),
        ({**ROW, "id": None}, "row 1: `id` must be a text"),
    ],
    ids=["question", "media", "id"],
)
def test_a_first_row_that_lacks_a_key_is_told_which(folder: Path, row: dict[str, Any], said: str):
    with pytest.raises(DatasetError) as fault:
        read(folder, row, {**ROW, "id": "fine"})
    assert f"1 of 2 rows cannot be used: {said}" in str(fault.value)


def test_a_first_row_that_is_torn_is_told_as_one_of_many(folder: Path):
    path = folder / "own.jsonl"
    path.write_text('{"id": "7", "vid\n' + json.dumps(ROW) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="1 of 2 rows cannot be used: row 1: invalid JSON at line 1"):
        read_set(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("own.jsonl", "", "holds no rows"),
        ("own.jsonl", "\n \n", "holds no rows"),
        ("own.json", "[]", "holds no rows"),
        ("own.csv", "video,question,answer\n", "holds no rows"),
        ("own.txt", "what colour is it?\n", "row 1 is not JSON: at line 1 column 1: Expecting value"),
        ("own.jsonl", '{"a": NaN}\n', "row 1 is not JSON: NaN is not a number"),
        ("own.jsonl", "3\n", "row 1: must be an object"),
        ("own.jsonl", '{"text": "hello"}\n', "is in no format that is known here"),
    ],
    ids=["empty", "blank", "list", "heading", "text", "nan", "number", "unknown"],
)
def test_a_file_without_a_row_of_any_format_is_told_what_it_lacks(
    folder: Path, name: str, text: str, said: str
):
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError) as fault:
        read_set(folder / name)
    assert said in str(fault.value)


def test_an_empty_file_holds_no_rows_though_its_format_is_named(folder: Path):
    (folder / "own.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DatasetError, match="holds no rows"):
        read_set(folder / "own.jsonl", task="own")


def test_an_id_is_used_once(folder: Path):
    with pytest.raises(DatasetError, match="row 2: id '7' was used by row 1"):
        read(folder, ROW, ROW)


def test_the_key_is_of_the_content_and_not_of_the_place(folder: Path):
    one, other = (item.content_key for item in read(folder, ROW, {**ROW, "id": "8"}))
    assert one != other
    assert read(folder, {**ROW, "id": "0"}, ROW)[1].content_key == one
    changed = [{**ROW, "question": "why?"}, {**ROW, "answer": "red"}, {**ROW, "num_frames": 2}]
    assert all(read(folder, row)[0].content_key != one for row in changed)
    (folder / "a.mp4").write_bytes(b"other")
    assert read(folder, ROW)[0].content_key != one
