"""Shares have the intervals of the textbooks, failures are never in a denominator in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidllava.evaluation.summary import Outcome, share, summarise, wilson


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval(right: int, number: int, low: float, high: float):
    assert wilson(right, number) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 5000), st.data())
def test_the_interval_holds_the_share_and_stays_within_bounds(number: int, data: st.DataObject):
    right = data.draw(st.integers(0, number))
    low, high = wilson(right, number)
    assert 0.0 <= low <= right / number <= high <= 1.0


def test_scores_that_are_no_shares_have_the_interval_of_a_mean():
    found = share([0.2, 0.4, 0.6])
    assert found.mean == pytest.approx(0.4)
    assert found.high is not None
    assert found.high - 0.4 == pytest.approx(1.959964 * 0.2 / 3**0.5)


def test_failures_are_columns():
    right, wrong = Outcome("ok", 1.0, (("kind", "a"),)), Outcome("ok", 0.0, (("kind", "b"),))
    failed = Outcome("decode_error", None, (("kind", "b"),))
    found = summarise([right, wrong, Outcome("unparsed", 0.0, (("kind", "a"),)), failed])
    cell = found.overall
    assert (cell.total, cell.statuses["ok"], cell.statuses["unparsed"], cell.statuses["decode_error"]) == (
        *(4, 2),
        *(1, 1),
    )
    assert (cell.answered.number, cell.answered.mean) == (3, pytest.approx(1 / 3))
    assert (cell.of_all.number, cell.of_all.mean) == (4, 0.25)
    assert found.groups["kind"]["b"].answered.mean == 0.0
    assert found.groups["kind"]["b"].statuses["decode_error"] == 1


def test_without_every_score_there_is_no_share_of_all():
    found = summarise([Outcome("ok", 1.0), Outcome("ok", None)]).overall
    assert (found.unscored, found.answered.number, found.of_all.mean) == (1, 1, None)
    assert summarise([]).overall.answered.mean is None


def test_values_are_in_their_own_order_and_measurements_are_no_groups():
    names = ("60 to 180", "8 to 16", "whole", "0.5 s")
    found = summarise([Outcome("ok", 1.0, (("length", name),)) for name in names])
    assert list(found.groups["length"]) == ["0.5 s", "8 to 16", "60 to 180", "whole"]
    many = summarise([Outcome("ok", 1.0, (("seconds", str(n)),)) for n in range(61)])
    assert (many.groups, many.notes) == ({}, ("seconds: 61 values, no table",))


def test_who_says_nothing_of_a_group_has_a_line_of_his_own():
    found = summarise([Outcome("ok", 1.0, (("category", "motion"),)), Outcome("ok", 0.0, ())])
    assert {name: cell.total for name, cell in found.groups["category"].items()} == {"motion": 1, "(none)": 1}
