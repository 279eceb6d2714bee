"""Where visuals stand: placement of a data set's conversations, and prompts built from a question."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.errors import DatasetError, UsageError
from vidllava.prompting.conversation import (
    Placeholder,
    Turn,
    build_prompt,
    check_turns,
    num_placeholders,
    place,
    time_instruction,
    without_marks,
)

IMAGE, VIDEO = Placeholder.IMAGE, Placeholder.VIDEO
ANSWER = Turn("assistant", "Yes.")


def front(text, visuals):
    return place([Turn("user", text), ANSWER], visuals, "front")[0].text


@pytest.mark.parametrize(
    ("text", "visuals", "expected"),
    [
        ("<image>\nWhat?", 1, "<image>\nWhat?"),
        ("<image> <image>\nWhat?", 2, "<image> <image>\nWhat?"),
        ("What is on <image>?", 1, "<image>\nWhat is on Image 1?"),
        ("Is <image> like <image>?", 2, "<image> <image>\nIs Image 1 like Image 2?"),
        ("<image>\nIs it like <image>?", 2, "<image> <image>\nIs it like Image 2?"),
        ("<video> then <image> then <video>", 3, "<video> <image> <video>\nthen Image 1 then Video 2"),
        ("Step 1: <image>\nStep 2: <image>", 2, "<image> <image>\nStep 1: Image 1\nStep 2: Image 2"),
        # LLaVA's own data write <image> for a video: its kind gives the name.
        (
            "First <image>, then <image>",
            ["video", "pictures"],
            "<image> <image>\nFirst Video 1, then Image 1",
        ),
    ],
)
def test_front_moves_visuals_and_leaves_their_names(text, visuals, expected):
    assert front(text, visuals) == expected


def test_front_gathers_the_visuals_of_later_questions_too():
    turns = [
        Turn("system", "Look."),
        Turn("user", "Hello"),
        Turn("assistant", "Ask about <image>."),
        Turn("user", "What is <image>?"),
        ANSWER,
    ]
    placed = place(turns, 1, "front")
    assert [turn.text for turn in placed] == [
        "Look.",
        "<image>\nHello",
        "Ask about <image>.",
        "What is Image 1?",
        "Yes.",
    ]
    assert placed[1].parts == (IMAGE, "\nHello")


def test_front_keeps_a_mentioned_placeholder_as_text():
    turn = Turn("user", "Does <image> use the tag <image>?", (5,))
    assert place([turn], 1, "front")[0].parts == (IMAGE, "\nDoes Image 1 use the tag <image>?")


def test_in_place_and_text_only_change_nothing():
    turns = (Turn("user", "Is <image> like <image>?"), ANSWER)
    assert place(turns, 2, "in-place") == turns
    hello = (Turn("user", "Hello"), ANSWER)
    assert place(hello, 0, "front") == hello


TEXTS = st.lists(st.sampled_from(["<image>", "<video>", " and ", "what", "\n", "."]), min_size=1).map("".join)


@given(questions=st.lists(TEXTS.filter(str.strip), min_size=1, max_size=3), seed=st.integers())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_laws_of_placement(questions, seed):
    turns = [turn for question in questions for turn in (Turn("user", question), ANSWER)]
    order = [placeholder for turn in turns for placeholder in turn.placeholders]
    in_place, in_front = place(turns, len(order), "in-place"), place(turns, len(order), "front")
    for placed in (in_place, in_front):
        check_turns(placed, len(order), source="law")
        assert [placeholder for turn in placed for placeholder in turn.placeholders] == order
        assert [turn.role for turn in placed] == [turn.role for turn in turns]
    assert num_placeholders(in_front[:1]) == len(order), "all in the first question"
    assert place(in_front, len(order), "front") == in_front, "what is in front stays there"
    assert place(turns, len(order), "mixed", seed=seed) in (in_place, in_front)


def test_mixed_is_decided_by_the_seed_and_balanced():
    turns = (Turn("user", "Is <image> like <image>?"), ANSWER)
    drawn = [place(turns, 2, "mixed", seed=f"7:0:{sample}") for sample in range(1000)]
    again = [place(turns, 2, "mixed", seed=f"7:0:{sample}") for sample in range(1000)]
    assert drawn == again
    assert 440 < drawn.count(turns) < 560
    with pytest.raises(ValueError, match="needs a seed"):
        place(turns, 2, "mixed")


def test_placement_refuses_wrong_counts_and_names():
    with pytest.raises(DatasetError, match=r"row 9: 1 placeholders for 2 visuals"):
        place([Turn("user", "<image>"), ANSWER], 2, "in-place", source="row 9")
    with pytest.raises(UsageError, match=r"--placement back: .*in-place, front, mixed"):
        place([Turn("user", "<image>"), ANSWER], 1, "back")


def asked(question, kinds, **settings):
    (turn,) = build_prompt(question, kinds, **settings)
    return turn.parts


def test_a_prompt_is_placeholders_line_end_question():
    assert asked("What happens?", ["video"]) == (VIDEO, "\nWhat happens?")
    assert asked("Which?", ["video", "picture", "pictures"]) == (VIDEO, " ", IMAGE, " ", IMAGE, "\nWhich?")
    assert asked("Hello", []) == ("Hello",)


def test_placeholders_that_match_the_media_are_their_places():
    parts = ("Is ", IMAGE, " in ", VIDEO, "?")
    assert asked("Is <image> in <video>?", ["picture", "video"]) == parts
    assert asked("Is <image> in <video>?", ["picture", "video"], placement="in-place") == parts


@pytest.mark.parametrize("kinds", [["video", "video"], ["picture", "picture"], []])
def test_placeholders_that_do_not_match_the_media_are_plain_text(kinds):
    parts = asked("What does <image> mean?", kinds)
    assert parts[-1].endswith("What does <image> mean?")
    assert sum(isinstance(part, Placeholder) for part in parts) == len(kinds)


def test_image_may_stand_for_a_video_and_video_never_for_a_picture():
    assert asked("In <image>?", ["video"]) == ("In ", IMAGE, "?")
    assert asked("In <video>?", ["picture"]) == (IMAGE, "\nIn <video>?")


CONTROLS = ("<|im_start|>", "<|im_end|>", "<|im|>")


@pytest.mark.parametrize(
    ("question", "kinds", "left", "taken"),
    [
        ("what happens", ["video"], "what happens", ()),
        ("<video>\nwhat?", ["video"], "<video>\nwhat?", ()),
        ("<image>\nwhat?", ["video"], "<image>\nwhat?", ()),
        ("is <image> <video>?", ["picture", "video"], "is <image> <video>?", ()),
        ("what does <image> mean?", ["video", "video"], "what does mean?", ("<image>",)),
        ("<image> what?", [], "what?", ("<image>",)),
        ("what <video>", ["picture"], "what ", ("<video>",)),
        ("a<|im_end|>b", ["video"], "ab", ("<|im_end|>",)),
        ("<video> a <|im_end|>\n<|im_start|> b", ["video"], "<video> a \nb", ("<|im_end|>", "<|im_start|>")),
        ("<image><image> a <image>", ["picture"], "a ", ("<image>",)),
        ("<|im<image>_end|>x", [], "x", ("<image>", "<|im_end|>")),
        ("<|im_<|im_end|>end|>x", [], "x", ("<|im_end|>",)),
        ("<|im|>", [], "", ("<|im|>",)),
        ("a <| b |> <IMAGE> <im_end>", [], "a <| b |> <IMAGE> <im_end>", ()),
    ],
)
def test_marks_that_are_no_places_are_taken_out_of_a_question(question, kinds, left, taken):
    assert without_marks(question, kinds, CONTROLS) == (left, taken)


def test_front_reads_every_placeholder_of_the_question_as_text():
    assert asked("What does <image> mean?", ["picture"], placement="front") == (
        IMAGE,
        "\nWhat does <image> mean?",
    )


def test_in_place_without_matching_placeholders_is_refused():
    with pytest.raises(
        UsageError, match=r"question: has the places \[<image>\] for the media \[<video> <image>\]"
    ):
        build_prompt("What is <image>?", ["video", "picture"], placement="in-place")
    with pytest.raises(UsageError, match=r"auto, in-place, front"):
        build_prompt("What?", ["video"], placement="mixed")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(question):
    with pytest.raises(UsageError, match="question: is empty"):
        build_prompt(question, ["video"])


def test_a_question_that_utf8_cannot_write_is_refused():
    with pytest.raises(UsageError, match="question: is not valid Unicode text at character 1"):
        build_prompt("a\udcff", ["video"])


def test_the_system_line_is_the_first_turn_if_given():
    turns = build_prompt("What?", ["video"], "Be brief.")
    assert [(turn.role, turn.text) for turn in turns] == [
        ("system", "Be brief."),
        ("user", "<video>\nWhat?"),
    ]


def test_time_instruction_is_the_original_sentence():
    assert time_instruction(12.3456, [0, 4.0, 12.3]) == (
        "The video lasts for 12.35 seconds, and 3 frames are uniformly sampled from it. "
        "These frames are located at 0.00s,4.00s,12.30s."
        "Please answer the following questions related to this video."
    )


def test_time_instructions_stand_between_their_visual_and_the_question():
    assert asked("What?", ["video"], time_instructions=["TIMES"]) == (VIDEO, "\nTIMES\nWhat?")
    assert asked("What?", ["picture", "video"], time_instructions=[None, "TIMES"]) == (
        IMAGE,
        "\n",
        VIDEO,
        "\nTIMES\nWhat?",
    )
    assert asked("In <video>?", ["video"], time_instructions=["TIMES"]) == ("TIMES\nIn ", VIDEO, "?")
    assert asked("What?", ["video"], time_instructions=[None]) == (VIDEO, "\nWhat?")
