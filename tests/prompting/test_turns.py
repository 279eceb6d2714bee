"""Which placeholders stand for visuals, and which conversations are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.errors import DatasetError
from vidllava.prompting.conversation import Placeholder, Turn, check_turns, num_placeholders

IMAGE, VIDEO = Placeholder.IMAGE, Placeholder.VIDEO


def test_every_placeholder_of_a_question_stands_for_a_visual():
    turn = Turn("user", "Compare <image> with\n<video><image>")
    assert turn.parts == ("Compare ", IMAGE, " with\n", VIDEO, IMAGE)
    assert turn.placeholders == (IMAGE, VIDEO, IMAGE)


def test_an_answer_or_a_system_line_that_mentions_a_placeholder_is_plain_text():
    for role in ("assistant", "system"):
        turn = Turn(role, "Write <image> there.")
        assert turn.parts == ("Write <image> there.",)


def test_slots_choose_which_placeholders_stand_for_visuals():
    turn = Turn("user", "<image>\nWhat is <image> in HTML?", (0,))
    assert turn.parts == (IMAGE, "\nWhat is <image> in HTML?")
    assert Turn("user", "<image>", ()).parts == ("<image>",)


@pytest.mark.parametrize("slots", [(1,), (-1,), (0, 0), (8, 0), (0, 99)])
def test_slots_that_are_no_placeholders_in_order_are_refused(slots):
    with pytest.raises(ValueError, match="not offsets of placeholders"):
        Turn("user", "<image> <video>", slots)


def test_an_unknown_role_is_refused():
    with pytest.raises(DatasetError, match=r"role 'human'.*user, assistant, system"):
        Turn("human", "Hello")


PARTS = st.lists(st.sampled_from([IMAGE, VIDEO, "<image>", "<video>", "<im", "age>", "<", " ", "text", "\n"]))


@given(parts=PARTS)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_parts_survive_the_text_however_texts_join(parts):
    turn = Turn.from_parts("user", parts)
    assert turn.placeholders == tuple(part for part in parts if isinstance(part, Placeholder))
    assert "".join(part.value if isinstance(part, Placeholder) else part for part in turn.parts) == turn.text
    assert Turn.from_parts("user", turn.parts) == turn
    between = "".join("|" if isinstance(part, Placeholder) else part for part in parts)
    assert "".join("|" if isinstance(part, Placeholder) else part for part in turn.parts) == between


QUESTION, ANSWER = Turn("user", "<image> What?"), Turn("assistant", "A cat.")


def test_good_conversations_pass():
    check_turns([QUESTION, ANSWER], 1, source="row 3")
    check_turns([Turn("system", ""), QUESTION, ANSWER, Turn("user", "Why?"), ANSWER], 1, source="row 3")
    check_turns([QUESTION], ["picture"], source="row 3", answered=False)
    check_turns([Turn("user", "<image> and <video>"), ANSWER], ["video", "video"], source="row 3")
    check_turns([Turn("user", "<image><image>"), ANSWER], ["pictures", "pictures"], source="row 3")


@pytest.mark.parametrize(
    ("turns", "visuals", "message"),
    [
        ([], 0, "row 3: has no question"),
        ([Turn("system", "Be kind.")], 0, "row 3: has no question"),
        ([ANSWER, QUESTION], 1, "turn 1 is the assistant's, expected the user's"),
        ([QUESTION, QUESTION, ANSWER], 2, "turn 2 is the user's, expected the assistant's"),
        ([QUESTION, ANSWER, Turn("system", "x"), ANSWER], 1, "turn 3 is the system's, expected the user's"),
        ([QUESTION], 1, "ends with the user's turn, expected the assistant's"),
        ([QUESTION, ANSWER], 2, "1 placeholders for 2 visuals"),
        ([QUESTION, ANSWER], 0, "1 placeholders for 0 visuals"),
        ([Turn("user", "Hi"), ANSWER], ["video"], "0 placeholders for 1 visuals"),
        ([Turn("user", "<image><video>"), ANSWER], ["video", "picture"], "placeholder 2 is <video>"),
        ([Turn("user", " \n"), ANSWER], 0, r"turn 1 \(user\): is empty"),
        ([QUESTION, Turn("assistant", "")], 1, r"turn 2 \(assistant\): is empty"),
        ([Turn("user", "Hi"), Turn("assistant", "<image>", (0,))], 1, "visuals belong to questions"),
        ([Turn("user", "Hi \ud83d"), ANSWER], 0, "not valid Unicode text at character 3"),
    ],
)
def test_bad_conversations_are_refused_with_their_place(turns, visuals, message):
    with pytest.raises(DatasetError, match=message) as caught:
        check_turns(turns, visuals, source="row 3")
    assert str(caught.value).startswith("row 3")
    assert caught.value.exit_code == 4


def test_a_conversation_to_be_answered_ends_with_a_question():
    with pytest.raises(DatasetError, match="ends with the assistant's turn, expected the user's"):
        check_turns([QUESTION, ANSWER], 1, source="prompt", answered=False)


def test_num_placeholders_counts_questions_only():
    assert num_placeholders([QUESTION, Turn("assistant", "<image>"), Turn("user", "<video><video>")]) == 3
