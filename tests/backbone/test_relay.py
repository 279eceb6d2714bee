"""Frames pass in order, once they are final, and nothing of a voided pass gets through."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from vidllava.backbone.see import Abandoned, Arrived, Relay
from vidllava.errors import MediaError
from vidllava.media.frames import FrameBatch, FramePlan

TIMES = (0.0, 0.1, 0.2, 0.3)
PLAN = FramePlan(TIMES, (0, 1, 2, 3), TIMES, "a test")


def pixels(value: int) -> np.ndarray:
    return np.full((4, 2, 2, 3), value, dtype=np.uint8)


def values(arrived: Arrived) -> list[int]:
    return arrived.frames[:, 0, 0, 0].tolist()


def test_frames_are_handed_over_as_far_as_there_is_no_gap() -> None:
    relay = Relay()
    for place in (1, 0, 3):
        relay.receive(place, pixels(5))
    arrived = relay.wait(0, 0)
    assert (arrived.start, len(arrived.frames), arrived.batch) == (0, 2, None)
    relay.receive(2, pixels(5))
    assert len(relay.wait(0, 2).frames) == 2


def test_what_was_handed_over_is_not_written_over() -> None:
    relay, shown = Relay(), pixels(5)
    relay.receive(0, shown)
    arrived = relay.wait(0, 0)
    relay.receive(None, shown)
    shown[:] = 9
    assert values(arrived) == [5]


def test_a_void_takes_back_everything_that_was_reported() -> None:
    relay, shown = Relay(), pixels(5)
    for place in range(3):
        relay.receive(place, shown)
    relay.receive(None, shown)
    shown[:] = 9
    relay.receive(0, shown)
    arrived = relay.wait(0, 2)
    assert (arrived.pass_number, arrived.start, values(arrived)) == (1, 0, [9])


def test_a_void_is_told_before_anything_new_is_final() -> None:
    relay = Relay()
    relay.receive(0, pixels(5))
    relay.receive(None, pixels(5))
    arrived = relay.wait(0, 1)
    assert (arrived.pass_number, len(arrived.frames)) == (1, 0)


def test_the_end_brings_the_rest() -> None:
    relay = Relay()
    relay.receive(0, pixels(5))
    relay.finish(FrameBatch(pixels(5), np.array(TIMES), PLAN))
    arrived = relay.wait(0, 1)
    assert len(arrived.frames) == 3
    assert arrived.batch is not None


def test_whoever_waits_is_woken() -> None:
    relay, got = Relay(), []
    waiting = threading.Thread(target=lambda: got.append(relay.wait(0, 0)))
    waiting.start()
    relay.receive(0, pixels(5))
    waiting.join(timeout=20)
    assert values(got[0]) == [5]


def test_faults_reach_the_one_who_waits_and_the_end_of_waiting_the_decoder() -> None:
    relay = Relay()
    relay.fail(MediaError("clip.mp4", "is damaged"))
    with pytest.raises(MediaError):
        relay.wait(0, 0)
    relay.abandon()
    with pytest.raises(Abandoned):
        relay.receive(0, pixels(5))
