"""Training must not teach that what it never shows does not exist.

A tower that is shown green things of every form but the star learns "green, so no star", and says "green
cross" to the first green star it meets. So where a green thing is told from the other forms, "star" is not
among the choices: the held-out combination is neither shown nor denied.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer

from vidllava.nano.questions import WorldQuestion
from vidllava.nano.scene import COLOURS, FORMS, HELD_OUT, SHAPES, Scene

_PARTNER = {colour: form for colour, form in HELD_OUT} | {form: colour for colour, form in HELD_OUT}
_PALETTE = tuple(COLOURS)
_CONTRAST, _NAMELESS = 90.0, 55.0  # RGB levels between a tint and the ground, and the named colours
_FORM_WORDS = (*SHAPES, "letter", "number")
_FORM_OF = torch.tensor([FORMS.index(_PARTNER[c]) if c in _PARTNER else -1 for c in _PALETTE])
_COLOUR_OF = torch.tensor([_PALETTE.index(_PARTNER[f]) if f in _PARTNER else -1 for f in FORMS])


def without_unseen_forms(logits: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """``logits`` [N, forms + 1] without the form that is never shown in each row's colour (int64 [N])."""
    return _without(logits, colours, _FORM_OF)


def without_unseen_colours(logits: torch.Tensor, forms: torch.Tensor) -> torch.Tensor:
    """``logits`` [N, colours + 1] without the colour that each row's form is never shown in."""
    return _without(logits, forms, _COLOUR_OF)


def _without(logits: torch.Tensor, given: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    known = (given >= 0) & (given < len(partner))
    return without(logits, torch.where(known, partner[given.clamp(0, len(partner) - 1)], -1))


def without(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``logits`` [N, C] with -inf at ``index`` [N] of each row; -1 takes nothing out."""
    out = torch.zeros_like(logits, dtype=torch.bool)
    out.scatter_(1, index.clamp(min=0)[:, None], (index >= 0)[:, None])
    return logits.masked_fill(out, float("-inf"))


@lru_cache(maxsize=1)
def _meanings(tokenizer: Tokenizer) -> tuple[dict[int, str], dict[tuple[str, int], int]]:
    """Token -> its colour or shape, and (colour or shape, spelling) -> token."""
    words: dict[int, str] = {}
    tokens: dict[tuple[str, int], int] = {}
    for word in (*COLOURS, *_FORM_WORDS):
        for spelling, text in enumerate((word, f" {word}", word.capitalize())):
            (token,) = tokenizer.encode(text).ids
            words[token], tokens[word, spelling] = word, token
    return words, tokens


def unseen_tokens(tokenizer: Tokenizer, made: WorldQuestion, answer: tuple[int, ...]) -> list[int]:
    """For each token of ``answer``, the token that would make it a combination never shown, or -1.

    A form follows its colour ("the green ..."), a new colour follows "becomes"; in an answer of one word the
    other half stands in the question ("what shape is the green thing").
    """
    words, tokens = _meanings(tokenizer)
    asked = [words.get(token) for token in tokenizer.encode(f" {made.text}").ids]
    found, last_form = [], next((word for word in asked if word in _FORM_WORDS), None)
    last_colour = next((word for word in asked if word in COLOURS), None)
    alone = made.kind in ("colour", "shape", "colour_start", "colour_end")
    for place, token in enumerate(answer):
        word = words.get(token)
        before = words.get(answer[place - 1]) if place else None
        given = None
        if word in _FORM_WORDS:
            given = before if before in COLOURS else last_colour if alone else None
        elif word in COLOURS and (alone or _says_becomes(tokenizer, answer, place)):
            given = last_form
        unseen = _PARTNER.get(given) if given else None
        spelling = next((s for s in range(3) if word and tokens[word, s] == token), 1)
        taken = tokens[unseen, spelling] if unseen else -1
        found.append(-1 if taken == token else taken)
        if word in _FORM_WORDS:
            last_form = word
    return found


def _says_becomes(tokenizer: Tokenizer, answer: tuple[int, ...], place: int) -> bool:
    return place > 0 and tokenizer.id_to_token(answer[place - 1]) == "Ġbecomes"


def tinted(rng: np.random.Generator, scene: Scene, share: float) -> Scene:
    """``scene`` with this share of its things in random colours, clear of the ground and of every named
    colour (so that no held-out combination is shown by chance)."""
    named = np.array(list(COLOURS.values()), np.float64)
    things = []
    for thing in scene.things:
        if rng.random() < share:
            rgb = _nameless(rng, scene.ground[0], named)
            thing = replace(thing, tint=rgb)
        things.append(thing)
    return replace(scene, things=tuple(things))


def _nameless(rng: np.random.Generator, grey: float, named: np.ndarray) -> tuple[float, float, float]:
    while True:
        rgb = rng.uniform(10, 250, 3)
        apart = np.linalg.norm(named - rgb, axis=1).min()
        if apart > _NAMELESS and np.abs(rgb - grey).max() > _CONTRAST:
            return float(rgb[0]), float(rgb[1]), float(rgb[2])
