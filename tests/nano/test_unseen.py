"""What training never shows it must not deny either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.train_nano.dense import NO_NAME, NOTHING_FORM, dense_labels
from examples.train_nano.tokenizer import build_tokenizer
from examples.train_nano.unseen import (
    tinted,
    unseen_tokens,
    without,
    without_unseen_colours,
    without_unseen_forms,
)
from vidllava.nano.questions import WorldQuestion
from vidllava.nano.scene import COLOURS, FORMS, HELD_OUT, generator, still_scene

TOKENIZER = build_tokenizer()


@pytest.mark.parametrize(("colour", "form"), sorted(HELD_OUT))
def test_a_form_never_shown_in_a_colour_is_no_choice_there_and_the_other_way_round(colour, form):
    colour_id, form_id = list(COLOURS).index(colour), FORMS.index(form)
    forms = without_unseen_forms(torch.zeros(1, len(FORMS) + 1), torch.tensor([colour_id]))
    assert torch.isinf(forms[0]).nonzero().flatten().tolist() == [form_id]
    colours = without_unseen_colours(torch.zeros(1, len(COLOURS) + 1), torch.tensor([form_id]))
    assert torch.isinf(colours[0]).nonzero().flatten().tolist() == [colour_id]


def test_nothing_is_taken_out_where_there_is_nothing_or_a_shade_without_a_name():
    given = torch.tensor([NO_NAME, len(COLOURS), list(COLOURS).index("red")])
    assert torch.isfinite(without_unseen_forms(torch.zeros(3, len(FORMS) + 1), given)).all()
    assert torch.isfinite(without(torch.zeros(1, 4), torch.tensor([-1]))).all()


@pytest.mark.parametrize(
    ("kind", "asked", "answer", "taken"),
    [
        ("happens", "what happens", "The green circle grows.", {"circle": " star"}),
        ("caption", "what is there", "A blue moon.", {"moon": " ring"}),
        ("who", "what moves", "the purple number 3", {"number": " moon"}),
        ("shape", "what is the orange thing", "circle", {"circle": "triangle"}),
        ("colour", "which colour is the cross", "red", {"red": "cyan"}),
        ("happens", "what happens", "The red star becomes blue.", {"blue": " green"}),
        ("event", "what does the red star do", "moves left", {}),
    ],
)
def test_the_word_that_would_make_a_combination_never_shown_is_no_choice(kind, asked, answer, taken):
    ids = tuple(TOKENIZER.encode(answer).ids)
    barred = unseen_tokens(TOKENIZER, WorldQuestion(kind, asked, answer), ids)
    found = {
        TOKENIZER.decode([token]).strip(): TOKENIZER.decode([bar])
        for token, bar in zip(ids, barred, strict=True)
        if bar >= 0
    }
    assert found == taken


def test_the_true_answer_is_always_a_choice_even_for_a_held_out_thing():
    ids = tuple(TOKENIZER.encode("The green star grows.").ids)
    barred = unseen_tokens(TOKENIZER, WorldQuestion("happens", "what happens", "The green star grows."), ids)
    assert all(token != bar for token, bar in zip(ids, barred, strict=True))


def test_tints_keep_clear_of_every_named_colour_and_carry_no_colour_label():
    named = np.array(list(COLOURS.values()), float)
    shades = 0
    for index in range(40):
        rng = generator("train", 3, index)
        scene = tinted(rng, still_scene(rng, "train", 2), 0.5)
        labels = dense_labels(scene, np.zeros(1), (np.arange(7) + 0.5) / 7)
        for thing in scene.things:
            if thing.tint is not None:
                shades += 1
                assert np.linalg.norm(named - np.array(thing.tint), axis=1).min() > 55
                mine = labels.form == FORMS.index(thing.form)
                assert set(labels.colour[mine]) <= {NO_NAME, *range(len(COLOURS))}
        if all(thing.tint is not None for thing in scene.things):
            assert set(labels.colour[labels.form != NOTHING_FORM]) == {NO_NAME}
    assert 20 < shades < 60
