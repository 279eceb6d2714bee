"""What is said on stderr about an answer, in `ask` and in `chat`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidllava.cli.console import Console

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer

_SOURCES = {"tower": "read by the tower", "memory": "features remembered", "disk": "features from the cache"}


def tell_cut(answer: Answer, max_new_tokens: int, console: Console) -> None:
    """Whether the answer ended by itself."""
    if answer.stopped:
        return
    asked_for = answer.completion_tokens == max_new_tokens
    place = f"--max-new-tokens {max_new_tokens}" if asked_for else "the end of the context"
    console.warn(f"the answer was cut at {place}")


def tell_work(answer: Answer, seconds: dict[str, float], console: Console) -> None:
    """Where the features of each item are from, what each stage took, and what went wrong with the cache."""
    for item, seen in zip(answer.question.items, answer.visuals, strict=True):
        repeated = f"; {seen.num_repeated} of {item.layout.num_grids} pictures repeat an earlier one's pixels"
        console.detail(f"{item.path}: {_SOURCES[seen.source]}" + (repeated if seen.num_repeated else ""))
    console.detail(", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
    for note in answer.cache_notes:
        console.note(note)
