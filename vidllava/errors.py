"""The faults that vidllava expects, each with its exit code.

    VidllavaError           1   a fault of ours (never raised bare)
    ├── UsageError          2   wrong usage: a flag, a value, a combination
    ├── MediaError          3   this media cannot be used
    ├── DatasetError        4   this data set is invalid
    ├── ModelError          5   this model or checkpoint is missing or invalid
    │   └── UnfamiliarMedia 5   a model that nobody asked for by name was not trained on such media
    ├── ResourceError       6   disk, memory, time or size limit
    ├── DivergedError       7   training diverged
    └── PartialFailure     10   a batch finished, some items failed

An error reads ``<thing>: <what> (<what to try>)`` on one line: which value, which bound, what next.
"""

from __future__ import annotations

# What libraries say in a fault of another kind: torch's allocator, the linker, the start of a thread.
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "not enough memory",
    "failed to map segment",
    "can't start new thread",
)

# Characters of a name and of what is said about it: a value of thousands would hide the message.
_MOST_NAME, _MOST_WORDS = 400, 2000


def _shortened(text: str, most: int) -> str:
    """The start and the end of a text that is longer than ``most``, and how long it is."""
    if len(text) <= most:
        return text
    return f"{text[: most // 4]} ... {text[-most // 4 :]} [{len(text):,} characters]"


class VidllavaError(Exception):
    """An expected fault. ``str()`` is one line for people; ``exit_code`` is for programs."""

    exit_code = 1

    def __init__(self, thing: object, what: str, hint: str | None = None) -> None:
        self.thing = str(thing)
        self.what = what
        self.hint = hint
        super().__init__(self.thing, what, hint)

    def __str__(self) -> str:
        hint = f" ({_shortened(self.hint, _MOST_WORDS)})" if self.hint else ""
        line = f"{_shortened(self.thing, _MOST_NAME)}: {_shortened(self.what, _MOST_WORDS)}{hint}"
        # A file name or a library's message may hold line ends or terminal escapes: keep one clean line.
        return "".join(c if c.isprintable() else " " for c in line)


class UsageError(VidllavaError):
    """A flag, a value or a combination that cannot be meant."""

    exit_code = 2


class MediaError(VidllavaError):
    """A file that is missing, broken, or holds no usable pictures."""

    exit_code = 3


class DatasetError(VidllavaError):
    """A data set with invalid rows."""

    exit_code = 4


class ModelError(VidllavaError):
    """A model or checkpoint that is missing or invalid."""

    exit_code = 5


class UnfamiliarMedia(ModelError):
    """Media unlike anything that the model was trained on, which was not asked for by name."""


class ResourceError(VidllavaError):
    """Disk, memory, time or size limit reached."""

    exit_code = 6


class DivergedError(VidllavaError):
    """Training produced NaN or Inf and was ended."""

    exit_code = 7


class PartialFailure(VidllavaError):
    """A batch finished, but some of its items failed."""

    exit_code = 10


def is_allocation_failure(fault: BaseException) -> bool:
    """Whether ``fault`` is memory running out, as Python, a library that is loaded, or torch report it.

    Stands here because whoever has no memory left can import nothing any more.
    """
    if isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError":
        return True
    says_so = any(words in str(fault).lower() for words in _NO_MEMORY)
    return says_so and isinstance(fault, RuntimeError | OSError | ImportError)
