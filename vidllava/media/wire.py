"""The worker as its parent sees it, and the messages between them: lines of JSON, arrays as raw bytes.

Nothing unpickles: a worker that a hostile file has taken over can send wrong values, not code.

    value, arrays = pack(info)              # JSON values; each array stands as its number
    unpack(json.loads(json.dumps(value)), arrays)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vidllava import errors
from vidllava.errors import VidllavaError
from vidllava.media import frames, probe

Array = npt.NDArray[Any]

# What may be built from a message. ``probe`` imports whatever a VideoInfo is made of.
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for module in (frames, probe)
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind)
}
_ERRORS: dict[str, type[VidllavaError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VidllavaError)
}


def pack(value: Any) -> tuple[Any, list[Array]]:
    """(JSON values, arrays) from which ``unpack`` makes an equal value. Raises TypeError for other kinds."""
    arrays: list[Array] = []
    return _pack(value, arrays), arrays


def _pack(value: Any, arrays: list[Array]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(np.ascontiguousarray(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(each, arrays) for each in value]}
    if type(value).__name__ in _KINDS:
        named = {each.name: _pack(getattr(value, each.name), arrays) for each in fields(value)}
        return {"kind": type(value).__name__, "fields": named}
    raise TypeError(f"{type(value).__name__} does not travel")


def unpack(value: Any, arrays: Sequence[Array]) -> Any:
    """The value that was packed. Raises LookupError, TypeError or ValueError for what never was."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "fraction" in value:
        return Fraction(*value["fraction"])
    if "tuple" in value:
        return tuple(unpack(each, arrays) for each in value["tuple"])
    named = {name: unpack(each, arrays) for name, each in value["fields"].items()}
    return _KINDS[value["kind"]](**named)


def pack_error(fault: BaseException) -> dict[str, Any]:
    """An expected fault by its class and words, any other by its name and message."""
    if isinstance(fault, VidllavaError):
        return {"class": type(fault).__name__, "words": [fault.thing, fault.what, fault.hint]}
    return {"fault": f"{type(fault).__name__}: {fault}"}


def unpack_error(value: dict[str, Any]) -> Exception:
    """The error to raise: of the same class, or RuntimeError for a fault of ours."""
    if "class" in value:
        thing, what, hint = value["words"]
        return _ERRORS[value["class"]](thing, what, hint)
    return RuntimeError(f"in the decoding worker: {value['fault']}")


def new_region(num_bytes: int) -> int:
    """A descriptor of that much zeroed memory without a name: other processes reach it if it is handed on."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("vidllava")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, num_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_arrays(arrays: Sequence[Array]) -> tuple[list[list[Any]], int]:
    """(dtype and shape of each, the descriptor of a region with their bytes one after the other)."""
    descriptor = new_region(sum(array.nbytes for array in arrays))
    offset = 0
    for array in arrays:
        data = array.reshape(-1).view(np.uint8).data
        while data:
            done = os.pwrite(descriptor, data, offset)
            offset, data = offset + done, data[done:]
    return [[array.dtype.str, list(array.shape)] for array in arrays], descriptor


def read_arrays(described: Sequence[Sequence[Any]], descriptor: int) -> list[Array]:
    """Read-only copies of the arrays that ``write_arrays`` wrote; the descriptor stays open.

    Raises ValueError where the region is shorter than described: nothing is mapped, so nothing can fault.
    """
    found, offset = [], 0
    left = os.fstat(descriptor).st_size
    for dtype, shape in described:
        num_bytes = np.dtype(dtype).itemsize * int(np.prod([int(side) for side in shape], dtype=object))
        if not 0 <= num_bytes <= left:
            raise ValueError(f"an array of {shape} does not lie in the region")
        array = np.empty(shape, dtype=dtype)
        data = array.reshape(-1).view(np.uint8).data
        while data:
            done = os.preadv(descriptor, [data], offset)
            if done == 0:
                raise ValueError("the region ends early")
            offset, data, left = offset + done, data[done:], left - done
        array.setflags(write=False)
        found.append(array)
    return found


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
