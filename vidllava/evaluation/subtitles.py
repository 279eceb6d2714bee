"""Which subtitles can be read at these instants? The lines of Video-MME's second setting.

preface("a.srt", (0.0, 12.5, 25.0))     # "This video's subtitles are listed below: \\n...\\n"
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vidllava.errors import MediaError

HEAD = "This video's subtitles are listed below: \n"
NONE = "No subtitles available"
_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
MAX_BYTES = 64 << 20


def preface(path: str | None, instants_seconds: Sequence[float]) -> str:
    """What stands before a prompt: nothing for None, else the lines active at the instants, in order.

    An empty path is a missing file, and the benchmark's own words say so. Raises MediaError for a file that
    cannot be read.
    """
    if path is None:
        return ""
    if not path:
        return f"{HEAD}{NONE}\n"
    lines = [
        text
        for start, end, text in read_srt(path)
        if text and any(start <= instant < end for instant in instants_seconds)
    ]
    return HEAD + "\n".join(lines) + "\n"


def read_srt(path: str) -> list[tuple[float, float, str]]:
    """(start, end, text) in seconds from the start, without markup. Raises MediaError."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError as fault:
        raise MediaError(path, f"cannot be read: {fault.strerror}", "check its permissions") from None
    found = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        times = _TIMES.search(block)
        if times is not None:
            said = _TAG.sub("", block[times.end() :])
            found.append((_seconds(times, 1), _seconds(times, 5), " ".join(said.split())))
    return found


def _seconds(times: re.Match[str], first: int) -> float:
    hours, minutes, seconds = (int(times[first + number]) for number in range(3))
    return 3600 * hours + 60 * minutes + seconds + int(times[first + 3].ljust(3, "0")) / 1000
