"""Rows prepared ahead: a signal may cut the main thread off at any step, and the end still comes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest

from vidllava.backbone.ahead import Ahead
from vidllava.media.limits import Limits

WATCHED = ("threading.py", "queue.py", "ahead.py")


class NoSampler:
    """Starts no process."""

    def __init__(self, limits: Limits) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class NoItems:
    """A question without media."""

    number: int
    items: tuple[()] = ()


def made(num_rows: int) -> Ahead[int]:
    return Ahead(
        range(num_rows),
        lambda row, sampler: NoItems(row),  # type: ignore[arg-type,return-value]
        size=8,
        num_workers=2,
        limits=Limits(),
        repeats=False,
    )


def cut_off_after(steps: int) -> tuple[Callable[..., Any], list[int]]:
    """A trace function that raises KeyboardInterrupt at the given step, as a signal's handler would."""
    seen = [0]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen[0] += 1
            if seen[0] == steps:
                raise KeyboardInterrupt
        return trace

    return trace, seen


def run_cut_off(steps: int) -> tuple[int, bool]:
    """(the steps that were taken, whether the end came) of a batch whose main thread is cut off there."""
    trace, seen = cut_off_after(steps)
    ahead = made(4).__enter__()

    def main_thread() -> None:
        sys.settrace(trace)
        try:
            ahead.torch_is_here.set()
            for _ in ahead:
                pass
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
            ahead.__exit__(None, None, None)

    thread = threading.Thread(target=main_thread, daemon=True)
    thread.start()
    thread.join(5.0)
    return seen[0], not thread.is_alive()


def test_the_end_comes_wherever_the_main_thread_was_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidllava.backbone.ahead.WorkerSampler", NoSampler)
    whole, ended = run_cut_off(0)
    assert ended
    assert whole > 50
    for steps in range(1, whole + 1):
        assert run_cut_off(steps)[1], f"cut off at step {steps} of {whole}, it waits for ever"


def test_every_row_comes_once_and_in_order_and_no_thread_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidllava.backbone.ahead.WorkerSampler", NoSampler)
    with made(9) as ahead:
        ahead.torch_is_here.set()
        numbers = [one.question.number for one in ahead]  # type: ignore[union-attr]
    assert numbers == list(range(9))
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_threads_that_wait_for_torch_end_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidllava.backbone.ahead.WorkerSampler", NoSampler)
    with made(3) as ahead:
        iterator = iter(ahead)
        threading.Timer(0.2, ahead.torch_is_here.set).start()
        next(iterator)
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
