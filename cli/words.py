"""Which words of a command line are media, which one is the question, and texts that are read from a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vidllava.cli.console import Console
from vidllava.errors import UsageError
from vidllava.media.sources import STDIN

_EXAMPLE = 'vidllava ask clip.mp4 "what happens"'
_FROM_FILE = "@"
_MOST_BYTES = 16 << 20
_SHOWN_CHARACTERS = 40


def media_and_question(
    words: Sequence[str], named: str | None, console: Console, *, flagged: Sequence[str] = ()
) -> tuple[list[str], str]:
    """The media and the question of ``vidllava ask``.

    ``words`` are the arguments: with ``named`` (``--question``) all are media, else the last is the question,
    whatever it looks like. ``flagged`` are media given by an option; they come first. Raises UsageError where
    one of the two is missing, and where standard input would be both.
    """
    if named is not None:
        media, text = [*flagged, *words], named
        if not media:
            raise UsageError("MEDIA", "is missing", 'for example: vidllava ask clip.mp4 -p "what happens"')
    elif not words:
        raise UsageError("question", "is missing", f"for example: {_EXAMPLE}")
    else:
        media, text = [*flagged, *words[:-1]], words[-1]
        _tell_file(text, bool(media), console)
    if media.count(STDIN) + _is_stdin(text, named is not None) > 1:
        raise UsageError(
            "-", "stands for two things, and there is one standard input", "give the other as a file"
        )
    if named is not None:
        return media, named_question(named)
    return media, _asked(_read_stdin("question") if text == STDIN else text)


def named_question(value: str) -> str:
    """What ``--question`` says: TEXT, ``@FILE``, or ``-`` for standard input. Raises UsageError."""
    return _asked(_read_stdin("--question") if value == STDIN else text_option("--question", value))


def _asked(text: str) -> str:
    if not text.strip():
        raise UsageError("question", "is empty", "for example: what happens")
    return text.strip()


def _tell_file(text: str, has_media: bool, console: Console) -> None:
    """The last argument is the question also where it names a file: asked with a note, or refused alone."""
    is_file = text != STDIN and os.path.exists(text)
    if not has_media:
        kind = "a folder" if os.path.isdir(text) else "a file" if is_file else "a question"
        what = f"is {kind}, but there is no question" if is_file else "is a question, but no media"
        raise UsageError(short(text), what, f"the question comes last: {_EXAMPLE}")
    if is_file:
        console.note(
            f"{short(text)} is asked as the question, and is a file's name too; name the question with "
            "--question where that file is meant"
        )


def _is_stdin(text: str, named: bool) -> bool:
    return text == STDIN or (named and text == _FROM_FILE + STDIN)


def text_option(flag: str, value: str) -> str:
    """The text of an option: itself, or what ``@FILE`` and ``@-`` name; ``@@`` begins a text with ``@``.

    Raises UsageError for a file that cannot be read as UTF-8 text.
    """
    if not value.startswith(_FROM_FILE) or value == _FROM_FILE:
        return value
    name = value[1:]
    if name.startswith(_FROM_FILE):
        return name
    if name == STDIN:
        return _read_stdin(flag)
    thing, hint = f"{flag} {short(value)}", "check the path; @@ begins a text with @"
    try:
        with open(os.path.expanduser(name), "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data[:_MOST_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise UsageError(thing, f"is not UTF-8 text (byte {fault.start})", "convert it to UTF-8") from None
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "is not a file name"
        raise UsageError(thing, f"cannot be read: {reason.lower()}", hint) from None
    if len(data) > _MOST_BYTES:
        raise UsageError(thing, f"has more than {_MOST_BYTES >> 20} MB of text", "give a shorter file")
    return text.strip()


def _read_stdin(thing: str) -> str:
    if sys.stdin is None:
        raise UsageError(thing, "- was given, but standard input is closed", "give the text itself")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as fault:
        raise UsageError(
            thing, f"standard input is not {fault.encoding} text", f"convert it to {fault.encoding}"
        ) from None


def short(text: str) -> str:
    """``text`` as it stands in a message: of a long one the start."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}...")


def refuse_batch_flags(given: Mapping[str, Any]) -> None:
    """Raises UsageError for a flag that means something in a batch only."""
    for name in ("media_root", "workers"):
        if given[name] is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(flag, "is for --batch", f"leave out {flag}")
