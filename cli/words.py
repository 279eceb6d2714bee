"""Which words of ``vidllava ask`` are media, and which is the question?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidllava.errors import UsageError
from vidllava.media.sources import STDIN

_EXAMPLE = 'vidllava ask clip.mp4 "what happens"'


def media_and_question(media: list[str], text: str | None) -> tuple[list[str], str]:
    """All words but the last are media, the last is the question. Raises UsageError where one is missing."""
    if text is None:
        raise UsageError("question", "is missing", _EXAMPLE)
    if not media:
        what = (
            "is a file, but there is no question" if Path(text).is_file() else "is a question, but no media"
        )
        raise UsageError(text, what, f"the question comes last: {_EXAMPLE}")
    if Path(text).is_file():
        raise UsageError(text, "is a file, but there is no question", f"for example: {_EXAMPLE}")
    if media.count(STDIN) + (text == STDIN) > 1:
        raise UsageError(
            "-", "stands for two things, and there is one standard input", "give the other as a file"
        )
    if text == STDIN:
        text = _read_question()
    if not text.strip():
        raise UsageError("question", "is empty", "for example: what happens")
    return media, text.strip()


def _read_question() -> str:
    if sys.stdin is None:
        raise UsageError("question", "- was given, but standard input is closed")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as fault:
        raise UsageError("question", f"standard input is not {fault.encoding} text") from None


def refuse_batch_flags(given: Mapping[str, Any]) -> None:
    """Raises UsageError for a flag that means something in a batch only."""
    for name in ("media_root", "workers"):
        if given[name] is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(flag, "is for --batch", f"leave out {flag}")
