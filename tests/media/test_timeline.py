"""Which frames does a plan take? Published examples, laws over random clips, and every refusal."""

from __future__ import annotations

import bisect
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.errors import UsageError
from vidllava.media.frames import FramePlan
from vidllava.media.timeline import CLOCK_TOLERANCE_SECONDS as TOLERANCE
from vidllava.media.timeline import SamplingRequest, parse_rate, parse_time, plan_frames

LAWS = settings(max_examples=150, deadline=None, derandomize=True, database=None)

# Gaps of whole milliseconds: what any container can store.
gaps_ms = st.lists(st.integers(1, 2000), min_size=0, max_size=80)
counts = st.integers(1, 100)
rules = st.sampled_from(["linspace", "midpoints"])


def times_of(gaps: list[int]) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(gaps)]) / 1000.0


def plan(times: np.ndarray, **request: object) -> FramePlan:
    return plan_frames(times, SamplingRequest(**request), source="clip.mp4")  # type: ignore[arg-type]


def constant(num_frames: int, rate: float) -> np.ndarray:
    return np.arange(num_frames) / rate


def test_linspace_is_llavas_rule():
    assert plan(constant(300, 30), num_frames=8).indices == (0, 42, 85, 128, 170, 213, 256, 299)


def test_midpoints_take_the_middle_of_each_part():
    assert plan(constant(300, 30), num_frames=4, rule="midpoints").indices == (37, 112, 187, 262)
    assert plan(constant(5, 30), num_frames=5, rule="midpoints").indices == (0, 1, 2, 3, 4)


def test_one_frame_of_linspace_is_the_first_and_of_midpoints_the_middle():
    assert plan(constant(9, 30), num_frames=1).indices == (0,)
    assert plan(constant(9, 30), num_frames=1, rule="midpoints").indices == (4,)


def test_a_rate_takes_the_frame_on_screen_at_each_instant():
    found = plan(constant(300, 30), fps=2)
    assert found.indices == tuple(range(0, 300, 15))
    assert found.instants_seconds == pytest.approx([k / 2 for k in range(20)], abs=1e-12)
    # 12.5 fps: at 0.5 s frame 6 (0.48 s) is still on screen, frame 7 starts at 0.56 s.
    assert plan(constant(13, 12.5), fps=2).indices == (0, 6)


def test_a_rate_on_a_clip_of_29_97_gives_true_times_not_index_over_rate():
    times = np.arange(290) * 1001 / 30000
    found = plan(times, fps=1)
    # Frame 30 starts 1.0 ms after the instant 1 s: within the clocks' tolerance. At 2 s it is 2 ms late.
    assert found.indices == (0, 30, 59, 89, 119, 149, 179, 209, 239, 269)
    assert found.timestamps_seconds[9] == pytest.approx(269 * 1001 / 30000, abs=1e-12)


def test_a_frozen_screen_is_taken_once_and_said():
    found = plan(np.array([0.0, 1.0, 2.0, 7.0]), fps=1)
    assert found.indices == (0, 1, 2, 3)
    assert "of 8 instants" in found.reason


def test_a_huge_rate_is_every_frame_at_no_cost():
    found = plan(constant(20_000, 30), fps=1e12)
    assert found.indices == tuple(range(20_000))


def test_fewer_frames_than_asked_are_all_of_them_without_duplicates():
    found = plan(constant(3, 30), num_frames=8)
    assert found.indices == (0, 1, 2)
    assert "8 asked" in found.reason


def test_a_cap_spreads_anew_over_the_same_range():
    found = plan(constant(300, 30), fps=10, max_frames=4, start_seconds=1, end_seconds=2)
    assert found.indices == (30, 39, 49, 59)
    assert "--max-frames 4" in found.reason
    assert plan(constant(300, 30), num_frames=8, max_frames=4).indices == (0, 99, 199, 299)
    assert plan(constant(300, 30), max_frames=4).indices == (0, 99, 199, 299)
    assert plan(constant(300, 30), fps=1, max_frames=40).indices == tuple(range(0, 300, 30))


def test_no_count_and_no_rate_is_every_frame():
    assert plan(constant(5, 30)).indices == (0, 1, 2, 3, 4)


def test_a_range_is_half_open():
    found = plan(constant(300, 30), start_seconds=1.0, end_seconds=2.0)
    assert (found.indices[0], found.indices[-1]) == (30, 59)


def test_an_end_beyond_the_clip_is_the_clips_end_and_said():
    found = plan(constant(30, 30), num_frames=2, end_seconds=100.0)
    assert found.indices == (0, 29)
    assert "the last frame is at 0.967 s" in found.reason


@LAWS
@given(gaps_ms, counts, rules)
def test_count_law_sorted_distinct_and_exactly_as_many_as_there_can_be(gaps, count, rule):
    times = times_of(gaps)
    found = plan(times, num_frames=count, rule=rule)
    assert len(found) == min(count, len(times))
    assert all(a < b for a, b in zip(found.indices, found.indices[1:], strict=False))
    assert found.timestamps_seconds == tuple(times[list(found.indices)])
    if rule == "linspace" and count > 1:
        assert (found.indices[0], found.indices[-1]) == (0, len(times) - 1)


