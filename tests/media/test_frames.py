"""The values that travel: validated when made, printable, savable."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidllava.media.frames import FrameBatch, FramePlan

PLAN = FramePlan((0.0, 0.5), (0, 15), (0.0, 0.5), "two frames")


def batch(**changes) -> FrameBatch:
    fields = {
        "pixels": np.zeros((2, 4, 6, 3), np.uint8),
        "timestamps_seconds": np.array([0.0, 0.5]),
        "plan": PLAN,
    }
    return FrameBatch(**{**fields, **changes})


def test_a_batch_prints_shapes_and_times_not_pixels():
    assert repr(batch()) == "FrameBatch(pixels=uint8[2, 4, 6, 3], 0.000-0.500 s, pyav)"
    assert len(batch()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": np.zeros((2, 4, 6, 3), np.float32)},
        {"pixels": np.zeros((2, 3, 4, 6), np.uint8)},
        {"pixels": np.zeros((3, 4, 6, 3), np.uint8)},
        {"timestamps_seconds": np.zeros(2, np.float32)},
        {"timestamps_seconds": np.zeros(3)},
        {"plan": FramePlan((0.0,), (0,), (0.0,), "one")},
    ],
)
def test_a_batch_that_does_not_fit_together_is_not_made(changes):
    with pytest.raises(ValueError, match=r"uint8|float64"):
        batch(**changes)


@pytest.mark.parametrize(
    ("instants", "indices", "times"),
    [
        ((), (), ()),
        ((0.0,), (0, 1), (0.0, 1.0)),
        ((0.0, 1.0), (3, 2), (0.0, 1.0)),
        ((0.0,), (-1,), (0.0,)),
        ((math.nan,), (0,), (0.0,)),
        ((0.0,), (0,), (math.inf,)),
    ],
)
def test_a_plan_that_makes_no_sense_is_not_made(instants, indices, times):
    with pytest.raises(ValueError, match=r"plan|indices|finite"):
        FramePlan(instants, indices, times, "")


def test_json_without_a_field_is_refused():
    with pytest.raises(KeyError):
        FramePlan.from_json({"indices": [0]})
