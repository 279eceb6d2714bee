"""Samples are interleaved and bounded, their quantiles right; clocks are made up, so nothing is timed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.bench.fake_cuda import Device
from vidllava.bench import clock


class Clock:
    """A made-up clock: calls move it."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, []

    def call(self, name: str, seconds: float):
        def run() -> None:
            self.order.append(name)
            self.now += seconds

        return run


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    stand_in = SimpleNamespace(perf_counter=lambda: one.now, process_time=lambda: one.now / 2)
    monkeypatch.setattr(clock, "time", stand_in)
    return one


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_quantiles_are_numpys(share: float, size: int):
    values = np.random.default_rng(size).normal(size=size)
    assert clock.quantile(values.tolist(), share) == pytest.approx(np.quantile(values, share))


def test_each_clock_is_read_in_milliseconds(made_up: Clock):
    times = clock.time_on_cpu({"slow": made_up.call("slow", 0.25)}, num_samples=8, seconds=9)
    assert times["slow"]["wall"] == clock.Timing(250.0, 250.0, 250.0, 8)
    assert times["slow"]["process"] == clock.Timing(125.0, 125.0, 125.0, 8)


def test_calls_are_taken_in_turn_and_each_is_first_as_often(made_up: Clock):
    calls = {name: made_up.call(name, 0.01) for name in "abc"}
    clock.time_on_cpu(calls, num_samples=6, seconds=9)
    assert "".join(made_up.order[-18:]) == "abcbcacab" * 2


def test_a_slow_row_has_the_least_samples_and_no_more(made_up: Clock):
    times = clock.time_on_cpu({"a": made_up.call("a", 10.0)}, num_samples=100, seconds=1.0)
    assert times["a"]["wall"].num_samples == clock.LEAST_SAMPLES
    assert len(made_up.order) < clock.LEAST_SAMPLES + 5


def test_a_fast_call_is_repeated_within_a_sample(made_up: Clock):
    times = clock.time_on_cpu({"a": made_up.call("a", 1e-5)}, num_samples=10, seconds=9)
    assert times["a"]["wall"].p50_ms == pytest.approx(0.01)
    assert len(made_up.order) >= 10 * clock.SAMPLE_SECONDS / 1e-5


@pytest.mark.parametrize("size", [1, 1 << 20, 54_781_952, (256 << 20) - 1])
def test_buffers_together_are_larger_than_the_cache_or_as_many_as_may_be(size: int):
    number = clock.num_buffer_sets(size)
    assert number == clock.MOST_SETS or (number - 1) * size < clock.COLD_BYTES <= number * size
    assert 1 <= number <= clock.MOST_SETS


def test_buffers_that_are_larger_alone_are_one_set():
    assert clock.num_buffer_sets(256 << 20) == clock.num_buffer_sets(875 << 20) == 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device.instead_of_cuda(monkeypatch)


def test_a_graph_is_timed_for_one_call_and_without_its_launch(device: Device):
    calls = {"ours": [device.call(2.0, 0.5)] * 4, "copy": [device.call(1.0, 0.5)] * 4}
    times = clock.time_on_cuda(
        calls,
        captured=["ours", "copy"],
        launched=["ours"],
        num_samples=7,
        stream=device.stream,
    )
    assert times["ours"] == {
        "graph": clock.Timing(2.0, 2.0, 2.0, 7),
        "events": clock.Timing(2.5, 2.5, 2.5, 7),
    }
    assert times["copy"] == {"graph": clock.Timing(1.0, 1.0, 1.0, 7)}


def test_what_waits_for_the_host_is_timed_with_events(device: Device):
    calls = {"theirs": [device.call(2.0, 0.5, waits=True)] * 2}
    times = clock.time_on_cuda(
        calls,
        captured=["theirs"],
        launched=[],
        num_samples=3,
        stream=device.stream,
    )
    assert times["theirs"] == {"events": clock.Timing(2.5, 2.5, 2.5, 3)}
