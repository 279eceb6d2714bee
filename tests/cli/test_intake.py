"""Media from standard input and from URLs, and limits, as ``frames`` and ``ask`` take them."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start

SHORT = ("--max-new-tokens", 4)


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder in which copies are seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def site(clip: Path) -> Iterator[str]:
    """A server of the clip's folder."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(clip.parent))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_clip_comes_over_standard_input(run: Run, clip: Path, own_temporary: Path, piped):
    piped(clip.read_bytes())
    report = json.loads(run("ask", "-", "what happens", "--json", "--no-cache", *SHORT).out)
    single = json.loads(run("ask", clip, "what happens", "--json", "--no-cache", *SHORT).out)
    assert report["media"][0]["media"] == "standard input"
    assert report["media"][0]["frames"] == single["media"][0]["frames"]
    assert report["answer"] == single["answer"]
    assert list(own_temporary.iterdir()) == []
    piped(clip.read_bytes())
    assert run("frames", "-").out.startswith("standard input: 128 x 96")


def test_an_open_file_is_read_under_its_own_name(clip: Path):
    """The worker's own standard input is another one."""
    with clip.open("rb") as file:
        for name in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"):
            process = start("frames", name, "--num-frames", 2, "--json", stdin=file)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, "")
            assert (json.loads(out)["media"], json.loads(out)["num_frames_in_file"]) == (name, 60)


def test_an_open_pipe_is_refused_and_the_way_is_told():
    process = start("frames", "/dev/stdin", stdin=-1)
    _, err = process.communicate("", timeout=60)
    told = (
        "error: /dev/stdin: is not a regular file with a name (give the file, or - to read standard input)\n"
    )
    assert (process.returncode, err) == (3, told)


def test_one_standard_input_is_one_thing(run: Run, clip: Path):
    for words in (("-", "-"), ("-", "-", "what?"), ("--video", "-", clip, "-")):
        result = run("ask", *words)
        assert (result.code, "stands for two things" in result.error) == (2, True)


def test_an_error_names_what_was_given(run: Run, own_temporary: Path, piped):
    piped(b"no clip at all\n" * 99)
    result = run("ask", "-", "what?")
    assert (result.code, result.error) == (
        3,
        "error: standard input: is a plain text (give the media file itself)",
    )
    piped(b"x" * 5000)
    assert "limit of 2,048 (raise --max-file-size)" in run("frames", "-", "--max-file-size", "2K").error
    assert list(own_temporary.iterdir()) == []


def test_a_url_is_read_where_it_is_allowed(run: Run, site: str, own_temporary: Path):
    refused = run("frames", f"{site}/clip.mp4")
    assert (refused.code, "(download it first, or --allow-url)" in refused.error) == (3, True)
    assert run("frames", f"{site}/clip.mp4", "--allow-url").out.startswith(f"{site}/clip.mp4: 128 x 96")
    report = json.loads(run("ask", f"{site}/clip.mp4", "what?", "--allow-url", "--json", *SHORT).out)
    assert report["media"][0]["media"] == f"{site}/clip.mp4"
    assert list(own_temporary.iterdir()) == []
    assert "answered 404" in run("ask", f"{site}/gone", "what?", "--allow-url").error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-pixels", "100"], "over the limit of 100 pixels"),
        (["--max-file-frames", "10"], "has more than 10 frames, the limit (raise"),
        (["--max-file-frames", "59"], "raise --max-file-frames"),
        (["--max-file-size", "100"], "raise --max-file-size"),
        (["--decode-timeout", "0.0001"], "raise --decode-timeout"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "frames"])
def test_limits_are_one_line(run: Run, clip: Path, command: str, flags: list[str], words: str):
    result = run(command, clip, *(["what?"] if command == "ask" else []), *flags)
    assert result.code == 6
    assert words in result.error
    assert str(clip) in result.error


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[
            ("--max-pixels", "0"),
            ("--max-streams", "0"),
            ("--max-file-size", "big"),
            ("--max-file-size", "0"),
        ],
        *[("--decode-timeout", "0"), ("--decode-timeout", "nan"), ("--url-timeout", "0")],
    ],
)
def test_limits_that_cannot_be_meant(run: Run, clip: Path, flag: str, value: str):
    result = run("frames", clip, flag, value)
    assert (result.code, flag in result.error) == (2, True)


def test_copies_go_with_a_command_that_is_terminated(own_temporary: Path, clip: Path):
    process = start("frames", "-", stdin=-1)
    assert process.stdin is not None
    os.write(process.stdin.fileno(), clip.read_bytes())
    end = time.monotonic() + 20
    while not list(own_temporary.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (143, "")
    assert list(own_temporary.iterdir()) == []


def test_an_interrupt_of_the_whole_group_shows_nothing(clip: Path, tmp_path: Path):
    """Ctrl-C reaches the worker too: neither it nor the command shows a traceback."""
    process = start("frames", "-", stdin=-1, start_new_session=True)
    time.sleep(0.7)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert process.returncode in (130, -2)  # before or after the command took the signal over