@LAWS
@given(
    gaps_ms, st.floats(0.05, 200.0), st.none() | st.integers(1, 20), st.integers(0, 40), st.integers(1, 90)
)
def test_range_law_every_frame_lies_inside_and_the_cap_holds(gaps, fps, cap, first, length):
    times = times_of(gaps)
    first = min(first, len(times) - 1)
    start, end = float(times[first]), float(times[first]) + length
    found = plan(times, fps=fps, max_frames=cap, start_seconds=start, end_seconds=end)
    inside = [index for index, time in enumerate(times) if start - TOLERANCE <= time < end - TOLERANCE]
    assert set(found.indices) <= set(inside)
    assert all(a < b for a, b in zip(found.indices, found.indices[1:], strict=False))
    assert len(found) <= min(cap or math.inf, len(inside))


@LAWS
@given(gaps_ms, st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 7.5, 24.0, 90.0]))
def test_rate_law_equals_walking_instant_by_instant(gaps, fps):
    times = times_of(gaps)
    walked: list[int] = []
    for k in range(math.floor((times[-1] + TOLERANCE) * fps) + 1):
        on_screen = bisect.bisect_right(times, k / fps + TOLERANCE) - 1
        if [on_screen] != walked[-1:]:
            walked.append(on_screen)
    assert list(plan(times, fps=fps).indices) == walked


@LAWS
@given(gaps_ms, st.integers(1, 90_000))
def test_two_adjacent_ranges_lose_no_frame_and_share_only_the_one_that_the_cut_goes_through(gaps, cut_ms):
    times = times_of(gaps)
    cut = cut_ms / 1000
    before = plan(times, end_seconds=cut).indices
    try:
        after = plan(times, start_seconds=cut).indices
    except UsageError:
        assert cut > times[-1]
        after = ()
    assert sorted({*before, *after}) == list(range(len(times)))
    shared = set(before) & set(after)
    assert len(shared) <= 1
    assert all(times[index] < cut - TOLERANCE or index == 0 for index in shared)


@LAWS
@given(
    st.integers(1, 200),
    st.sampled_from([24, 25, 30, 50, 60]),
    st.sampled_from([0.5, 1.0, 2.0, 4.0, 5.0, 8.0]),
    st.integers(0, 8),
)
def test_container_law_milliseconds_and_exact_ticks_give_the_same_frames(count, rate, fps, quarter):
    exact = constant(count, rate)
    milliseconds = np.round(exact, 3)
    start = quarter / 4 if quarter / 4 < exact[-1] else None
    for request in ({"fps": fps}, {"num_frames": 8}, {"num_frames": 5, "rule": "midpoints"}):
        assert (
            plan(exact, start_seconds=start, **request).indices
            == plan(milliseconds, start_seconds=start, **request).indices
        )


def test_a_plan_survives_json():
    found = plan(constant(300, 29.97), num_frames=8)
    assert FramePlan.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"num_frames": 0}, "--num-frames: must be a whole number of at least 1, got 0"),
        ({"num_frames": -3}, "--num-frames: must be a whole number of at least 1, got -3"),
        ({"num_frames": 2.5}, "--num-frames: must be a whole number of at least 1, got 2.5"),
        ({"max_frames": 0}, "--max-frames: must be a whole number of at least 1, got 0"),
        ({"fps": 0.0}, "--fps: must be a number above 0, got 0.0"),
        ({"fps": math.nan}, "--fps: must be a number above 0, got nan"),
        ({"fps": -1.0}, "--fps: must be a number above 0, got -1.0"),
        ({"fps": 1.0, "num_frames": 8}, "--fps: excludes --num-frames 8"),
        ({"start_seconds": -1.0}, "--start: must be 0 s or later, got -1.0"),
        ({"end_seconds": math.inf}, "--end: must be 0 s or later, got inf"),
        ({"start_seconds": 5.0, "end_seconds": 2.0}, "--end: 2 s must be after --start 5 s"),
        ({"end_seconds": 0.0}, "--end: 0 s must be after --start 0 s"),
        ({"rule": "random"}, "--rule: 'random' is unknown"),
        ({"sampling": "random"}, "--sampling: 'random' is unknown"),
    ],
)
def test_a_request_that_cannot_be_meant_names_flag_value_and_bound(request_, message):
    with pytest.raises(UsageError) as caught:
        SamplingRequest(**request_)
    assert str(caught.value).startswith(message)


def test_a_range_outside_the_clip_names_the_clip_and_its_end():
    with pytest.raises(UsageError, match=r"clip.mp4: --start 20 s is after the last frame at 9.967 s"):
        plan(constant(300, 30), start_seconds=20)


