"""A run, as a program calls it: on the CPU, and with a stand-in for CUDA that has no speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.bench.fake_cuda import Device
from vidllava.bench import clock, kernels
from vidllava.bench.kernel_cases import KernelRequest
from vidllava.bench.kernels import KernelBench, copying, peak_bytes

QUICK = {"models": ("nano",), "num_frames": (1,), "odd": False, "share": False, "num_samples": 4}


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1, 2, 1000, 1001])
def test_a_copy_moves_as_many_bytes(size: int):
    target = copying(size, torch.device("cpu"))()
    assert isinstance(target, torch.Tensor)
    assert target.numel() == max(size // 2, 1)
    assert bool((target == 1).all())


def test_as_many_rows_come_as_were_promised_and_known_ones_are_none(monkeypatch: pytest.MonkeyPatch):
    # A commit in between would make them other rows.
    monkeypatch.setattr(kernels, "conditions", lambda device, threads: {"commit": "abc"})
    request = KernelRequest(**QUICK, directions=("forward", "both"), row_seconds=0.1)
    bench = KernelBench(request, torch.device("cpu"))
    rows = [row for row in bench.rows(frozenset()) if row is not None]
    assert len(rows) == bench.num_rows == 4
    assert len({row["key"] for row in rows}) == 4
    known = frozenset(row["key"] for row in rows[:2])
    # A plan that was used before is timed beside, where there is a plan to be looked at.
    assert [row["known_plan_p50_ms"] is not None for row in rows] == [True, True, False, False]
    again = list(KernelBench(request, torch.device("cpu")).rows(known))
    assert [row is None for row in again] == [True, True, False, False]
    assert [row["key"] for row in again[2:] if row] == [row["key"] for row in rows[2:]]


def test_threads_decide_the_clock():
    for threads, expected in ((1, "process"), (2, "wall")):
        request = KernelRequest(**QUICK, threads=threads, kernels=("rotate",), row_seconds=0.1)
        row = next(KernelBench(request, torch.device("cpu")).rows(frozenset()))
        assert row is not None
        assert (row["clock"], row["threads"]) == (expected, threads)
        assert torch.get_num_threads() == threads


def test_on_cuda_ours_stands_in_a_graph_and_what_waits_between_events(monkeypatch: pytest.MonkeyPatch):
    request = KernelRequest(**QUICK, directions=("forward", "backward", "both"))
    bench = KernelBench(request, torch.device("cpu"))
    device = Device.instead_of_cuda(monkeypatch)
    bench._stream = device.stream
    monkeypatch.setattr(clock, "COLD_BYTES", 1 << 20)
    monkeypatch.setattr(kernels, "GIBIBYTE", 1 << 10)
    monkeypatch.setattr(clock, "CUDA_WARM_UPS", 2)
    plain = kernels.call_of

    def ticking(path, direction, inputs):
        """Each call lasts 2 ms on the made-up clock; in a graph 1 ms."""
        call = plain(path, direction, inputs)

        def run() -> object:
            if device.capturing is None:
                device.now += 2.0
            else:
                device.capturing.ms += 1.0
            return call()

        return run

    def ticking_copy(num_bytes, place):
        call = copying(num_bytes, place)
        return ticking(lambda leaves: (call(),), "forward", kernels.Inputs((), ()))

    monkeypatch.setattr(kernels, "call_of", ticking)
    monkeypatch.setattr(kernels, "copying", ticking_copy)
    rows = [row for row in bench.rows(frozenset()) if row is not None]
    assert len(rows) == 6
    for row in rows:
        assert (row["clock"], row["p50_ms"], row["copy_share"], row["num_samples"]) == ("graph", 1.0, 1.0, 4)
        assert row["other_clocks"]["events"]["p50_ms"] == 2.0
        assert row["ratio_transformers"] == 1.0
        assert row["num_buffer_sets"] > 1
        assert row["peak_extra_bytes"] == 60
        assert row["device_copy_gb_per_second"] > 0
        rotates = row["kernel"] == "rotate"
        assert ("graph" in row["baselines"]["transformers"]) == rotates
        assert row["hot_p50_ms"] == (1.0 if rotates else None)


def test_the_peak_is_what_a_call_adds(monkeypatch: pytest.MonkeyPatch):
    Device.instead_of_cuda(monkeypatch)
    called = []
    assert peak_bytes(lambda: called.append(1)) == 60
    assert called == [1]
