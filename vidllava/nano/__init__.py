"""nano: the embedded model, the generated world it was trained on, and the recipe that trained it.

words       colours, shapes, splits, combinations kept out of training      (numpy only)
scene       what is there and what it does, exactly at any moment
compose     random scenes; shapes, draw: scenes to pixels; dense: labels of every cell
wordings, questions, lessons      what can be asked, and the true answers
source      the world as `--data nano-world:<stage>`
tokenizer, model                  the vocabulary, the architecture, the checkpoint folder
tower, school                     training from scratch;  score: figures from real files
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidllava.nano.source import WorldSource


def world_source(spec: str) -> WorldSource:
    """The source of training samples that ``nano-world:<spec>`` names; see ``vidllava.nano.source``."""
    from vidllava.nano import source

    return source.world_source(spec)
