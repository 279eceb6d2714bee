"""The worker as its parent sees it: a process, lines of JSON over a socket, and descriptors beside them.

``-P`` keeps the working folder off its import path: a file called numpy.py beside a clip stays a file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidllava.media.wire import Array

_PATIENCE_SECONDS = 5.0  # for the kernel to bury a killed child
_COMMAND = ("-P", "-m", "vidllava.media.worker_child")


class WorkerProcess:
    """Started when made; it looks into files by itself as soon as it is asked."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._pending = b""
        self._messages: deque[dict[str, Any]] = deque()
        self._descriptors: list[int] = []
        # Its few matrix products need no thread pool, which takes memory on machines of many cores.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *_COMMAND],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and self._socket.fileno() >= 0

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """One line, and a descriptor with it. That the child has ended is left to ``receive``."""
        data = json.dumps(message).encode() + b"\n"
        self._socket.settimeout(None)
        with suppress(BrokenPipeError, ConnectionResetError):
            sent = 0
            if descriptor is not None:
                sent = socket.send_fds(self._socket, [data], [descriptor])
            self._socket.sendall(data[sent:])

    def receive(self, seconds: float) -> tuple[dict[str, Any], list[Array]]:
        """The next message and its arrays. Raises TimeoutError, or EOFError where the child has ended."""
        end = time.monotonic() + seconds
        while not self._messages:
            self._socket.settimeout(max(end - time.monotonic(), 1e-3))
            try:
                data, came, _, _ = socket.recv_fds(self._socket, 1 << 16, 4)
            except TimeoutError:
                raise
            except OSError:
                data, came = b"", []
            if not data:
                raise EOFError
            self._descriptors += came
            *lines, self._pending = (self._pending + data).split(b"\n")
            self._messages += map(json.loads, lines)
        message = self._messages.popleft()
        if "arrays" not in message:
            return message, []
        # Not at the top: the child shall be on its way before this process loads what both need.
        from vidllava.media.wire import read_arrays

        descriptor = self._descriptors.pop(0)
        try:
            return message, read_arrays(message["arrays"], descriptor)
        finally:
            os.close(descriptor)

    def exit_code(self) -> int | None:
        """Of a child that has ended by itself, or is about to."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_PATIENCE_SECONDS)
        return None

    def end(self) -> None:
        """Kill it, whatever it does, and close what belongs to it."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_SECONDS)
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())
