"""A sampler in a child process: a decoder that hangs is killed, one that crashes is a one-line error.

    with WorkerSampler(Limits(decode_seconds=60)) as sampler:   # returns at once; the child starts meanwhile
        info = sampler.probe("clip.mp4")
        sampler.begin(info, plan)                               # decode while something else is done
        frames = sampler.decode(info, plan, size=384)           # collect

Frames come at full size through memory that both processes see, each is resized here as it comes, and its
memory given back: the child needs no torch, and not more than ``WINDOW_BYTES`` are on the way.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vidllava.errors import MediaError, ResourceError, VidllavaError
from vidllava.media.decode import check_plan
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize, OnReady, side_of
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.media.picture_folder import CONTAINER, decode_folder
from vidllava.media.probe import VideoInfo
from vidllava.media.wire import Array, WorkerProcess, new_region, unpack, unpack_error

Picture = npt.NDArray[np.uint8]

# Full-size frames that may be on the way from the child: 10 of 1080p, and always at least one.
WINDOW_BYTES = 64 << 20


class WorkerSampler:
    """Implements ``sampler.Sampler``; for one thread at a time. Close it, or use it in a ``with``.

    Make it in a thread that lives as long as it does: Linux kills the child with the thread that started it.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, process: WorkerProcess | None = None) -> None:
        """``process``: one that was started earlier."""
        self.limits = limits
        self._child: WorkerProcess | None = process or WorkerProcess()
        self._begun: dict[int, _Frames] = {}
        self._number = 0
        self._closed = False
        self._lock = threading.RLock()

    def __enter__(self) -> WorkerSampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. Safe at any time and from any thread: whoever waits for it gets an error."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        """Kill the child; what it was asked to begin is forgotten."""
        child, self._child = self._child, None
        self._begun.clear()
        if child is not None:
            child.end()

    def probe(self, path: str) -> VideoInfo:
        """See ``probe.probe``; also raises ResourceError where it takes longer than the limit."""
        info: VideoInfo = self._ask({"do": "probe", "path": str(path)})
        return info

    def picture(self, path: str) -> Picture:
        """See ``picture.load_picture``."""
        pixels: Picture = self._ask({"do": "picture", "path": str(path)})
        pixels.setflags(write=True)
        return pixels

    def picture_notes(self, path: str) -> tuple[str, ...]:
        """See ``picture.picture_notes``."""
        notes: tuple[str, ...] = self._ask({"do": "picture_notes", "path": str(path)})
        return notes

    def picture_size(self, path: str) -> tuple[int, int]:
        """See ``picture.picture_size``."""
        size: tuple[int, int] = self._ask({"do": "picture_size", "path": str(path)})
        return size

    def begin(
        self, info: VideoInfo, plan: FramePlan, *, backend: str = "pyav", size: FrameSize | None = None
    ) -> None:
        """Let the child decode from now on; ``decode`` with the same arguments collects the frames.

        A folder of pictures is not begun: they are asked for one by one.
        """
        if info.container == CONTAINER:
            return
        with self._lock, self._ended_if_cut_off():
            self._begin(info, plan, backend, size)

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: FrameSize | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        """See ``decode.decode``; also raises ResourceError where it is waited for longer than the limit."""
        if info.container == CONTAINER:
            check_plan(info, plan, size)
            return decode_folder(info, plan, picture=self.picture, size=size, on_ready=on_ready)
        with self._lock, self._ended_if_cut_off():
            wanted = (info.path, plan, backend, size)
            number = next((key for key, one in self._begun.items() if one.wanted == wanted), None)
            if number is None:
                number = self._begin(info, plan, backend, size)
            frames = self._begun[number]
            frames.hear(on_ready)
            try:
                return frames.batch(self._collect(number, info.path))
            finally:
                self._begun.pop(number, None)

    def _begin(self, info: VideoInfo, plan: FramePlan, backend: str, size: FrameSize | None) -> int:
        check_plan(info, plan, size)
        shape = (len(plan), info.height, info.width, 3)
        region = new_region(int(np.prod(shape, dtype=object)))
        try:
            frames = _Frames((info.path, plan, backend, size), shape, mmap.mmap(region, 0))
            number = self._send(
                {"do": "decode", "path": info.path, "plan": plan.to_json(), "backend": backend}
                | {"shape": shape, "window": WINDOW_BYTES if size is not None else 0},
                region,
            )
        finally:
            os.close(region)
        self._begun[number] = frames
        return number

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock, self._ended_if_cut_off():
            return self._collect(self._send(request), request["path"])

    def _send(self, request: dict[str, Any], region: int | None = None) -> int:
        """Hand a request to the child, to a new one where the last has ended."""
        if self._closed:
            raise RuntimeError("the sampler is closed")
        if self._child is None or not self._child.alive:
            self._end()
            self._child = WorkerProcess()
        self._number += 1
        message = {**request, "id": self._number, "cwd": os.getcwd(), "limits": asdict(self.limits)}
        self._child.send({**message, "region": region is not None}, region)
        return self._number

    def _collect(self, number: int, path: str) -> Any:
        """The result of request ``number``; what comes of others meanwhile is taken in too."""
        left = self.limits.decode_seconds
        while True:
            child, begun = self._child, self._begun.get(number)
            if child is None:
                raise RuntimeError("the sampler was closed while it was waited for")
            if begun is not None and begun.answer is not None:
                return _result(*begun.answer)
            start = time.monotonic()
            try:
                message, arrays = child.receive(left)
            except TimeoutError:
                self._end()
                raise self._too_slow(path) from None
            except EOFError:
                code = child.exit_code()
                self._end()
                raise self._ended(path, code) from None
            left = max(left - (time.monotonic() - start), 0.0)
            other = self._begun.get(message["id"])
            if "ready" in message:
                if other is not None and (read := other.take(message["ready"])):
                    child.send({"read": read})
            elif message["id"] == number:
                return _result(message, arrays)
            elif other is not None:
                other.answer = (message, arrays)

    def _too_slow(self, path: str) -> ResourceError:
        what = f"was not decoded within the limit of {self.limits.decode_seconds:g} s"
        return ResourceError(path, what, "raise --decode-timeout, or ask for fewer frames")

    def _ended(self, path: str, code: int | None) -> Exception:
        if code == -signal.SIGXCPU:
            return ResourceError(path, "used up its decoder's CPU time", "raise --decode-timeout")
        if code is not None and code < 0:
            why = ": the machine may be out of memory" if code == -signal.SIGKILL else ""
            what = f"ended its decoder ({signal.Signals(-code).name}{why})"
            return MediaError(path, what, "convert it, for example with ffmpeg")
        if code == ResourceError.exit_code:
            return ResourceError(path, "its decoder could not start: no memory left", "close other programs")
        return RuntimeError(f"the decoding worker ended with code {code}")

    @contextmanager
    def _ended_if_cut_off(self) -> Iterator[None]:
        """After an interrupt or a fault of ours nobody knows what the child will still send."""
        try:
            yield
        except VidllavaError:
            raise
        except BaseException:
            self._end()
            raise


def _result(message: dict[str, Any], arrays: list[Array]) -> Any:
    if "error" not in message:
        return unpack(message["done"], arrays)
    fault = unpack_error(message["error"])
    fault.add_note(message["where"])
    raise fault


@dataclass
class _Frames:
    """The frames of one request, on their way from the child."""

    wanted: tuple[str, FramePlan, str, FrameSize | None]
    shape: tuple[int, int, int, int]
    memory: mmap.mmap
    """Where the child writes them, at full size."""
    answer: tuple[dict[str, Any], list[Array]] | None = None
    """The last message about them, where it came before it was waited for."""
    _ready: list[int] = field(default_factory=list)
    _on_ready: OnReady | None = None

    def __post_init__(self) -> None:
        self._full = np.frombuffer(self.memory, dtype=np.uint8).reshape(self.shape)
        size = self.wanted[3]
        self._out = (
            self._full
            if size is None
            else np.empty((self.shape[0], side_of(size), side_of(size), 3), dtype=np.uint8)
        )

    def hear(self, on_ready: OnReady | None) -> None:
        """Tell of every frame from now on, and of those that are here."""
        self._on_ready = on_ready
        if on_ready is not None:
            for place in self._ready:
                on_ready(place, self._out)

    def take(self, place: int | None) -> int:
        """A frame is final (or, with None, none is): resize it. Returns the bytes that are free again."""
        if place is None:
            self._ready.clear()
        else:
            self._resize(place)
            self._ready.append(place)
        if self._on_ready is not None:
            self._on_ready(place, self._out)
        return 0 if place is None or self._out is self._full else self._full[place].nbytes

    def batch(self, values: tuple[Any, ...]) -> FrameBatch:
        """The frames, all of them in; ``values`` are the batch's other fields."""
        for place in sorted(set(range(len(self._out))) - set(self._ready)):
            self.take(place)
        names = [each.name for each in fields(FrameBatch) if each.name != "pixels"]
        return FrameBatch(pixels=self._out, **dict(zip(names, values, strict=True)))

    def _resize(self, place: int) -> None:
        size = self.wanted[3]
        if size is None:
            return
        from vidllava.media.pixels import resize_frames

        self._out[place] = resize_frames(self._full[place][None], size)[0].permute(1, 2, 0).numpy()
        # The pages that hold nothing but this frame go back to the system.
        num_bytes, page = self._full[place].nbytes, mmap.PAGESIZE
        start, stop = -(-place * num_bytes // page) * page, (place + 1) * num_bytes // page * page
        if stop > start and hasattr(mmap, "MADV_REMOVE"):
            with suppress(OSError):
                self.memory.madvise(mmap.MADV_REMOVE, start, stop - start)
