"""The command line: one file per command; ``main`` puts them together. The console script starts here."""

from __future__ import annotations

import os
import signal
from types import FrameType


def command() -> None:
    """The console script: Ctrl-C is taken over before anything else is imported.

    An interrupt during an import would be a traceback, or an odd error of the module that is half imported.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _interrupted)
    from vidllava.cli.main import main

    main()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End at once: nothing was begun."""
    os._exit(130)