def test_a_cap_equal_to_the_count_changes_nothing():
    found = plan(constant(300, 30), fps=1, max_frames=10)
    assert found == plan(constant(300, 30), fps=1)
    assert found.reason == "1 fps over the whole clip: 10 frames"
    assert plan(constant(300, 30), num_frames=4, max_frames=4).reason.startswith("4 of the 300 frames")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("0", 0), (".5", 0.5), ("1:02.5", 62.5), ("75:10", 4510), ("1:02:03", 3723), (" 7 ", 7)],
)
def test_times_are_seconds_minutes_or_hours(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "-1",
        "1:75",
        "1:60",
        "1:60:00",
        "1:75:00",
        "1:2:3:4",
        "nan",
        "1e3",
        "1,5",
        "٣",
        "9" * 400,
        f"{'9' * 5000}:00",
    ],
)
def test_anything_else_is_not_a_time(text):
    with pytest.raises(UsageError):
        parse_time(text)


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        *[("2", 2.0), ("0.5", 0.5), (".5", 0.5), (" 30000/1001 ", 30000 / 1001), ("1e3", 1000.0), (25, 25.0)],
        *[("1 / 2", 0.5), ("1.5/3", 0.5), (0.1, 0.1), ("1e12", 1e12), ("1e-12", 1e-12), (10**12, 1e12)],
    ],
)
def test_a_rate_is_a_number_or_a_fraction(value, rate):
    assert parse_rate(value) == rate


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            "fast",
            "1/0",
            "0/1",
            "1/2/3",
            "/2",
            "2/",
            "-1",
            "nan",
            "inf",
            "nan/1",
            "1/inf",
            "1_0",
            "٣",
            "2 3",
        ],
        *[
            "1e308",
            "1e308/1e-308",
            "1.001e12",
            "0.999e-12",
            0,
            -1,
            True,
            None,
            [1],
            10**400,
            math.inf,
            math.nan,
        ],
    ],
)
def test_anything_else_is_not_a_rate(value):
    with pytest.raises(UsageError) as caught:
        parse_rate(value, "`fps`")
    assert str(caught.value).startswith("`fps`: ")
    assert str(caught.value).endswith("(for example 1, 0.5 or 30000/1001)")


@pytest.mark.parametrize("request_", [{"fps": 1e308}, {"fps": 1e-300}, {"start_seconds": 10**400}])
def test_numbers_beyond_all_clips_are_refused_and_not_computed_with(request_):
    with pytest.raises(UsageError):
        SamplingRequest(**request_)


def test_nearest_key_frames_are_taken_once_each_and_how_far_off_they_are_is_said():
    times = np.arange(100) / 10
    request = SamplingRequest(num_frames=5, keyframes="nearest")
    plan = plan_frames(times, request, source="clip", key_frames=np.array([0, 30, 60]))
    assert plan.indices == (0, 30, 60)
    assert plan.timestamps_seconds == (0.0, 3.0, 6.0)
    # Asked for: 0, 2.4, 4.9, 7.4, 9.9 s; the last is 3.9 s from the last key frame.
    assert plan.reason.endswith("the nearest key frames instead, 3 of them once each, up to 3.90 s off")


def test_a_range_without_a_key_frame_is_refused_when_key_frames_are_asked_for():
    request = SamplingRequest(num_frames=5, start_seconds=3.5, end_seconds=5.5, keyframes="nearest")
    with pytest.raises(UsageError, match=r"no frame of 3\.5 s to 5\.5 s can be decoded alone"):
        plan_frames(np.arange(100) / 10, request, source="clip", key_frames=np.array([0, 30, 60]))


def test_of_two_key_frames_equally_near_the_earlier_is_taken():
    request = SamplingRequest(fps=0.5, keyframes="nearest")  # at 0, 2 and 4 s
    found = plan_frames(np.arange(6.0), request, source="clip", key_frames=np.array([1, 3, 5]))
    assert found.indices == (1, 3)
    found = plan_frames(np.arange(6.0), request, source="clip", key_frames=np.array([0, 4]))
    assert found.indices == (0, 4)


@LAWS
@given(st.integers(1, 200), st.data())
def test_nearest_key_frames_are_key_frames_of_the_range_in_order(count, data):
    keys = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    times = np.arange(count) / 10
    within = data.draw(st.sampled_from([0.0, 0.05])) if count > 1 else 0.0
    start = data.draw(st.integers(0, count - 1)) / 10 + within
    end = start + data.draw(st.integers(1, 10 * count)) / 10
    how = data.draw(st.sampled_from([{"num_frames": 1}, {"num_frames": 7}, {"fps": 2.0}]))
    request = SamplingRequest(**how, start_seconds=start, end_seconds=end, keyframes="nearest")
    inside = set(plan(times, start_seconds=start, end_seconds=end).indices) & set(keys.tolist())
    if not inside:
        with pytest.raises(UsageError, match="can be decoded alone"):
            plan_frames(times, request, source="clip", key_frames=keys)
        return
    found = plan_frames(times, request, source="clip", key_frames=keys)
    assert set(found.indices) <= inside
    assert list(found.indices) == sorted(set(found.indices))
    for instant in found.instants_seconds:  # each is shown by a key frame as near as any in the range
        nearest = min(abs(times[key] - instant) for key in inside)
        assert any(abs(times[key] - instant) == nearest for key in found.indices)
