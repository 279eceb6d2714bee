"""The command ``vidllava``: its commands, and the one place where a fault becomes a line and a code.

    vidllava ask clip.mp4 "what happens"

Importing this module imports neither torch nor transformers nor a decoder: commands import them when they
run, after everything that can be checked without them.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated

import typer
from typer.exceptions import TyperException

import vidllava
from vidllava import registry
from vidllava.cli import startup
from vidllava.cli.console import Console
from vidllava.errors import ResourceError, UsageError, VidllavaError, is_allocation_failure


def _ask(app: typer.Typer) -> None:
    from vidllava.cli import ask

    app.command("ask")(ask.ask)


def _chat(app: typer.Typer) -> None:
    from vidllava.cli import chat

    app.command("chat")(chat.chat)


def _frames(app: typer.Typer) -> None:
    from vidllava.cli import frames

    app.command("frames")(frames.frames)


def _eval(app: typer.Typer) -> None:
    from vidllava.cli import eval

    app.command("eval", cls=eval.EvalCommand)(eval.evaluate)


def _finetune(app: typer.Typer) -> None:
    from vidllava.cli import finetune

    app.command("finetune")(finetune.finetune)


def _group(name: str) -> Callable[[typer.Typer], None]:
    def add(app: typer.Typer) -> None:
        app.add_typer(importlib.import_module(f"vidllava.cli.{name}").app, name=name)

    return add


def _doctor(app: typer.Typer) -> None:
    from vidllava.cli import doctor

    app.command("doctor")(doctor.doctor)


COMMANDS: dict[str, Callable[[typer.Typer], None]] = {
    "ask": _ask,
    "chat": _chat,
    "frames": _frames,
    "eval": _eval,
    "finetune": _finetune,
    **{name: _group(name) for name in ("bench", "data", "models", "cache")},
    "doctor": _doctor,
}
"""What adds each command, in the order of the help: a command's module is imported when it is added."""


def program(arguments: Sequence[str] = ()) -> typer.Typer:
    """The program with the one command that ``arguments`` name, or with all of them."""
    app = typer.Typer(
        name="vidllava",
        help="Ask questions of video, fine-tune on mixed images and video, count the frames that fit.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        # --num_frames is --num-frames: half of this field spells options with underscores.
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": lambda token: token.replace("_", "-"),
        },
    )
    app.callback()(root)
    first = next((word for word in arguments if not word.startswith("-")), None)
    for name in [first] if first in COMMANDS else COMMANDS:
        COMMANDS[name](app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        Console().write(f"vidllava {vidllava.__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere.")
    ] = False,
) -> None:
    """Both options are dealt with before a command runs; they stand here for --help."""


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is vidllava.cli._interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    startup.leave(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; a fault is one line on stderr."""
    arguments, debug = _take_debug(arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # None, or a test's stand-in
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        _check_working_folder()
        registry.plugins()  # those that cannot be loaded are told before anything is done
        code = program(arguments)(list(arguments), prog_name="vidllava", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer's end where nobody reads the help
            return 0
        return end.code if isinstance(end.code, int) else 1  # SIGTERM
    except Exception as fault:
        if type(fault).__name__ == "NoArgsIsHelpError":  # private to typer; its help is on stdout already
            return UsageError.exit_code
        if debug:
            with contextlib.suppress(OSError):  # stderr may be full: the code still tells
                traceback.print_exc()
        expected = as_expected(fault, arguments)
        Console().error(str(expected))
        return expected.exit_code


def _check_working_folder() -> None:
    """Raises UsageError where it was deleted: torch and the decoders end in ways of their own then."""
    try:
        os.getcwd()
    except OSError as fault:
        what = f"is not there any more: {fault.strerror}"
        raise UsageError("working folder", what, "cd into one that is") from None


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """``--debug`` may stand before or after the command's name."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:end] if word != "--debug"]
    return [*kept, *arguments[end:]], len(kept) < end


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


INTERRUPTED, TERMINATED = 130, 143
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_QUOTED = re.compile(r"'([^']*)'")
_UNKNOWN = re.compile(r"No such (command|option):? '?([^\s']+)'?\.?")
_MISSING = re.compile(r"Missing (\w+) '?([^']+?)'?(?:\.|$)")
_INVALID = re.compile(r"Invalid value for '?([^':]+)[^:]*: (.*)", re.DOTALL)
_SMALLER = "fewer frames, a larger --pool-stride, --dtype bfloat16 on a GPU, or a smaller model"


def as_expected(fault: Exception, arguments: Sequence[str] = ()) -> VidllavaError:
    """The expected fault that ``fault`` is; a bare ``VidllavaError`` (exit code 1) for a fault of ours.

    ``arguments`` are the command line's words, for hints on a word that was read as something else.
    """
    if isinstance(fault, VidllavaError):
        return fault
    if isinstance(fault, TyperException):
        return _wrong_usage(fault, arguments)
    if isinstance(fault, OSError) and fault.errno in (*_DISK_FULL, *_NO_PERMISSION):
        thing = fault.filename or "output"
        what = "no space left on the disk" if fault.errno in _DISK_FULL else "no permission"
        hint = "make room" if fault.errno in _DISK_FULL else "check the permissions"
        return ResourceError(thing, what, "another folder" if fault.filename else hint)
    if isinstance(fault, OSError) and fault.errno == errno.ENAMETOOLONG:
        return UsageError(
            fault.filename or "path", "is too long a name for this file system", "a shorter name"
        )
    if is_allocation_failure(fault):
        return ResourceError("memory", "not enough for this model and these frames", _SMALLER)
    message = " ".join(str(fault).split()) or "no message"
    return VidllavaError(type(fault).__name__, message, "a fault of vidllava; --debug shows where")


def _wrong_usage(fault: TyperException, arguments: Sequence[str]) -> VidllavaError:
    """Typer's own words, put in our order: what is wrong, then what to try."""
    message = fault.format_message().removesuffix(".")
    if match := _UNKNOWN.match(message):
        kind, name = match[1].lower(), match[2]
        if kind == "option" and (file := _dashed_file(name, arguments)) is not None:
            return UsageError(file, "is a file whose name is read as an option", f"./{file}")
        near = getattr(fault, "possibilities", None) or _QUOTED.findall(message[match.end() :])
        return UsageError(
            name, f"no such {kind}", f"did you mean {' or '.join(sorted(near))}?" if near else "see --help"
        )
    if match := _MISSING.match(message):
        return UsageError(match[2], f"{match[1]} is missing", "see --help")
    if match := _INVALID.match(message):
        return UsageError(match[1], match[2].removeprefix("Value error, "), "see --help")
    return UsageError("command line", message, "see --help")


def _dashed_file(option: str, arguments: Sequence[str]) -> str | None:
    """The argument that begins like an unknown ``option`` and is a file, or has the ending of one."""
    for word in arguments:
        is_file = os.path.exists(word) or re.fullmatch(r"-[^=\s]*\.\w{2,5}", word) is not None
        if word.startswith(option) and is_file:
            return word
    return None


if __name__ == "__main__":
    main()
