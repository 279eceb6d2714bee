"""An answer is read in the formats that models use, never guessed, and scored by the rule of its question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidllava.evaluation import scoring
from vidllava.evaluation.item import LETTERS, EvalItem, Scoring
from vidllava.evaluation.letters import chosen
from vidllava.evaluation.scoring import score
from vidllava.evaluation.texts import normalised, rouge_l, said, spoken

OPTIONS = ("red", "blue", "dark red")


def item(scoring: Scoring, answer: str | None, *alternatives: str, options: tuple[str, ...] = ()) -> EvalItem:
    return EvalItem(
        id="1",
        row=1,
        media=("a.mp4",),
        paths=("a.mp4",),
        question="q",
        prompt="q",
        scoring=scoring,
        options=options,
        answer=answer,
        alternatives=alternatives,
    )


@pytest.mark.parametrize("answer", ["", "I cannot tell.", "B or C", "Answer: Z. Like the man in (A)"])
def test_no_option_or_several_is_none(answer: str):
    assert score(item("choice", "A", options=OPTIONS), answer)[:3] == (0.0, "unparsed", "")


def test_a_letter_that_is_read_is_right_or_wrong():
    assert score(item("choice", "B", options=OPTIONS), "**Answer**: B") == (1.0, "ok", "B", None)
    assert score(item("choice", "A", options=OPTIONS), "B\nThe red one leaves.") == (0.0, "ok", "B", None)


def test_an_options_text_within_another_is_not_it():
    assert chosen("It is dark red.", OPTIONS) == "C"


@given(st.text(max_size=40))
def test_a_letter_is_one_of_the_options_or_none(text: str):
    assert chosen(text, OPTIONS) in (None, *LETTERS[: len(OPTIONS)])


def test_free_answers_are_equal_but_for_case_marks_and_article():
    assert score(item("exact", "A red circle."), 'the Red  circle"') == (1.0, "ok", "red circle", None)
    assert score(item("exact", "two", "2"), "2").score == 1.0
    assert score(item("exact", "two"), "three").score == 0.0
    assert score(item("exact", "two"), " ").status == "unparsed"
    assert normalised("A") == "a"


def test_rouge_l_is_the_longest_common_subsequence():
    assert rouge_l("the cat sat", "the cat ran") == pytest.approx(2 / 3)
    assert rouge_l("sat cat the", "the cat sat") == pytest.approx(1 / 3)
    assert rouge_l("", "the") == 0.0
    # 3 of 4 words and 3 of 3: precision 0.75, recall 1
    assert score(item("rouge", "police killed gunman"), "police then killed gunman").score == pytest.approx(
        6 / 7
    )


def test_the_answers_that_were_scored_the_wrong_way_round():
    scored = [
        (("red", "blue"), "A", "It is not red.", 0.0),
        (("red", "blue"), "A", "(A) is wrong, (B) is right", 0.0),
        (("2", "4"), "A", "2.5", 0.0),
        (("A circle", "A Star"), "A", "The answer is A Star.", 0.0),
        (("red", "blue"), "B", "<think>The answer is A?</think> B", 1.0),
        (("red", "blue"), "B", "**Answer**: B", 1.0),
        (("red", "blue"), "B", "B\nThe red one leaves.", 1.0),
    ]
    found = [score(item("choice", label, options=options), said).score for options, label, said, _ in scored]
    assert found == [expected for *_, expected in scored]


REASONED = "<think>Is it the gunman? The police then killed him.</think> "


@pytest.mark.parametrize("scoring", ["exact", "rouge", "judge"])
def test_a_reasoning_block_is_no_part_of_a_free_answer(scoring: Scoring):
    asked = item(scoring, "two dogs")
    assert score(asked, REASONED + "two dogs") == score(asked, "two dogs")
    assert score(asked, REASONED + "<answer>two dogs</answer>") == score(asked, "two dogs")
    assert score(asked, "<think>two dogs").status == "unparsed"
    assert score(asked, REASONED).status == "unparsed"
    assert spoken("B<|im_end|>\n<|im_start|>user\nA") == "B"
    assert said("<answer>a</answer> or <answer>b</answer>") == "<answer>a</answer> or <answer>b</answer>"


def test_rouge_reads_the_first_512_characters_of_the_answer_itself():
    asked = item("rouge", "dog")
    assert score(asked, "x" * 508 + " dog").score == pytest.approx(2 / 3)
    assert score(asked, "x" * 509 + " dog").score == 0.0
    assert score(asked, f"<think>{'x ' * 600}</think>dog").score == 1.0


def test_a_hidden_label_and_a_judges_question_have_no_score():
    assert score(item("choice", None, options=OPTIONS), "B") == (None, "ok", "B", "the label is hidden")
    assert score(item("choice", None, options=OPTIONS), "none") == (None, "unparsed", "", None)
    assert score(item("judge", "yes"), "Yes") == (None, "ok", "yes", "a judge must say")


def test_wups_without_wordnet_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoring, "_tools", lambda: (None, "WUPS needs nltk"))
    assert score(item("wups", "a dog"), "a cat") == (None, "ok", "cat", "WUPS needs nltk")


class Synset:
    """Stands for a word's first meaning."""

    def __init__(self, word: str) -> None:
        self.word = word

    def wup_similarity(self, other: Synset) -> float:
        return {frozenset(("dog", "cat")): 0.8}.get(frozenset((self.word, other.word)), 0.25)


class WordNet:
    """Knows a few words."""

    def synsets(self, word: str) -> list[Synset]:
        return [Synset(word)] if word in ("dog", "cat", "car") else []


class Lemmatizer:
    """Takes a plural's s."""

    def lemmatize(self, word: str, kind: str = "n") -> str:
        return word.removesuffix("s") if kind == "n" else word


def test_wups_is_the_smaller_of_both_directions(monkeypatch: pytest.MonkeyPatch):
    tools = (WordNet(), Lemmatizer(), frozenset(("the",)))
    monkeypatch.setattr(scoring, "_tools", lambda: (tools, None))
    assert scoring.best_wups("the dogs", ["dog"]) == 1.0
    assert scoring.best_wups("the dog", ["cat"]) == pytest.approx(0.8)
    assert scoring.best_wups("dog", ["car", "cat"]) == pytest.approx(0.8)
    # From the answer 1; from the reference dog 1 times cat 0.8
    assert scoring.best_wups("dog", ["dog cat"]) == pytest.approx(0.8)
    assert scoring.best_wups("xyz", ["dog"]) == 0.0
