"""The seconds before the first word: when the process began, and imports without pauses.

torch and transformers are some 2,500 modules. Their import makes so many objects that Python's cycle
collector runs again and again over all of them, and finds nothing to free: a quarter of the import's time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
