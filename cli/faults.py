"""How a fault becomes one line on stderr and an exit code.

The codes are those of ``vidllava.errors``, 130 and 143 for the two signals, and 1 for what nobody expected.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence

from typer.exceptions import TyperException

from vidllava.errors import ResourceError, UsageError, VidllavaError, is_allocation_failure

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
