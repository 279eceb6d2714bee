"""One labelled question: what is sent, about which media, and how the answer will be scored.

EvalItem(id="7", row=1, media=("a.mp4",), paths=("/data/a.mp4",), question="what moves?",
         prompt="what moves?\\nA. the square\\nB. the star", options=("the square", "the star"), answer="A",
         scoring="choice")
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from vidllava.files.identity import media_identity

Scoring = Literal["choice", "exact", "rouge", "wups", "judge"]
Groups = tuple[tuple[str, str], ...]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class EvalItem:
    """One question. Every reader of a data set makes these, and nothing else."""

    id: str
    row: int
    """Of the file, counted from 1: what an error names."""
    media: tuple[str, ...]
    """As the data set names them."""
    paths: tuple[str, ...]
    question: str
    """As the data set has it, without options and instructions."""
    prompt: str
    """What is sent."""
    scoring: Scoring
    options: tuple[str, ...] = ()
    """Their texts, without letters; the letters are A, B, C, ... in order."""
    answer: str | None = None
    """The letter of the right option, or a text; None where the label is hidden."""
    alternatives: tuple[str, ...] = ()
    """Other texts that are as right as ``answer``."""
    groups: Groups = ()
    """(name, value): category, duration, task and the like, for accuracy by group."""
    own: tuple[tuple[str, Any], ...] = ()
    """Fields of ``AskOptions`` that this question sets itself: start_seconds, end_seconds, num_frames, ..."""
    max_new_tokens: int | None = None
    """As the benchmark has it; None leaves it to the flags."""
    subtitles: str | None = None
    """A file whose lines at the sampled frames stand before the prompt; empty for a missing one."""
    earlier: tuple[str, ...] = ()
    """Questions asked before, in the same conversation: the model's own answers stand in the prompt."""

    @cached_property
    def content_key(self) -> str:
        """Names what is asked and how it is scored, the content of the media with it; not where it stands."""
        words = {
            name: value for name, value in asdict(self).items() if name not in ("row", "paths", "subtitles")
        }
        files = [*self.paths, *([self.subtitles] if self.subtitles else [])]
        words["files"] = [media_identity(path) for path in files]
        return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=12).hexdigest()


def letter(number: int) -> str:
    """A for option 0, B for 1."""
    return LETTERS[number]


def lettered(options: tuple[str, ...], form: str = "{letter}. {option}") -> str:
    """The options, one a line."""
    return "\n".join(form.format(letter=LETTERS[n], option=option) for n, option in enumerate(options))
