"""Rows say which formatting prompt they want, and which data set they are from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidllava.data.records import RecordSource
from vidllava.errors import DatasetError

SAID = [{"from": "human", "value": "which?"}, {"from": "gpt", "value": "this"}]


def source(folder: Path, **more: object) -> RecordSource:
    path = folder / "chartqa_train.jsonl"
    path.write_text(json.dumps({"id": "a", "conversations": SAID, **more}) + "\n", encoding="utf-8")
    return RecordSource(path)


@pytest.mark.parametrize(
    ("more", "prompt_id", "dataset"),
    [
        ({}, None, "chartqa_train"),
        ({"format": 5}, 5, "chartqa_train"),
        ({"prompt_id": "vsr"}, "vsr", "chartqa_train"),
        ({"data_source": "docvqa"}, None, "docvqa"),
        ({"metadata": {"dataset": "ScanQA"}}, None, "ScanQA"),
    ],
)
def test_what_a_row_says_of_its_form(tmp_path: Path, more: dict, prompt_id: object, dataset: str):
    sample = source(tmp_path, **more).sample(0)
    assert (sample.prompt_id, sample.dataset) == (prompt_id, dataset)


def test_a_form_that_is_neither_number_nor_name_is_a_bad_row(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"`format` must be a number or a name, not a list"):
        source(tmp_path, format=[1])
