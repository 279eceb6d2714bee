"""The checks and times of both kernels on this machine, a row for each shape, dtype and direction.

    bench = KernelBench(KernelRequest(models=("nano",)), torch.device("cpu"))
    for row in bench.rows(done=frozenset()):
        ...

Correctness first: a row whose result is wrong has no time. Then ours, transformers' own operation, whatever
else can be imported and a copy of as many bytes are timed in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import torch

from vidllava.backbone.load import DTYPES, choose_dtype, choose_kernels
from vidllava.backbone.memory import free_bytes
from vidllava.bench import clock
from vidllava.bench.check import CheckResult, check, no_sync, same_work
from vidllava.bench.clock import Times, time_on_cpu
from vidllava.bench.kernel_cases import Case, Direction, KernelRequest, bytes_moved, cases, why_skipped
from vidllava.bench.kernel_rows import Measured, Row, Subject, to_row
from vidllava.bench.models import Prefills
from vidllava.bench.operations import (
    Baseline,
    Constants,
    Inputs,
    baselines,
    call_of,
    make_constants,
    make_inputs,
    our_operation,
)
from vidllava.bench.rows import conditions, moment
from vidllava.errors import is_allocation_failure

GIBIBYTE = 1 << 30


class KernelBench:
    """A run on one device, of number ``process`` among those that measure the same.

    Raises UsageError for kernels that cannot run there.
    """

    def __init__(self, request: KernelRequest, device: torch.device, *, process: int = 0) -> None:
        self.request, self.device, self.process = request, device, process
        self._directions = request.directions or get_args(Direction)
        self.implementation, self.reason = choose_kernels(device)
        torch.set_num_threads(request.threads)
        self.conditions = conditions(device, threads=request.threads)
        self.cases = cases(request, on_cuda=device.type == "cuda")
        self._dtypes = request.dtypes or (str(choose_dtype("auto", device)[0]).removeprefix("torch."),)
        self._prefills = Prefills(device, threads=request.threads)
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._device_copy: float | None = None

    @property
    def num_rows(self) -> int:
        """How many rows there will be, those that are measured already among them."""
        return len(self.cases) * len(self._dtypes) * len(self._directions)

    def rows(self, done: frozenset[str]) -> Iterator[Row | None]:
        """The rows, each as soon as it is measured; None for one whose key is in ``done``."""
        for case in self.cases:
            for dtype in self._dtypes:
                subjects = [
                    Subject(
                        case=case,
                        dtype=dtype,
                        direction=direction,
                        implementation=self.implementation,
                        element_bytes=DTYPES[dtype].itemsize,
                    )
                    for direction in self._directions
                ]
                keys = [one.key(self.conditions, self.process) for one in subjects]
                open_ = [one for one, key in zip(subjects, keys, strict=True) if key not in done]
                yield from [None] * (len(subjects) - len(open_))
                for subject, measured in self._measure(case, dtype, open_):
                    stamp = {**self.conditions, **moment(self.device), "process": self.process}
                    key = subject.key(self.conditions, self.process)
                    yield to_row(subject, measured, {**stamp, "key": key})

    def _measure(self, case: Case, dtype: str, subjects: list[Subject]) -> Iterator[tuple[Subject, Measured]]:
        if not subjects:
            return
        done = 0
        try:
            for subject, measured in self._measure_case(case, DTYPES[dtype], subjects):
                yield subject, measured
                done += 1
        except (MemoryError, RuntimeError) as fault:
            if not is_allocation_failure(fault):
                raise
            for subject in subjects[done:]:
                yield subject, _skipped("memory ran out")

    def _measure_case(
        self, case: Case, dtype: torch.dtype, subjects: list[Subject]
    ) -> Iterator[tuple[Subject, Measured]]:
        why = why_skipped(
            case,
            element_bytes=dtype.itemsize,
            num_sets=self._num_sets(case, dtype),
            free=free_bytes(str(self.device)),
        )
        if why is not None:
            yield from ((subject, _skipped(why)) for subject in subjects)
            return
        constants = make_constants(case, dtype, self.device)
        inputs = make_inputs(case, dtype, self.device, seed=0)
        checked = self._checked(case, constants, inputs)
        if checked.fault is not None:
            yield from ((subject, replace(_skipped(None), checked=checked)) for subject in subjects)
            return
        others = self._others(case, constants, inputs)
        prefill = self._prefills.of(case, dtype) if self.request.share else None
        clocks = ("process", "wall") if self.request.threads == 1 else ("wall",)
        for subject in subjects:
            extra: Row = {"plan_ms": constants.plan_ms}
            if self._stream is None:
                times = self._time_on_cpu(subject, constants, inputs, others)
            else:
                times, more = self._time_on_cuda(subject, constants, inputs, others)
                extra |= more
            yield (
                subject,
                Measured(
                    times=times,
                    reasons={one.name: one.reason for one in others if one.reason is not None},
                    clocks=clocks if self._stream is None else ("graph", "events"),
                    checked=checked,
                    prefill=prefill,
                    extra=extra,
                ),
            )

    def _checked(self, case: Case, constants: Constants, inputs: Inputs) -> CheckResult:
        operation = our_operation(case, constants)
        checked = check(case, operation, constants, inputs)
        if self.implementation == "triton" and checked.fault is None:
            return replace(checked, fault=no_sync(operation, inputs))
        return checked

    def _others(self, case: Case, constants: Constants, inputs: Inputs) -> list[Baseline]:
        """The baselines; one that computes something else is none."""
        found = []
        for one in baselines(case, constants, inputs, compiled=self.request.compile):
            differs = (
                None
                if one.operation is None
                else same_work(our_operation(case, constants), one.operation, inputs)
            )
            found.append(
                replace(one, operation=None, reason=f"computes otherwise: {differs}") if differs else one
            )
        return found

    def _time_on_cpu(
        self, subject: Subject, constants: Constants, inputs: Inputs, others: list[Baseline]
    ) -> dict[str, Times]:
        operations = {"ours": our_operation(subject.case, constants)}
        if subject.case.kernel == "splice" and subject.direction != "backward":
            operations["known_plan"] = our_operation(subject.case, constants, known_plan=True)
        operations |= {one.name: one.operation for one in others if one.operation is not None}
        calls = {
            name: call_of(operation, subject.direction, inputs) for name, operation in operations.items()
        }
        calls["copy"] = copying(subject.num_bytes, self.device)
        return time_on_cpu(calls, num_samples=self.request.num_samples, seconds=self.request.row_seconds)

    def _num_sets(self, case: Case, dtype: torch.dtype) -> int:
        if self._stream is None:
            return 1
        num_bytes = bytes_moved(case, "forward", element_bytes=dtype.itemsize)
        return clock.num_buffer_sets(num_bytes)

    def _time_on_cuda(
        self, subject: Subject, constants: Constants, inputs: Inputs, others: list[Baseline]
    ) -> tuple[dict[str, Times], Row]:
        num_sets = self._num_sets(subject.case, inputs.leaves[0].dtype)
        operations = {"ours": our_operation(subject.case, constants)}
        operations |= {one.name: one.operation for one in others if one.operation is not None}
        with torch.cuda.stream(self._stream):
            sets = [inputs] + [
                make_inputs(subject.case, inputs.leaves[0].dtype, self.device, seed=seed)
                for seed in range(1, num_sets)
            ]
            torch.cuda.synchronize(self.device)
            calls = {
                name: [call_of(operation, subject.direction, one) for one in sets]
                for name, operation in operations.items()
            }
            calls["copy"] = [copying(subject.num_bytes, self.device) for _ in sets]
            if subject.case.kernel == "rotate":
                calls["hot"] = calls["ours"][:1] * clock.HOT_CALLS
            peak = peak_bytes(calls["ours"][0])
        captures = {one.name for one in others if one.captures}
        times = clock.time_on_cuda(
            calls,
            captured=[name for name in calls if name in {"ours", "copy", "hot"} | captures],
            launched=["ours", "transformers"],
            num_samples=self.request.num_samples,
            stream=self._stream,
        )
        del calls, sets
        torch.cuda.empty_cache()
        return times, {
            "num_buffer_sets": num_sets,
            "peak_extra_bytes": peak,
            "device_copy_gb_per_second": self._copy_rate(),
        }

    def _copy_rate(self) -> float:
        """GB/s of copying 1 GiB on the device, once a run."""
        if self._device_copy is None:
            with torch.cuda.stream(self._stream):
                calls = {"copy": [copying(2 * GIBIBYTE, self.device)]}
            found = clock.time_on_cuda(
                calls, captured=["copy"], launched=[], num_samples=20, stream=self._stream
            )
            taken = found["copy"].get("graph") or found["copy"]["events"]
            self._device_copy = float(f"{2 * GIBIBYTE / taken.p50_ms / 1e6:.4g}")
        return self._device_copy


def copying(num_bytes: int, device: torch.device) -> Callable[[], object]:
    """A copy that moves ``num_bytes``, half read, half written, between two places that stay the same."""
    # Filled: memory that nobody wrote is one page of zeros, and stays in the cache.
    source, target = (
        torch.full((max(num_bytes // 2, 1),), value, dtype=torch.uint8, device=device) for value in (1, 2)
    )
    return lambda: target.copy_(source)


def peak_bytes(call: Callable[[], object]) -> int:
    """Memory that one call takes on the current CUDA device beyond what was taken before it."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def _skipped(why: str | None) -> Measured:
    return Measured(times={}, reasons={}, clocks=(), skipped=why)
