"""Formatting prompts: the paper's words at the paper's place, once, and nowhere else."""

from __future__ import annotations

import pytest

from vidllava.errors import DatasetError
from vidllava.prompting.formatting import (
    DATASETS,
    PROMPTS,
    FormattingPrompt,
    formatting_prompt,
    with_format,
)
from vidllava.prompting.turns import Turn

HEAD, TAIL, ALL = (FormattingPrompt(position, "Say so.") for position in ("head", "tail", "all"))


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        (TAIL, "<image>\nWhat?", "<image>\nWhat?\nSay so."),
        (TAIL, "What is in <image>", "What is in <image>\nSay so."),
        (TAIL, "What? \n", "What?\nSay so."),
        (HEAD, "<image>\nWhat?", "<image>\nSay so.\nWhat?"),
        (HEAD, "What is in <image>", "Say so.\nWhat is in <image>"),
        (HEAD, "<image> <image>\nWhat?", "<image> <image>\nSay so.\nWhat?"),
        (ALL, "<image>", "<image>\nSay so."),
        (ALL, "<image>\n", "<image>\nSay so."),
        (ALL, "<image>\nWhat?", "<image>\nWhat?"),
        (TAIL, "<image>\nWhat? Say so.", "<image>\nWhat? Say so."),
        (HEAD, "say SO!\n<image>\nWhat?", "say SO!\n<image>\nWhat?"),
    ],
)
def test_where_the_words_stand(prompt: FormattingPrompt, text: str, expected: str):
    answer = Turn("assistant", "yes")
    assert with_format((Turn("user", text), answer), prompt) == (Turn("user", expected), answer)


def test_a_second_time_changes_nothing():
    turns = (Turn("user", "<image>\nWhat?"), Turn("assistant", "a"), Turn("user", "Sure?"))
    for prompt in (HEAD, TAIL, ALL):
        once = with_format(turns, prompt)
        assert with_format(once, prompt) == once


def test_text_that_only_looks_like_a_visual_stays_text():
    turn = Turn("user", "What is <image> in HTML?", ())
    (found,) = with_format((turn,), TAIL)
    assert found.placeholders == ()


@pytest.mark.parametrize(
    ("key", "table", "start"),
    [
        ("ChartQA", "picture", "Answer the question with a single word"),
        ("chart_qa_train_18k", "picture", "Answer the question with a single word"),
        ("ai2d", "picture", "Answer with the option letter"),
        ("AI2D-InternVL", "picture", "Answer with the given letter"),
        ("GeoQA+", "picture", "Hint: Please answer the question and provide the correct option letter"),
        ("NExT-QA", "video", "Please provide your answer by stating the letter"),
        ("activitynet", "video", "Answer with the option letter"),
        ("ScanQA", "pictures", "This is a 3D scenario."),
        (3, "picture", "Answer the question with Yes or No."),
        ("3", "pictures", "What's the difference between 2 images?"),
        # One behind in the paper's table of data sets: formula pictures have the formula prompt.
        ("HME100K", "picture", "Please write out the expression of the formula"),
    ],
)
def test_a_data_set_has_the_prompt_of_the_paper(key, table, start):
    found = formatting_prompt(key, table)
    assert found is not None
    assert found.text.startswith(start)


def test_a_set_without_a_prompt_has_none_and_an_unknown_number_is_an_error():
    assert formatting_prompt("sharegpt4video", "video") is None
    assert formatting_prompt("chartqa", "video") is None
    assert formatting_prompt("anything", "text") is None
    with pytest.raises(DatasetError, match="no such formatting prompt for picture"):
        formatting_prompt(99, "picture")


def test_every_data_set_names_a_prompt_that_exists():
    for table, names in DATASETS.items():
        assert set(names.values()) <= set(PROMPTS[table])
