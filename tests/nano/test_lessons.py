"""What is asked has one true answer, in many wordings, and no answer can be guessed from the question."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from examples.train_nano.mentions import mentions
from examples.train_nano.tokenizer import IM_END, SPECIAL, build_tokenizer, words
from vidllava.errors import UsageError
from vidllava.nano.lessons import SETTINGS, make_lesson
from vidllava.nano.questions import FREE_KINDS, KINDS, KINDS_OF, WORDINGS, question
from vidllava.nano.scene import HELD_OUT, SPLITS, Deed, Scene, Thing, clip_scene, generator
from vidllava.nano.score import fact_f1, facts, same_answer
from vidllava.nano.source import STAGES, world_source


def thing(form: str, colour: str, deed: Deed | None = None) -> Thing:
    return Thing(form=form, colour=colour, x=0.3, y=0.7, radius=0.15, deed=deed or Deed())


MOVING = Scene(
    things=(
        thing("circle", "red", Deed(verb="moves", direction="left", amount=0.3)),
        thing("star", "blue", Deed(verb="becomes", colour="white")),
        thing("A", "green", Deed(verb="appears", start=0.5)),
    )
)
ANSWERS = {
    "colour": {"red", "green"},
    "shape": {"circle", "letter A"},
    "count_start": {"2"},
    "count_end": {"3"},
    "direction": {"left"},
    "event": {"moves left", "becomes white", "appears"},
    "who": {"the red circle", "the blue star", "the green letter A"},
    "colour_start": {"blue"},
    "colour_end": {"white"},
    "letter": {"A"},
    "happens": {"The red circle moves left. The blue star becomes white. The green letter A appears."},
}


def asked(kind: str, scene: Scene, tries: int = 60) -> list[tuple[str, str]]:
    made = (question(kind, scene, "video", np.random.default_rng(number)) for number in range(tries))
    return [(one.text, one.answer) for one in made if one is not None]


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_are_those_of_the_scene(kind):
    assert {answer for _, answer in asked(kind, MOVING)} == ANSWERS[kind]


@pytest.mark.parametrize("kind", ["count", "number", "meets"])
def test_no_question_is_asked_that_has_no_certain_answer(kind):
    """How many are there, while one appears? Which number, where there is none?"""
    assert asked(kind, MOVING) == []


def test_yes_and_no_agree_with_the_scene():
    names = {one.name for one in MOVING.things} | {one.last_name for one in MOVING.things}
    for text, answer in asked("is_there", MOVING):
        assert (answer == "yes") == any(f" {name}" in text for name in names)
    phrases = {"circle": "left", "star": "white", "letter A": "appear"}
    for text, answer in asked("does_it", MOVING, 200):
        noun = next(noun for noun in phrases if noun in text)
        said = text.split(noun, 1)[1]
        assert (answer == "yes") == (phrases[noun] in said), text


def test_yes_and_no_are_equally_likely_and_no_held_out_name_is_ever_denied():
    """Training never shows a green star: if it denied them, it would learn that the answer is no."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(700):
        rng = generator("train", 8, index)
        scene = clip_scene(rng, "train", 1 + index % 3)
        for kind in ("is_there", "is_colour", "does_it"):
            made = question(kind, scene, "video", rng)
            if made is not None:
                counts[kind][made.answer] += 1
                if made.answer == "no":
                    assert not any(f"{c} {form}" in made.text for c, form in HELD_OUT)
    for kind, answers in counts.items():
        share = answers["yes"] / answers.total()
        assert 0.42 < share < 0.58, f"{kind}: {share:.0%} yes"


@pytest.mark.parametrize("kind", ["colour", "direction", "shape", "event"])
def test_no_single_answer_is_a_good_guess(kind):
    answers: Counter[str] = Counter()
    for index in range(600):
        rng = generator("train", 9, index)
        made = question(kind, clip_scene(rng, "train", 1 + index % 3), "video", rng)
        answers[made.answer if made else ""] += 1
    del answers[""]
    chance = {"colour": 1 / 8, "direction": 1 / 4, "shape": 1 / 8, "event": 1 / 6}[kind]
    assert answers.most_common(1)[0][1] / answers.total() < 1.6 * chance


def test_each_kind_has_eight_wordings_or_more_and_each_belongs_to_a_medium():
    assert set(WORDINGS) == set(KINDS) == set().union(*KINDS_OF.values())
    assert min(len(set(templates)) for templates in WORDINGS.values()) >= 8
    assert {"happens", "caption", "different"} == set(FREE_KINDS)


