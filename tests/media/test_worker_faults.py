"""A decoder that hangs, crashes or eats memory is one line; the next file is read, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.clips import write_clip
from tests.media.test_worker import assert_same, plan_of
from vidllava.errors import MediaError, ResourceError
from vidllava.media import wire
from vidllava.media.limits import Limits
from vidllava.media.sampler import IN_PROCESS
from vidllava.media.wire import WorkerProcess
from vidllava.media.worker import WorkerSampler


class Hooked(WorkerSampler):
    """A sampler whose child runs ``hook`` before it looks into a bad file, ``again`` before it decodes."""

    def __init__(
        self, hook: str, monkeypatch: pytest.MonkeyPatch, limits: Limits, again: str = "pass"
    ) -> None:
        program = f"""
            import os, signal, sys, time
            import vidllava.media.serve as serve
            from vidllava.media import worker_child
            usual = serve.probe
            def probe(path, limits):
                if "bad" in path:
                    {hook}
                return usual(path, limits)
            serve.probe = probe
            whole = serve.decode
            def decode(info, plan, *, backend, out, on_ready):
                {again}
                return whole(info, plan, backend=backend, out=out, on_ready=on_ready)
            serve.decode = decode
            worker_child.main()
        """
        monkeypatch.setattr(wire, "_COMMAND", ("-P", "-c", textwrap.dedent(program)))
        super().__init__(limits)


@pytest.fixture
def bad(clip, tmp_path) -> str:
    path = tmp_path / "bad.mp4"
    path.write_bytes(clip("constant.mp4").read_bytes())
    return str(path)


def test_a_decoder_that_hangs_is_killed_and_the_next_file_is_read(monkeypatch, bad, clip):
    with Hooked("time.sleep(60)", monkeypatch, Limits()) as one:
        one.probe(str(clip("constant.mp4")))
        one.limits = Limits(decode_seconds=0.5)
        start = time.monotonic()
        with pytest.raises(ResourceError) as caught:
            one.probe(bad)
        assert time.monotonic() - start < 10
        hint = "raise --decode-timeout, or ask for fewer frames"
        assert str(caught.value) == f"{bad}: was not decoded within the limit of 0.5 s ({hint})"
        one.limits = Limits()
        assert one.probe(str(clip("constant.mp4"))).num_frames == 60


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended its decoder (SIGSEGV)"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "ended its decoder (SIGKILL: the machine may be out of memory)",
        ),
    ],
)
def test_a_decoder_that_crashes_is_one_line_and_the_next_file_is_read(monkeypatch, bad, clip, hook, words):
    with Hooked(hook, monkeypatch, Limits()) as one:
        with pytest.raises(MediaError) as caught:
            one.probe(bad)
        assert words in str(caught.value)
        assert one.probe(str(clip("constant.mp4"))).num_frames == 60


def test_a_crash_while_another_clip_is_begun_loses_nothing(monkeypatch, bad, clip):
    info = IN_PROCESS.probe(str(clip("constant.mp4")))
    with Hooked("os.kill(os.getpid(), signal.SIGSEGV)", monkeypatch, Limits()) as one:
        wrong = IN_PROCESS.probe(bad)
        one.begin(wrong, plan_of(wrong), size=48)
        one.begin(info, plan_of(info), size=48)
        with pytest.raises(MediaError):
            one.decode(wrong, plan_of(wrong), size=48)
        assert_same(one.decode(info, plan_of(info), size=48), IN_PROCESS.decode(info, plan_of(info), size=48))


def test_a_pass_that_starts_again_is_not_wiped_by_reading_the_first(monkeypatch, clip):
    info = IN_PROCESS.probe(str(clip("constant.mp4")))
    # All frames are reported, grey, and taken back: the parent reads them late.
    again = "out[:] = 128; [on_ready(place, out) for place in range(len(out))]; on_ready(None, out)"
    with Hooked("pass", monkeypatch, Limits(), again) as one:
        one.begin(info, plan_of(info), size=48)
        time.sleep(1.0)
        assert_same(one.decode(info, plan_of(info), size=48), IN_PROCESS.decode(info, plan_of(info), size=48))


def test_too_much_memory_is_a_limit(monkeypatch, bad):
    words = "needs more than the worker's 8 GiB of memory"
    with (
        Hooked("bytearray(9 << 30)", monkeypatch, Limits()) as one,
        pytest.raises(ResourceError, match=words),
    ):
        one.probe(bad)


def test_endless_computing_ends_without_the_parent(monkeypatch, bad):
    """Were the parent stopped, RLIMIT_CPU ends the child: here a deadline far beyond it."""
    hook = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\n" + " " * 20 + "while True: pass"
    )
    with Hooked(hook, monkeypatch, Limits()) as one, pytest.raises(ResourceError, match="CPU time"):
        one.probe(bad)


def test_a_fault_of_ours_says_where(monkeypatch, bad):
    words = "in the decoding worker: KeyError: 'gone'"
    with (
        Hooked("raise KeyError('gone')", monkeypatch, Limits()) as one,
        pytest.raises(RuntimeError, match=words) as caught,
    ):
        one.probe(bad)
    assert "Traceback" in caught.value.__notes__[0]


def child_of(one: WorkerSampler) -> subprocess.Popen[bytes]:
    return one._child._process


def test_nothing_is_left_after_close(clip):
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc") else []
    with WorkerSampler() as one:
        info = one.probe(str(clip("constant.mp4")))
        one.decode(info, plan_of(info), size=48)
        one.begin(info, plan_of(info))
        process = child_of(one)
    assert process.returncode == -signal.SIGKILL
    if before:
        assert len(os.listdir("/proc/self/fd")) <= len(before)
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)


@pytest.mark.parametrize("busy", ["time.sleep(60)", "pass", "import ctypes; ctypes.PyDLL(None).sleep(60)"])
def test_the_child_dies_with_a_parent_that_is_killed(bad, tmp_path, busy):
    program = f"""
        import sys, time, threading
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        import pytest
        from tests.media.test_worker_faults import Hooked, child_of
        from vidllava.media.limits import Limits
        patch = pytest.MonkeyPatch()
        with Hooked({busy!r}, patch, Limits()) as one:
            threading.Timer(1.0, lambda: print(child_of(one).pid, flush=True)).start()
            one.probe({bad!r})
            time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # dead, and not ours to bury
            return
        time.sleep(0.02)
    raise AssertionError(f"process {child} outlived its parent")


