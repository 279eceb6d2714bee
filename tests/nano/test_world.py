"""The world tells the truth: what is drawn, what is labelled and what is said are the same scene."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from examples.train_nano.dense import DEEDS, NOTHING_FORM, dense_labels
from vidllava.nano.draw import DISTANCES, REACH, draw, to_bytes, weather
from vidllava.nano.scene import (
    COLOURS,
    FORMS,
    GLYPHS,
    HELD_OUT,
    SHAPES,
    SPLITS,
    SYMMETRY,
    Deed,
    Scene,
    Split,
    Thing,
    changed_scene,
    clip_scene,
    generator,
    still_scene,
    views_scene,
)

MOMENTS = np.linspace(0.0, 1.0, 8)


def scenes(split: Split, count: int = 60, things: int = 3) -> list[Scene]:
    return [clip_scene(generator(split, 0, index), split, 1 + index % things) for index in range(count)]


def lone(form: str, **given: float) -> Scene:
    return Scene(things=(Thing(form=form, colour="red", x=0.5, y=0.5, radius=0.2, **given),))


def test_the_same_seed_gives_the_same_pixels():
    first, again = (
        weather(draw(clip_scene(rng, "train", 3), MOMENTS, 84), rng)
        for rng in (generator("train", 5, 9), generator("train", 5, 9))
    )
    np.testing.assert_array_equal(first, again)


def test_splits_seeds_and_indices_give_different_scenes():
    streams = [(split, seed, index) for split in SPLITS for seed in (0, 1) for index in (0, 1)]
    assert len({clip_scene(generator(*stream), "train", 2) for stream in streams}) == len(streams)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_held_out_combinations_are_never_shown_outside_their_split(split):
    for scene in scenes(split, 150):
        for thing in scene.things:
            assert not {(thing.colour, thing.form), (thing.deed.colour, thing.form)} & HELD_OUT


def test_every_scene_of_the_held_out_split_shows_a_held_out_combination():
    for scene in scenes("combos", 30):
        assert any((thing.colour, thing.form) in HELD_OUT for thing in scene.things)


def test_held_out_combinations_leave_each_colour_and_form_in_other_company():
    colours, forms = zip(*HELD_OUT, strict=True)
    assert len(set(colours)) == len(set(forms)) == len(HELD_OUT)
    assert set(forms) < set(SHAPES)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_stays_within_its_reach_and_covers_a_fair_part_of_it(form):
    axis = np.linspace(-1.6, 1.6, 161)
    u, v = np.meshgrid(axis, axis)
    inside = DISTANCES[form](u, v) < 0
    assert np.hypot(u, v)[inside].max() <= REACH
    assert 0.15 < inside.sum() / (np.hypot(u, v) < 1).sum() < 1.1


@pytest.mark.parametrize(("form", "order"), [(f, n) for f, n in SYMMETRY.items() if n > 1])
def test_a_form_looks_the_same_after_a_turn_of_its_symmetry_and_not_before(form, order):
    still, same, other = (
        draw(lone(form, angle=angle), np.zeros(1), 84) for angle in (0.0, 360 / order, 180 / order)
    )
    assert np.abs(still - same).mean() < 0.3
    assert np.abs(still - other).mean() > 1.0


def test_no_two_forms_look_alike_at_any_angle():
    """Nearest other drawing over all turns: at least an eighth of a form's pixels differ."""
    turned = {
        form: [draw(lone(form, angle=angle), np.zeros(1), 42)[0, :, :, 0] for angle in range(0, 360, 15)]
        for form in SHAPES
    }
    for form in SHAPES:
        size = (turned[form][0] > 120).sum()
        for other in SHAPES:
            if other != form:
                nearest = min(((turned[form][0] > 120) != (one > 120)).sum() for one in turned[other])
                assert nearest > size / 8, f"{form} and {other}"


def test_what_is_drawn_has_the_colour_and_place_that_the_track_says():
    for scene in scenes("val", 40):
        frames = draw(scene, MOMENTS, 84)
        for thing in scene.things:
            # Rings are hollow and glyphs thin: look at forms whose centre is filled.
            if thing.form not in ("circle", "square", "cross", "star"):
                continue
            track = thing.track(MOMENTS)
            for t in np.flatnonzero(track.alpha == 1):
                seen = frames[t, int(track.y[t] * 84), int(track.x[t] * 84)]
                if thing.deed.verb != "meets" and all(o.deed.verb != "meets" for o in scene.things):
                    np.testing.assert_allclose(seen, track.rgb[t], atol=1)


def test_small_and_large_drawings_agree():
    """One scene at 84 pixels and at 336 shrunk by a mean over 4 x 4: the same picture to within the edges."""
    for scene in scenes("val", 10):
        small = draw(scene, MOMENTS[:2], 84)
        large = draw(scene, MOMENTS[:2], 336).reshape(2, 84, 4, 84, 4, 3).mean((2, 4))
        assert np.abs(small - large).mean() < 0.5