def test_the_terse_question_of_the_readme_is_among_the_wordings():
    assert "what happens" in WORDINGS["happens"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_lessons_are_the_same_every_time_and_differ_between_splits(setting):
    first, again, other = (
        make_lesson(split, 0, 3, setting)[0].questions for split in ("train", "train", "val")
    )
    assert first == again
    assert first != other
    assert len({made.text.lower() for made in first}) == len(first)


@pytest.mark.parametrize("setting", ["two clips", "two pictures", "picture, clip", "clip, picture"])
def test_questions_about_one_of_several_say_which(setting):
    for index in range(10):
        for made in make_lesson("train", 0, index, setting)[0].questions:
            words_of = made.text.lower().rstrip("?.").split()
            assert {"in"} <= set(words_of)
            assert set(words_of[-3:]) & {"clip", "video", "picture", "image"}


@pytest.mark.parametrize("stage", STAGES)
def test_the_source_keeps_its_contract(stage):
    source = world_source(f"{stage}?size=40&seed=3")
    assert len(source) == 40
    kinds = Counter()
    for index in range(40):
        sample, modality = source.sample(index), source.modality(index)
        kinds[modality] += 1
        assert [turn.role for turn in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2)
        assert ("video" in {visual.kind for visual in sample.visuals}) == (modality == "video")
        if modality == "picture":
            assert [visual.kind for visual in sample.visuals] == ["picture"]
        for visual in sample.visuals:
            assert visual.frames.shape[1:] == (84, 84, 3)
            if visual.kind == "video":
                assert 4 <= len(visual.frames) == len(visual.timestamps_seconds) <= 16
    assert ("video" in kinds) == (stage == "2-ov")
    one, same = source.sample(7), world_source(f"{stage}?size=40&seed=3").sample(7)
    assert (one.id, one.turns) == (same.id, same.turns)
    np.testing.assert_array_equal(one.visuals[0].frames, same.visuals[0].frames)


@pytest.mark.parametrize(
    "spec", ["3-ov", "2-ov?colour=red", "2-ov?size=0", "2-ov?seed=x", "2-ov?clips=2", "2-ov?split=exam"]
)
def test_a_wrong_spec_is_refused_in_one_line(spec):
    with pytest.raises(UsageError, match=r"^[^\n]+ \([^\n]+\)$"):
        world_source(spec)


def test_every_word_of_the_world_is_one_token_in_every_place():
    tokenizer = build_tokenizer()
    for word in words():
        for spelling in (word, f" {word}", word.capitalize() if word.islower() else word):
            assert len(tokenizer.encode(spelling).ids) == 1, spelling
    for split in SPLITS:
        for made in make_lesson(split, 0, 0, "clip")[0].questions:
            encoded = tokenizer.encode(made.text)
            assert len(encoded.ids) <= len(made.text.split()) + 2  # a colon, a question mark


@pytest.mark.parametrize("text", ["naïve café", "漢字かな", "🙂\u200d", "\x00\t\r\n", "snow\u0301"])
def test_any_text_survives_the_tokenizer(text):
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_control_tokens_come_first_and_words_never_make_one():
    tokenizer = build_tokenizer()
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == list(range(len(SPECIAL)))
    assert tokenizer.token_to_id(IM_END) not in tokenizer.encode("im_end end <|im").ids


def test_facts_are_compared_without_order_case_or_articles():
    true = "The red circle moves left. The blue star turns."
    assert facts("the blue star turns. The red circle moves left") == facts(true)
    assert facts("A red circle, a blue star and an orange ring.") == facts(
        "an orange ring, a red circle, a blue star"
    )
    given = "The red circle moves left. The blue star grows."
    assert (facts(given).total(), facts(true).total(), (facts(given) & facts(true)).total()) == (2, 2, 1)
    assert fact_f1([(given, true)]) == 0.5
    assert fact_f1([(given, true), (true, true)]) == 0.75


def test_exact_match_forgives_case_and_full_stop_only():
    assert same_answer(" Red.", "red")
    assert not same_answer("the red", "red")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what colour is the circle?", [("circle", 0)]),
        ("Does the red circle meet the blue star", [("red circle", 0), ("blue star", 1)]),
        ("is there a letter a here", [("letter a", 2)]),
        ("is there a red star", [("red star", None)]),
        ("is there a white star", []),  # there will be one
        ("how many circles are there", []),
    ],
)
def test_names_in_a_question_are_traced_to_things(text, expected):
    found = [(end, number) for _, end, number in mentions(text, MOVING)]
    assert [number for _, number in found] == [number for _, number in expected]
    for (end, _), (name, _) in zip(found, expected, strict=True):
        assert text[:end].endswith(name)


def test_a_picture_beside_a_clip_is_a_square_as_ask_has_it():
    source = world_source("2-ov?size=400")
    beside = [source.sample(index) for index in range(400) if source.modality(index) == "video"]
    mixed = [sample for sample in beside if {visual.kind for visual in sample.visuals} != {"video"}]
    assert len(mixed) > 5
    assert all({visual.kind for visual in sample.visuals} == {"video", "pictures"} for sample in mixed)


def test_another_seed_is_other_data_to_a_resumed_run():
    assert world_source("2-ov").fingerprint == world_source("2-ov").fingerprint
    assert world_source("2-ov").fingerprint != world_source("2-ov?seed=1").fingerprint
