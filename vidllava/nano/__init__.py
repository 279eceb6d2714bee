"""nano: the embedded model, the generated world it was trained on, and its score.

words, scene, compose, shapes, draw     the world: what is there, what it does, and its pixels (numpy only)
kinds, questions, lessons               what can be asked, and the true answers
source                                  the world as `--data nano-world:<stage>`
weights, score                          the model that ships, and its figures from real files

`examples/train_nano` in the repository trains it from nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidllava.nano.source import WorldSource


def world_source(spec: str) -> WorldSource:
    """The source of training samples that ``nano-world:<spec>`` names; see ``vidllava.nano.source``."""
    from vidllava.nano import source

    return source.world_source(spec)
