"""Subtitles at the sampled instants: the lines of Video-MME's second setting, from SubRip and WebVTT files.

preface("a.srt", (0.0, 12.5, 25.0))     # "This video's subtitles are listed below: \\n...\\n"
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Sequence

from vidllava.errors import MediaError

HEAD = "This video's subtitles are listed below: \n"
NONE = "No subtitles available"
MAX_BYTES = 64 << 20
_HINT = "SubRip or WebVTT, in UTF-8, UTF-16 or Latin-1"
# 01:02:03,4 or 02:03.400 or 1:02:03; WebVTT's settings may follow the second one.
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d\d)(?:\s?[,.:]\s?(\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*--?>\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<(?:\d+:)?\d\d:\d\d\.\d{3}>|\{\\[^{}]*\}")
_ENTITY = re.compile(r"&(?:amp|lt|gt|nbsp|lrm|rlm|quot|apos|#\d+|#x[0-9A-Fa-f]+);")
# UTF-32 first: its little-endian mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Of a text's letters: more that are not ASCII are no Latin-1, but an encoding of another script.
_MAX_LATIN_1 = 0.3

Cue = tuple[float, float, str]
"""Start and end in seconds from the clip's start, and the text without markup."""


def preface(path: str | None, instants_seconds: Sequence[float]) -> str:
    """The words before a prompt: none for None, else the lines active at the instants, by their start.

    An empty path is a missing file, and the benchmark's own words say so; so does a file without any text.
    Raises MediaError for a file that cannot be read, or in which no cue is found.
    """
    if path is None:
        return ""
    cues = read_cues(path) if path else []
    if not cues:
        return f"{HEAD}{NONE}\n"
    lines = [
        text
        for start, end, text in sorted(cues, key=lambda cue: cue[0])
        if text and any(start <= instant < end for instant in instants_seconds)
    ]
    return HEAD + "\n".join(lines) + "\n"


def read_cues(path: str) -> list[Cue]:
    """The cues in the order of the file; none of an empty one. Raises MediaError where a text has no cue."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise MediaError(path, f"cannot be read: {fault.strerror}", "check its permissions") from None
    if len(data) > MAX_BYTES:
        raise MediaError(path, f"has more than {MAX_BYTES >> 20} MiB, too much for subtitles", _HINT)
    text = _decoded(path, data)
    is_webvtt = text.startswith("WEBVTT")
    cues = _cues(re.split(r"\r\n|\r|\n", text), is_webvtt)
    if not cues and text.removeprefix("WEBVTT").strip():
        raise MediaError(path, "holds no subtitle with its times", _HINT)
    return cues


def _decoded(path: str, data: bytes) -> str:
    """The text: by its byte order mark, UTF-16 by its zero bytes, UTF-8, else Latin-1 (as Windows has it)."""
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if marked is None and 0 in data:
        # The digits of the times have their zero byte first in big-endian order.
        marked = "utf-16-be" if data[::2].count(0) > data[1::2].count(0) else "utf-16-le"
    try:
        text = data.decode(marked or "utf-8")
    except UnicodeDecodeError:
        if marked is not None:
            raise MediaError(path, f"is damaged: no {marked.upper()} text throughout", _HINT) from None
        text = data.decode("cp1252", errors="replace")
        letters = [character for character in text if character.isalpha()]
        if "\ufffd" in text or sum(not one.isascii() for one in letters) > _MAX_LATIN_1 * len(letters):
            raise MediaError(
                path, "is in an encoding that cannot be told", f"convert it to UTF-8; {_HINT}"
            ) from None
    if "\0" in text:
        raise MediaError(path, "holds zero bytes, and is not text", _HINT)
    return text


def _cues(lines: Sequence[str], is_webvtt: bool) -> list[Cue]:
    """A cue goes from its line of times to the next one's; in WebVTT to the first blank line.

    In SubRip a blank line may stand within a cue, and the one between two cues may be missing: what tells a
    cue's number is that it stands right above the times, in a file that numbers its first cue.
    """
    matches = [(number, _TIMES.fullmatch(line)) for number, line in enumerate(lines)]
    starts = [(number, times) for number, times in matches if times is not None]
    is_numbered = bool(starts) and starts[0][0] > 0 and lines[starts[0][0] - 1].strip().isdecimal()
    found = []
    for place, (number, times) in enumerate(starts):
        following = starts[place + 1][0] if place + 1 < len(starts) else None
        said = list(lines[number + 1 : following])
        if is_webvtt:
            blank = next((below for below, line in enumerate(said) if not line.strip()), len(said))
            said = said[:blank]
        elif following is not None and is_numbered and said and said[-1].strip().isdecimal():
            said = said[:-1]
        found.append((_seconds(times.groups()[:4]), _seconds(times.groups()[4:]), _plain(" ".join(said))))
    return found


def _plain(said: str) -> str:
    """Without tags, positions and entities."""
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), _TAG.sub("", said))
    return " ".join(text.split())


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds = (int(part or 0) for part in parts[:3])
    return 3600 * hours + 60 * minutes + seconds + int((parts[3] or "").ljust(3, "0")) / 1000
