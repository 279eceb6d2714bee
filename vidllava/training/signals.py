"""Ctrl-C and SIGTERM ask a run to stop after its step; the second one stops it now."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_WATCHED = (signal.SIGINT, signal.SIGTERM)
# torchrun passes on what the terminal has sent to the whole process group already: one request, not two.
_ECHO_SECONDS = 3.0
Value = TypeVar("Value")


class _Interrupted(BaseException):
    """Ends a wait; nothing that catches errors may take it for one."""


class StopRequest:
    """`with StopRequest() as stop:` ... `stop.signal` is the number of the signal that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._waiting = False
        self._came_at = 0.0

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; a run in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._came) for number in _WATCHED}
        return self

    def __exit__(self, *_fault: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, call: Callable[[], Value]) -> Value | None:
        """`call()`, which only waits and reads; None as soon as somebody asks to stop, whatever it does."""
        try:
            self._waiting = True
            return call() if self.signal is None else None
        except _Interrupted:
            return None
        finally:
            self._waiting = False

    def _came(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._came_at = number, now
            if self._waiting:
                raise _Interrupted
        elif "LOCAL_RANK" not in os.environ or now - self._came_at > _ECHO_SECONDS:
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            raise KeyboardInterrupt
