"""The command as a process: signals, closed pipes, streams, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start
from vidllava.cli import main
from vidllava.errors import ResourceError


def start_waiting(reason: str) -> subprocess.Popen[str]:
    """A process whose ``doctor`` command says "ready" and then does what ``reason`` says."""
    program = f"""
        import sys, time
        from vidllava.cli import main
        def command():
            print("ready", flush=True)
            {reason}
        main.COMMANDS["doctor"] = lambda app: app.command("doctor")(command)
        sys.argv[1:] = ["doctor"]
        main.main()
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_without_a_traceback(number: signal.Signals, code: int):
    process = start_waiting("time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_while_the_command_is_imported_shows_nothing(number: signal.Signals, code: int):
    program = """
        import sys, time
        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == "vidllava.cli.main":
                    print("ready", flush=True)
                    time.sleep(60)
        sys.meta_path.insert(0, Slow())
        from vidllava.cli import command
        command()
    """
    words = [sys.executable, "-c", textwrap.dedent(program)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, "")


def test_the_console_script_starts_where_interrupts_are_caught():
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["scripts"] == {"vidllava": "vidllava.cli:command"}


def test_an_answer_that_nobody_received_is_no_success(clip: Path, tmp_path: Path):
    """A reader that leaves after it has read something is served (`| head`); one that read nothing is not."""
    sheet = tmp_path / "sheet.png"
    flags = ("--max-new-tokens", 2, "-q", "--contact-sheet", sheet)
    process = start("ask", clip, "what happens", *flags)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, sheet.exists()) == (6, True)
    assert err.splitlines()[-1].startswith("error: standard output: was closed before the answer came")
    process = start("chat", clip, "-q", "--max-new-tokens", 2, stdin=-1)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("what?\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate("and then?\n", timeout=60)
    assert (process.returncode, "error" in err) == (0, False)


def test_help_that_is_not_read_to_its_end_is_no_fault():
    process = start("ask", "--help")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    "words", [("ask", "{clip}", "what?"), ("chat", "{clip}"), ("models", "list", "--json")]
)
def test_a_result_that_has_nowhere_to_go_is_told(clip: Path, words: tuple[str, ...]):
    given = [word.format(clip=clip) for word in words]
    process = start(*given, preexec_fn=lambda: os.close(1), stdout=None)
    _, err = process.communicate(timeout=60)
    what, hint = "is closed, and the result would be lost", "leave it open; /dev/null takes anything"
    assert (process.returncode, err) == (6, f"error: standard output: {what} ({hint})\n")


def test_a_working_folder_that_was_deleted_is_told(clip: Path, tmp_path: Path):
    for words in (("frames", clip), ("doctor",)):
        (tmp_path / "gone").mkdir()
        process = start(*words, preexec_fn=lambda: (os.chdir(tmp_path / "gone"), os.rmdir(tmp_path / "gone")))
        out, err = process.communicate(timeout=60)
        told = (
            "error: working folder: is not there any more: No such file or directory (cd into one that is)\n"
        )
        assert (process.returncode, out, err) == (2, "", told)


def test_a_closed_stdout_ends_in_silence(clip: Path):
    process = start("frames", clip, "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def test_started_with_stdout_closed(clip: Path):
    """Its result would be lost; one that goes into a file is not."""
    process = start("frames", clip, preexec_fn=lambda: os.close(1), stdout=None)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.startswith("error: standard output: is closed")) == (6, True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_errors_that_cannot_be_written_keep_their_code(clip: Path, bad_files: dict[str, Path]):
    with open("/dev/full", "w") as full:
        process = start("frames", bad_files["text"], stderr=full)
        process.communicate(timeout=30)
        assert process.returncode == 3
        process = start("--debug", "frames", bad_files["text"], stderr=full)
        process.communicate(timeout=30)
        assert process.returncode == 3
        process = start("frames", clip, stderr=full)
        assert process.communicate(timeout=30)[0].startswith(f"{clip}: 128 x 96")
        assert process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_standard_output_is_named(clip: Path):
    what, hint = "cannot be written: No space left on device", "make room, or send it elsewhere"
    with open("/dev/full", "w") as full:
        process = start("frames", clip, stdout=full)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (6, f"error: standard output: {what} ({hint})\n")


def test_a_locale_without_unicode_does_not_crash(clip: Path, tmp_path: Path):
    name = tmp_path / "höhe.mp4"
    name.write_bytes(clip.read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("frames", name, "--json", env=environment)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["media"] == str(name)


def test_ask_as_a_process_answers_and_leaves_nothing(clip: Path, tmp_path: Path):
    process = start("ask", clip.resolve(), "what happens", "--max-new-tokens", 3, "-q", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.endswith("\n")
    assert err == "warning: the answer was cut at --max-new-tokens 3\n"
    assert list(tmp_path.iterdir()) == []


def test_ask_streams_to_a_terminal(clip: Path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start("ask", clip, "what happens", "--max-new-tokens", 8, "-q", stdout=theirs)
    process.communicate(timeout=120)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert process.returncode == 0
    assert shown.endswith("\n")


def broken(fault: BaseException):
    def command() -> None:
        raise fault

    return command


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (RuntimeError("odd\nstate"), 1, "RuntimeError: odd state"),
        (MemoryError(), 6, "memory"),
        (OSError(28, "No space left on device", "out.json"), 6, "out.json: no space left"),
        (OSError(28, "No space left on device"), 6, "output: no space left on the disk (make room)"),
        (PermissionError(13, "Permission denied", "out.json"), 6, "out.json: no permission"),
        (ResourceError("disk", "full"), 6, "disk: full"),
    ],
)
def test_a_fault_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, fault: Exception, code: int, words: str
):
    monkeypatch.setattr(main, "program", lambda *_: lambda *_, **__: broken(fault)())
    result = run("doctor")
    assert result.code == code
    assert words in result.error


def test_debug_shows_the_traceback_wherever_it_stands(run: Run, bad_files: dict[str, Path]):
    for arguments in (["--debug", "frames", bad_files["empty"]], ["frames", bad_files["empty"], "--debug"]):
        result = run(*arguments)
        assert result.code == 3
        assert "Traceback" in result.err
        assert result.err.splitlines()[-1].startswith("error: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit on addresses")
@pytest.mark.parametrize("kilobytes", [250_000, 400_000], ids=["for the decoders", "for torch"])
def test_too_little_memory_to_load_the_libraries_is_a_limit_and_one_line(clip: Path, kilobytes: int):
    command = f'ulimit -v {kilobytes}; exec "$@"'
    words = [sys.executable, "-m", "vidllava.cli.main", "ask", str(clip), "what happens", "--model", "nano"]
    ended = subprocess.run(["sh", "-c", command, "sh", *words], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (ResourceError.exit_code, "")
    assert ended.stderr.startswith("error: ")
    assert "memory" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_process_without_memory_imports_nothing_to_say_so(monkeypatch: pytest.MonkeyPatch):
    def no_room(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("builtins.__import__", no_room)
    found = main.as_expected(MemoryError())
    monkeypatch.undo()
    assert isinstance(found, ResourceError)