def test_a_file_beside_the_clip_is_not_imported(clip, tmp_path, monkeypatch):
    for name in ("numpy", "av", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    with WorkerSampler() as one:
        assert one.probe(str(clip("constant.mp4"))).num_frames == 60


def test_an_interrupt_leaves_a_sampler_that_works(clip, monkeypatch):
    sampler = WorkerSampler()
    usual = WorkerProcess.receive

    def interrupted(self: Any, seconds: float) -> Any:
        monkeypatch.setattr(WorkerProcess, "receive", usual)
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerProcess, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sampler.probe(str(clip("constant.mp4")))
    with sampler:
        assert sampler.probe(str(clip("variable.mkv"))).num_frames == 12


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors and memory in /proc")
@pytest.mark.parametrize("where", ["here", "worker"])
def test_a_thousand_opens_leak_nothing(where, tmp_path):
    path = write_clip(tmp_path / "tiny.mp4", num_frames=2, width=32, height=32)
    with WorkerSampler() as one:
        probe = one.probe if where == "worker" else IN_PROCESS.probe
        pids = [os.getpid(), child_of(one).pid]

        def used() -> list[tuple[int, int]]:
            return [(len(os.listdir(f"/proc/{pid}/fd")), resident_bytes(pid)) for pid in pids]

        for number in range(1000):
            os.utime(path, ns=(number, number))  # another version of the file: nothing comes from memory
            probe(str(path))
            if number == 200:
                early = used()
        for (files, size), (files_now, size_now) in zip(early, used(), strict=True):
            assert files_now <= files + 1  # the child may just be closing one
            assert size_now - size < 8 << 20
