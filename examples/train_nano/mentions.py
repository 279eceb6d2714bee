"""The things that a question speaks of: the place of each name in it, for extra labels.

At the last token of a name the model should know what it has seen of that thing: its form, its colour, what
it does, or that it is not there. These labels teach binding: without them nano answered "what colour is the
circle" for a thousand steps with the colour of anything in sight.
"""

from __future__ import annotations

import re

from examples.train_nano.dense import DEEDS
from vidllava.nano.questions import BARE_OF
from vidllava.nano.scene import COLOURS, FORMS, Scene, noun

_NAME = re.compile(
    rf"\b(?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<noun>{'|'.join(noun(form) for form in FORMS)})\b",
    re.IGNORECASE,
)


def mentions(text: str, scene: Scene) -> list[tuple[int, int, int | None]]:
    """(start, end, number of the thing) for every name in ``text``; None: no such thing is there.

    A name that fits several things is left out, and so is one that fits only what a thing becomes.
    """
    found: list[tuple[int, int, int | None]] = []
    for match in _NAME.finditer(text):
        colour, form = (match["colour"] or "").lower(), match["noun"].lower()
        same = [n for n, thing in enumerate(scene.things) if noun(thing.form).lower() == form]
        fitting = [n for n in same if colour in ("", scene.things[n].colour)]
        later = [n for n in same if colour == scene.things[n].deed.colour]
        if len(fitting) == 1:
            found.append((*match.span(), fitting[0]))
        elif not fitting and not later:
            found.append((*match.span(), None))
    return found


def said_deed(claim: str) -> int:
    """The class (in ``DEEDS``) of the deed that a claim speaks of (in "move left": left), -1 for none."""
    verb, _, rest = claim.partition(" ")
    verb = next((full for full, bare in BARE_OF.items() if verb in (full, bare)), "")
    if not verb:
        return -1
    return DEEDS.index(rest if verb == "moves" else verb)
