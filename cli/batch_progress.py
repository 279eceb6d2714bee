"""A batch on stderr: one line that is rewritten on a terminal, one line for every tenth of it elsewhere."""

from __future__ import annotations

import sys
import time

from vidllava.cli.console import Console

_BAR = 24


class BatchProgress:
    """Counts answers and failures, and says how long the rest may take."""

    def __init__(self, console: Console, total: int, *, pause_seconds: float = 0.0) -> None:
        """``pause_seconds``: at least so long between two lines where there is no terminal."""
        self.num_failed = 0
        self._console = console
        self._total, self._done, self._told = total, 0, 0
        self._begin = self._told_at = time.monotonic()
        self._pause_seconds = pause_seconds
        self._live = not console.quiet and sys.stderr is not None and sys.stderr.isatty()

    def done(self, status: str) -> None:
        """One more row is on disk."""
        self._done += 1
        self.num_failed += status != "ok"
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        line = f"{self._done}/{self._total} done{failed}, ETA {self._eta()}"
        if self._live:
            full = _BAR * self._done // self._total
            end = "\n" if self._done == self._total else ""
            sys.stderr.write(f"\r[{'=' * full:<{_BAR}}] {line}    {end}")
            sys.stderr.flush()
        elif (tenth := 10 * self._done // self._total) > self._told:
            now = time.monotonic()
            if now - self._told_at < self._pause_seconds:
                return
            self._told, self._told_at = tenth, now
            self._console.note(line)

    def _eta(self) -> str:
        seconds = round((time.monotonic() - self._begin) / self._done * (self._total - self._done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
