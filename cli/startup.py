"""The seconds before the first word and after the last one.

torch and transformers are some 2,500 modules. Their import makes so many objects that Python's cycle
collector runs again and again over all of them, and finds nothing to free: a quarter of the import's time.
Taking them down one by one when the process ends costs most of a second more, for memory that the system
takes back at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STARTED = time.perf_counter()


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cycle collection inside, and none later of what was made inside: modules stay anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def leave(code: int) -> None:
    """End the process; after ``collector_paused`` at once, exit handlers and a flush of the streams apart."""
    if gc.get_freeze_count() == 0:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or its reader has gone
            stream.flush()
    os._exit(code)
