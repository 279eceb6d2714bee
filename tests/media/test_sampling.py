"""Held frames, and what "evenly" means: in time, or by index; the same at a constant rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.test_timeline import LAWS, TOLERANCE, constant, counts, gaps_ms, plan, rules, times_of
from vidllava.errors import UsageError
from vidllava.media.frames import FramePlan
from vidllava.media.timeline import SamplingRequest, plan_frames

HELD = np.array([0.0, 1.0, 2.0, 62.0])  # a still from 2 s to 62 s


def test_a_range_inside_a_held_frame_is_that_frame():
    found = plan(HELD, start_seconds=30, end_seconds=40)
    assert (found.indices, found.instants_seconds, found.timestamps_seconds) == ((2,), (2.0,), (2.0,))
    assert plan(np.array([0.0, 1.0, 2.0]), start_seconds=1.2, end_seconds=1.3).indices == (1,)


def test_the_frame_on_screen_at_the_start_of_a_range_is_its_first():
    assert plan(HELD, start_seconds=30, end_seconds=63).indices == (2, 3)
    assert plan(HELD, start_seconds=30, num_frames=1).indices == (2,)
    assert plan(constant(300, 30), start_seconds=1.01, end_seconds=1.1).indices == (30, 31, 32)


def test_the_instants_of_a_rate_are_counted_from_the_start_and_the_first_shows_what_is_on_screen():
    found = plan(HELD, start_seconds=30, end_seconds=63, fps=1)
    assert (found.indices, found.instants_seconds) == ((2, 3), (30.0, 62.0))
    lapse = np.arange(10) * 10.0
    found = plan(lapse, start_seconds=15, fps=0.1)
    assert found.indices == tuple(range(1, 9))  # the last frame, at 90 s, is none that is held
    assert found.instants_seconds == (15, 25, 35, 45, 55, 65, 75, 85)
    found = plan(constant(300, 30), start_seconds=0.55, end_seconds=3, fps=1)
    assert found.instants_seconds == pytest.approx((0.55, 1.55, 2.55))
    assert found.indices == (16, 46, 76)


def test_a_rate_meets_the_last_frame_of_a_range_while_it_is_held():
    found = plan(HELD, end_seconds=40, fps=0.3)
    assert (found.indices, found.instants_seconds) == ((0, 2), pytest.approx((0.0, 10 / 3)))
    found = plan_frames(HELD, SamplingRequest(fps=0.015), source="clip.mp4", duration_seconds=90.0)
    assert found.indices == (0, 3)
    found = plan_frames(HELD, SamplingRequest(fps=0.015), source="clip.mp4", duration_seconds=66.0)
    assert found.indices == (0,)  # the second instant is 66.7 s


def test_the_last_frame_is_held_until_the_clips_end_and_no_longer():
    request = SamplingRequest(start_seconds=65.0)
    assert plan_frames(HELD, request, source="clip.mp4", duration_seconds=70.0).indices == (3,)
    with pytest.raises(UsageError, match=r"after the last frame at 62.000 s, shown until 65.000 s"):
        plan_frames(HELD, request, source="clip.mp4", duration_seconds=65.0)
    # Without the clip's duration its last frame lasts as long as frames usually do: here 1 s.
    assert plan(HELD, start_seconds=62.5).indices == (3,)
    with pytest.raises(UsageError, match=r"shown until 63.000 s"):
        plan(HELD, start_seconds=63.5)


def test_frames_of_one_stamp_all_belong_to_a_range_that_starts_there():
    tied = np.array([0.0, 1.0, 1.0, 2.0])
    assert plan(tied, start_seconds=1.0).indices == (1, 2, 3)
    assert plan(tied, start_seconds=1.5).indices == (2, 3)
    assert plan(tied, fps=1).indices == (0, 2, 3)


UNEVEN = np.concatenate([np.arange(20) / 10, np.arange(2.0, 10.0)])  # 2 s of 10 fps, then one a second


def test_evenly_is_even_in_time_and_by_index_where_that_is_asked_for():
    found = plan(UNEVEN, num_frames=4)
    assert found.timestamps_seconds == (0.0, 3.0, 6.0, 9.0)
    assert (found.sampling, found.reason) == (
        "time",
        "4 of the 28 frames of the whole clip, evenly in time, both ends",
    )
    found = plan(UNEVEN, num_frames=4, sampling="index")
    assert found.timestamps_seconds == pytest.approx((0.0, 0.9, 1.8, 9.0))
    assert (found.sampling, found.reason) == (
        "index",
        "4 of the 28 frames of the whole clip, evenly by index, both ends",
    )
    middles = SamplingRequest(num_frames=2, rule="midpoints")
    found = plan_frames(UNEVEN, middles, source="clip.mp4", duration_seconds=10.0)
    assert found.instants_seconds == (2.5, 7.5)
    assert found.timestamps_seconds == (2.0, 7.0)
    assert plan(UNEVEN, num_frames=2, rule="midpoints", sampling="index").indices == (7, 21)


def test_a_plan_says_which_rule_it_followed():
    assert plan(UNEVEN, fps=1).sampling == "fps"
    assert plan(UNEVEN).sampling == plan(UNEVEN, num_frames=99).sampling == "all"
    assert plan(UNEVEN, fps=10, max_frames=3).sampling == "time"
    assert plan(UNEVEN, fps=10, max_frames=3, sampling="index").sampling == "index"
    old = {"instants_seconds": [0.0], "indices": [0], "timestamps_seconds": [0.0], "reason": "a plan of old"}
    assert FramePlan.from_json(old).sampling == ""


def test_a_range_that_cuts_a_held_frame_is_even_over_what_is_seen_of_it():
    times = np.concatenate([[0.0, 2.0], 31 + np.arange(300) / 10])
    found = plan(times, start_seconds=30, end_seconds=61, num_frames=4)
    assert found.instants_seconds == pytest.approx((30, 40.3, 50.6, 60.9))
    assert found.timestamps_seconds == pytest.approx((2, 40.3, 50.6, 60.9))
    assert "its first frame is on screen since 2.000 s" in found.reason
    # Midpoints: what is seen ends with the range, not with a frame that is held beyond it.
    times = np.concatenate([np.arange(11.0), [100.0]])
    found = plan(times, end_seconds=20, num_frames=2, rule="midpoints")
    assert found.instants_seconds == (5.0, 15.0)
    assert found.indices == (5, 10)


def test_a_held_frame_counts_once_and_the_longest_stretches_make_up_the_number():
    # 0, 3 and 6 s show frame 0, 27 (held) and 27 again, 9 s frame 28.
    times = np.concatenate([np.arange(28) / 10, [9.0]])
    found = plan(times, num_frames=4)
    assert found.indices == (0, 13, 27, 28)
    assert found.instants_seconds == pytest.approx((0.0, 1.3, 3.0, 9.0))
    assert "(3 frames are on screen at 4 instants, 1 lie between them)" in found.reason
    found = plan(times, num_frames=6)
    assert found.indices == (0, 4, 9, 18, 27, 28)


def test_a_held_frame_at_an_end_leaves_its_place_to_the_frame_furthest_off():
    middles = SamplingRequest(num_frames=3, rule="midpoints")  # 33, 100 and 167 s of 200
    for times, indices in (([0, 1, 2, 3, 4, 100], (0, 4, 5)), ([0, 100, 196, 197, 198, 199], (0, 1, 5))):
        found = plan_frames(np.array(times, float), middles, source="clip.mp4", duration_seconds=200.0)
        assert found.indices == indices


@LAWS
@given(
    st.integers(1, 400),
    st.sampled_from([1, 5, 10, 12.5, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120]),
    counts,
    rules,
    st.none() | st.floats(0.0, 3.0),
    st.none() | st.floats(0.05, 5.0),
)
def test_constant_rate_law_time_and_index_take_the_same_frames(count, rate, wanted, rule, start, length):
    exact = constant(count, rate)
    part = {"start_seconds": start, "end_seconds": None if length is None else (start or 0.0) + length}
    for times in (exact, np.round(exact, 3), np.floor(exact * 1000) / 1000):
        if start is not None and start > times[-1]:
            continue
        found = [
            plan(times, num_frames=wanted, rule=rule, sampling=each, **part) for each in ("time", "index")
        ]
        assert found[0].indices == found[1].indices
        whole = plan(times, num_frames=wanted, rule=rule)
        guess = np.linspace(0, count - 1, wanted, dtype=np.int64)
        if rule == "linspace" and wanted < count:
            assert whole.indices == tuple(guess)


@LAWS
@given(gaps_ms, counts, rules, st.none() | st.integers(1, 90_000))
def test_time_law_each_frame_is_on_screen_at_its_instant(gaps, wanted, rule, start_ms):
    times = times_of(gaps)
    start = None if start_ms is None else min(start_ms / 1000, float(times[-1]))
    found = plan(times, num_frames=wanted, rule=rule, start_seconds=start)
    ends = np.append(times[1:], np.inf)
    for index, instant in zip(found.indices, found.instants_seconds, strict=True):
        assert times[index] - TOLERANCE <= instant < ends[index] + TOLERANCE
    inside = plan(times, start_seconds=start).indices
    assert set(found.indices) <= set(inside)
    assert len(found) == min(wanted, len(inside))
