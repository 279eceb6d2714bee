"""Child process that probes and decodes for ``worker.WorkerSampler``; it dies with its parent.

Requests and acknowledgements come as JSON lines over the socket that is its standard input; pixels go into
memory whose descriptor came with the request. It reads nothing else and writes nowhere else.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

from vidllava.errors import ResourceError, is_allocation_failure

# Virtual memory beside the frames themselves: decoders of 8K with all their reference frames stay below.
MEMORY_BYTES = 8 << 30
# CPU seconds for each second of the deadline: decoder threads are bounded to half of that.
_CPU_PER_SECOND = 8
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve requests until the parent goes away."""
    # The parent decides what a signal means: ctrl-C reaches the whole group, and must show one line only.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    line = _Line(socket.socket(fileno=os.dup(0)))
    threading.Thread(target=line.listen, daemon=True).start()
    # Ready for the first request when it comes: this is most of the child's start.
    from vidllava.media.decoders import loads_torch
    from vidllava.media.serve import serve

    while True:
        request, descriptor = line.requests.get()
        os.chdir(request["cwd"])
        num_bytes = 0 if descriptor is None else os.fstat(descriptor).st_size
        # torch reserves more addresses than any limit that would mean something.
        free = loads_torch(request.get("backend"))
        _limit(request["limits"]["decode_seconds"], None if free else MEMORY_BYTES + num_bytes)
        try:
            serve(request, descriptor, line)
        except MemoryError:
            what = f"needs more than the worker's {MEMORY_BYTES >> 30} GiB of memory"
            line.fail(request, ResourceError(request["path"], what, "scale it down"))
        except Exception as fault:
            line.fail(request, fault)
        finally:
            if descriptor is not None:
                os.close(descriptor)


class _Line:
    """The socket to the parent. Reading has a thread of its own, so that the parent's end is seen at once."""

    def __init__(self, connection: socket.socket) -> None:
        self.requests: queue.SimpleQueue[tuple[dict[str, Any], int | None]] = queue.SimpleQueue()
        self._connection = connection
        self._sending = threading.Lock()
        self._room = threading.Condition()
        self._unread_bytes = 0

    def listen(self) -> None:
        """Sort what comes; end the process with its parent, whatever the other threads do."""
        pending, descriptors = b"", []
        with suppress(OSError):
            while True:
                data, came, _, _ = socket.recv_fds(self._connection, 1 << 16, 4)
                if not data:
                    break
                descriptors += came
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "read" in message:
                        with self._room:
                            self._unread_bytes -= message["read"]
                            self._room.notify_all()
                    else:
                        self.requests.put((message, descriptors.pop(0) if message["region"] else None))
        os._exit(0)

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """One line, and a descriptor with it."""
        data = json.dumps(message).encode() + b"\n"
        with self._sending:
            sent = 0
            if descriptor is not None:
                sent = socket.send_fds(self._connection, [data], [descriptor])
            self._connection.sendall(data[sent:])

    def fail(self, request: dict[str, Any], fault: BaseException) -> None:
        """Answer with an error."""
        from vidllava.media.wire import pack_error

        where = traceback.format_exc()
        self.send({"id": request["id"], "error": pack_error(fault), "where": where})

    def report(self, request: dict[str, Any], place: int | None, frame_bytes: int) -> None:
        """Say that a frame is final; wait where the parent has more unread frames than it wants.

        Where a pass starts again, wait until it has read them all: it gives their memory back afterwards,
        which must not meet what is written there next.
        """
        if place is None:
            with self._room:
                self._room.wait_for(lambda: self._unread_bytes == 0)
        elif request["window"]:
            with self._room:
                self._room.wait_for(
                    lambda: self._unread_bytes == 0 or self._unread_bytes + frame_bytes <= request["window"]
                )
                self._unread_bytes += frame_bytes
        self.send({"id": request["id"], "ready": place})


def _die_with_parent() -> None:
    """Where the kernel can: at once, also in the middle of a decoder that holds every lock."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _limit(seconds: float, memory_bytes: int | None) -> None:
    """New soft limits for one request; the deadline itself is the parent's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = int(usage.ru_utime + usage.ru_stime + seconds * _CPU_PER_SECOND) + 2
    for what, wanted in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, resource.RLIM_INFINITY if memory_bytes is None else memory_bytes),
    ):
        with suppress(OSError, ValueError):
            _, most = resource.getrlimit(what)
            bounds = [bound for bound in (wanted, most) if bound != resource.RLIM_INFINITY]
            resource.setrlimit(what, (min(bounds, default=resource.RLIM_INFINITY), most))


if __name__ == "__main__":
    try:
        main()
    except Exception as fault:  # while the decoders are imported: nothing was asked yet
        if is_allocation_failure(fault):
            os._exit(ResourceError.exit_code)
        raise
