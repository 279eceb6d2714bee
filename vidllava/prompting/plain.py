"""Stage 1's format: the visual, then what it shows, and nothing else.

LLaVA-NeXT `llava/train/train.py` `preprocess_plain`: the question is reduced to its visual, no roles and no
system line are spelt, and the caption and the line end after it are trained on. All that can be learnt is
to read the visual, which is what the projector is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidllava.errors import DatasetError
from vidllava.prompting.template import IGNORE, SLOT, Control, Encoder, Template, TokenizedPrompt
from vidllava.prompting.turns import Turn


def tokenize_plain(
    turns: Sequence[Turn], template: Template, encoder: Encoder, *, source: str
) -> TokenizedPrompt:
    """Visuals and one answer, as ids with labels. Raises DatasetError for any other conversation."""
    spoken = [turn for turn in turns if turn.role != "system"]
    if len(spoken) != 2:
        what = f"has {len(spoken)} turns; the plain format of stage 1 takes a question and a caption"
        raise DatasetError(source, what, "--stage 1.5 or later for conversations")
    question, caption = spoken
    slots = [SLOT] * len(question.placeholders)
    if not slots:
        raise DatasetError(source, "has no picture or clip", "stage 1 learns from captions of visuals")
    begin = [encoder.special(piece.name) for piece in template.begin if isinstance(piece, Control)]
    labels = encoder.encode(f"{caption.text}\n")
    before = [*begin, *slots]
    targets = labels if caption.learned else [IGNORE] * len(labels)
    return TokenizedPrompt(tuple(before + labels), tuple([IGNORE] * len(before) + targets))