def test_nothing_leaves_the_picture_and_nothing_hides_another():
    for scene in scenes("train", 120):
        tracks = [thing.track(MOMENTS) for thing in scene.things]
        for track in tracks:
            assert (track.x - track.radius > 0).all()
            assert (track.y + track.radius < 1).all()
        meeting = any(thing.deed.verb == "meets" for thing in scene.things)
        for number, one in enumerate(tracks):
            for other in tracks[:number]:
                gap = np.hypot(one.x - other.x, one.y - other.y) - one.radius - other.radius
                assert meeting or gap.min() > 0.02


def test_things_that_meet_touch_at_the_end_and_not_at_the_start():
    found = 0
    for scene in scenes("train", 200):
        for thing in scene.things:
            if thing.deed.verb == "meets":
                other = next(o for o in scene.things if o.name == thing.deed.partner)
                one, two = thing.track(MOMENTS), other.track(MOMENTS)
                gap = np.hypot(one.x - two.x, one.y - two.y) - one.radius - two.radius
                assert gap[0] > 0.1
                assert gap[-1] < 0
                found += 1
    assert found > 5


def test_every_deed_happens_often_enough_and_can_be_seen_between_first_and_last_frame():
    seen = Counter()
    for scene in scenes("train", 300):
        for thing in scene.things:
            seen[thing.deed.verb] += 1
            if thing.deed.verb in ("stays", "turns"):
                continue
            alone = Scene(things=(thing,), ground=scene.ground)
            first, last = draw(alone, np.array([0.0, 1.0]), 84)
            assert np.abs(first - last).max() > 40, thing
    assert min(seen[verb] for verb in DEEDS[5:]) > 10  # all but the four directions and "stays"
    assert seen["moves"] > 100


def test_a_turn_is_seen_and_ends_between_symmetric_positions():
    turning = [t for scene in scenes("train", 300) for t in scene.things if t.deed.verb == "turns"]
    assert {thing.form for thing in turning} <= {form for form, order in SYMMETRY.items() if order}
    for thing in turning:
        frames = draw(Scene(things=(thing,)), np.linspace(0, 1, 4), 84)
        assert max(np.abs(one - two).mean() for one, two in pairwise(frames)) > 0.5


def test_two_pictures_that_differ_show_exactly_one_deed():
    for index in range(60):
        scene = changed_scene(generator("train", 1, index), "train", 3)
        deeds = [thing.deed.verb for thing in scene.things if thing.deed.verb != "stays"]
        assert len(deeds) == 1
        assert deeds[0] != "turns"


def test_each_thing_of_a_wide_scene_is_whole_in_one_of_its_views():
    for index in range(40):
        scene, views = views_scene(generator("train", 2, index), "train", 3)
        for number, thing in enumerate(scene.things):
            places = [view.things[number].x for view in views]
            assert any(thing.radius < x < 1 - thing.radius for x in places)
            assert places[0] - places[1] == pytest.approx(0.5)


def test_names_within_a_scene_are_unique_even_after_a_change_of_colour():
    for scene in scenes("train", 200):
        names = [name for thing in scene.things for name in {thing.name, thing.last_name}]
        assert len(names) == len(set(names))


def test_facts_come_in_the_canonical_order():
    order = [f"{colour} {form}" for colour in COLOURS for form in FORMS]
    for scene in scenes("train", 40):
        places = [order.index(f"{thing.colour} {thing.form}") for thing in scene.things]
        assert places == sorted(places)
        assert scene.facts() == tuple(f"The {t.name} {t.deed.phrase()}." for t in scene.things)


def test_dense_labels_name_what_covers_the_cell_under_each_centre():
    centres = (np.arange(7) + 0.5) / 7
    for index in range(40):
        scene = still_scene(generator("val", 3, index), "val", 1 + index % 4, wild=True)
        labels = dense_labels(scene, np.zeros(1), centres)
        for thing in scene.things:
            row, column = int(thing.y * 7), int(thing.x * 7)
            assert FORMS[labels.form[0, row, column]] == thing.form
            assert tuple(COLOURS)[labels.colour[0, row, column]] == thing.colour
            np.testing.assert_allclose(
                labels.measures[0, row, column, :2], (2 * thing.x - 1, 2 * thing.y - 1), atol=1e-6
            )
        empty = labels.form == NOTHING_FORM
        assert 0.2 < empty.mean() < 1


def test_dense_deeds_say_only_what_has_happened_so_far():
    scene = Scene(
        things=(
            Thing(
                form="star",
                colour="red",
                x=0.3,
                y=0.5,
                radius=0.15,
                deed=Deed(verb="vanishes", start=0.5, end=0.5),
            ),
        )
    )
    labels = dense_labels(scene, np.array([0.0, 0.4, 1.0]), (np.arange(7) + 0.5) / 7)
    assert [DEEDS[deed] for deed in labels.deed[:, 3, 2]] == ["stays", "stays", "vanishes"]


def test_weather_keeps_the_picture_recognisable():
    for index in range(20):
        rng = generator("train", 4, index)
        clean = draw(clip_scene(rng, "train", 2), MOMENTS, 84)
        worn = weather(clean, rng)
        assert worn.dtype == np.uint8
        assert worn.shape == clean.shape
        assert np.abs(worn - to_bytes(clean).astype(float)).mean() < 6


def test_glyphs_are_never_turned():
    for scene in scenes("train", 100):
        assert all(thing.angle == 0 for thing in scene.things if thing.form in GLYPHS)
