"""Lessons to one batch: every question sees the same visuals, and no question sees another.

Ten questions about a clip share its frames: the visual rows are computed once, and each question with its
answer follows at the same positions as if it stood alone, hidden from the others by the attention mask.
What the model is trained on is then exactly what `ask` gives it, at a fraction of the price of one sequence
per question.

    row          0 ... P-1                   P ...              P + len(first) ...
    text         system, <visuals>           \\nQ<end>... A      \\nQ<end>... A
    position     0 ... P-1                   P ...              P ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer

from examples.train_nano.mentions import mentions, said_deed
from examples.train_nano.model import SIDE
from examples.train_nano.tokenizer import IM_END, IM_START, build_tokenizer
from examples.train_nano.unseen import unseen_tokens
from vidllava.nano.lessons import Lesson
from vidllava.nano.questions import FREE_KINDS, WorldQuestion
from vidllava.nano.scene import Scene, Thing
from vidllava.prompting.conversation import CHATML
from vidllava.prompting.layout import VisualLayout, picture_layout, square_layout, video_layout

_HIDDEN = -1e9
_NAMING_KINDS = ("who", "meets")  # single facts whose answer is a name
_MOST_THINGS = 16  # of one exhibit


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch of B lessons of one setting and frame count; P prefix rows and L rows in all.

    ids, positions   int64 [B, L]; visual rows hold 0
    mask             float32 [B, 1, L - P, L], added to the scores of the text rows
    visuals          where each visual's rows start in the prefix, and their layout
    targets          int64 [N, 4]: row among the B * (L - P) text rows, wanted id, number of the question, id
                     that is not a choice here (-1: none; see ``unseen``)
    kinds            the kind of every question, in the order of the targets' numbers
    mentions         int64 [M, 3]: text row, lesson, thing (-1: not there) of each name in question or answer,
                     where a lesson shows one scene
    asked            int64 [K, 3]: the same where the answer starts, if the question has one name, and where
                     an answer must choose the thing that it names
    claims           int64 [C, 5]: text row where the claim of a yes-or-no question ends, 1 if it is true, the
                     class of the deed it speaks of (-1: none), lesson, thing
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    visuals: tuple[tuple[int, VisualLayout], ...]
    targets: torch.Tensor
    kinds: tuple[str, ...]
    mentions: torch.Tensor
    asked: torch.Tensor
    claims: torch.Tensor
    prefix: int


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    return build_tokenizer()


@lru_cache(maxsize=200_000)
def _encode(text: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(text).ids)


@lru_cache(maxsize=8)
def _control(name: str) -> int:
    return _tokenizer().get_vocab()[name]


def layouts(lesson: Lesson, tile: int) -> tuple[VisualLayout, ...]:
    """The rows of each exhibit, as `ask` lays them out: one picture is tiled, several are squares."""
    single = sum(exhibit.medium == "picture" for exhibit in lesson.exhibits) == 1
    picture = (
        picture_layout(tile, tile, side=SIDE, tile_size=tile, pinpoints=[(tile, tile)])
        if single
        else square_layout(side=SIDE)
    )
    return tuple(
        video_layout(len(exhibit.times), side=SIDE, stride=2, mode="bilinear", newline="one_token")
        if exhibit.medium == "video"
        else picture
        for exhibit in lesson.exhibits
    )


def _prefix(visuals: Sequence[VisualLayout]) -> tuple[list[int], list[int]]:
    """Ids up to the last visual row, and where each visual starts."""
    start, end = _control(IM_START), _control(IM_END)
    ids = [start, *_encode(f"system\n{CHATML.system}"), end, *_encode("\n"), start, *_encode("user\n")]
    places = []
    for number, visual in enumerate(visuals):
        ids += _encode(" ") if number else ()
        places.append(len(ids))
        ids += [0] * visual.num_tokens
    return ids, places


def _turn(question: str, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids after the visuals up to the answer, and the answer's."""
    start, end = _control(IM_START), _control(IM_END)
    asked = (*_encode(f"\n{question}"), end, *_encode("\n"), start, *_encode("assistant\n"))
    return asked, (*_encode(answer), end)


def _extra_labels(
    made: WorldQuestion, lesson: Lesson, row: int, start: int, first: int
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]], list[tuple[int, int, int, int, int]]]:
    """Labels beside the answer's own: named, asked_of and claims of ``Packed`` for one question."""
    scene = lesson.exhibits[made.about].scene
    names = _named(made.text, scene)
    # Only after the question's end is it certain which of two clips it asks about.
    alone = [(0, thing) for _, thing in names if len(names) == 1]
    listed = _next(made.answer, scene) if made.kind in (*FREE_KINDS, *_NAMING_KINDS) else []
    asked_of = [(first + token, row, _code(made.about, thing)) for token, thing in alone + listed]
    if not lesson.one_scene:
        return [], asked_of, []
    named = [(start + token, row, thing) for token, thing in names]
    # In the answer too; there the line end before the text has no row.
    named += [(first + token, row, thing) for token, thing in _named(made.answer, scene)]
    claims = [
        (start + token, int(made.answer == "yes"), said_deed(made.claim), row, thing)
        for token in _claimed(made)
        for _, thing in names[:1]
    ]
    return named, asked_of, claims


def pack(lessons: Sequence[Lesson], *, tile: int, budget: int = 150) -> Packed:
    """Pack lessons of one setting and frame count; questions beyond ``budget`` text rows are left out."""
    visuals = layouts(lessons[0], tile)
    head, places = _prefix(visuals)
    prefix = len(head)
    turns = [_fitting(lesson, budget) for lesson in lessons]
    text = max(sum(len(asked) + len(answer) - 1 for _, asked, answer in own) for own in turns)
    shape = (len(lessons), prefix + text)
    ids, positions, owner = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)
    ids[:, :prefix], positions[:, :prefix], owner[:, :prefix] = head, np.arange(prefix), 0
    targets: list[tuple[int, int, int, int]] = []
    named, asked_of = list[tuple[int, int, int]](), list[tuple[int, int, int]]()
    claims: list[tuple[int, int, int, int, int]] = []
    kinds: list[str] = []
    for row, own in enumerate(turns):
        at = prefix
        for number, (made, asked, answer) in enumerate(own, start=1):
            spelt = (*asked, *answer[:-1])
            span = slice(at, at + len(spelt))
            ids[row, span], owner[row, span] = spelt, number
            positions[row, span] = prefix + np.arange(len(spelt))
            first = row * text + at - prefix + len(asked) - 1
            barred = unseen_tokens(_tokenizer(), made, answer)
            targets += [
                (first + offset, wanted, len(kinds), barred[offset]) for offset, wanted in enumerate(answer)
            ]
            start = row * text + at - prefix
            more = _extra_labels(made, lessons[row], row, start, first)
            named, asked_of, claims = named + more[0], asked_of + more[1], claims + more[2]
            kinds.append(made.kind)
            at += len(spelt)
    return Packed(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        _mask(torch.from_numpy(owner), prefix),
        tuple(zip(places, visuals, strict=True)),
        torch.tensor(targets),
        tuple(kinds),
        torch.tensor(named, dtype=torch.int64).reshape(-1, 3),
        torch.tensor(asked_of, dtype=torch.int64).reshape(-1, 3),
        torch.tensor(claims, dtype=torch.int64).reshape(-1, 5),
        prefix,
    )


def _code(exhibit: int, thing: int) -> int:
    """One number for a thing of one of several exhibits; ``thing_of`` undoes it."""
    return -1 if thing < 0 else exhibit * _MOST_THINGS + thing


def thing_of(lesson: Lesson, code: int) -> Thing | None:
    """The thing that a number in ``mentions``, ``asked`` or ``claims`` stands for."""
    if code < 0:
        return None
    return lesson.exhibits[code // _MOST_THINGS].scene.things[code % _MOST_THINGS]


def _ends(question: str) -> dict[int, int]:
    """Character of the question at which a token ends -> that token, counted from the line end before it."""
    offsets = _tokenizer().encode(f"\n{question}").offsets
    return {end - 1: token for token, (_, end) in enumerate(offsets)}


def _claimed(made: WorldQuestion) -> list[int]:
    """The token that ends the question's claim, if it makes one."""
    at = made.text.rfind(made.claim) if made.claim else -1
    token = _ends(made.text).get(at + len(made.claim)) if at >= 0 else None
    return [] if token is None else [token]


def _named(question: str, scene: Scene) -> list[tuple[int, int]]:
    """(token that ends a name, thing or -1)."""
    ends = _ends(question)
    found = ((ends.get(end), thing) for _, end, thing in mentions(question, scene))
    return [(token, -1 if thing is None else thing) for token, thing in found if token is not None]


def _next(answer: str, scene: Scene) -> list[tuple[int, int]]:
    """(token, thing) for the two tokens before each name, and (last token, -1): what a list must decide."""
    ends = _ends(answer)
    steps = [(len(ends) - 1, -1)]
    for start, _, thing in mentions(answer, scene):
        token = ends.get(start - 1, 0)
        steps += [(before, -1 if thing is None else thing) for before in (token - 1, token) if before >= 0]
    return steps


def _fitting(lesson: Lesson, budget: int) -> list[tuple[WorldQuestion, tuple[int, ...], tuple[int, ...]]]:
    found, used = [], 0
    for made in lesson.questions:
        asked, answer = _turn(made.text, made.answer)
        if used + len(asked) + len(answer) - 1 <= budget:
            used += len(asked) + len(answer) - 1
            found.append((made, asked, answer))
    return found


def _mask(owner: torch.Tensor, prefix: int) -> torch.Tensor:
    """A text row sees the prefix, and its own question up to itself."""
    length = owner.shape[1]
    same = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, prefix:, None])
    seen = same & torch.ones(length, length, dtype=torch.bool).tril()[prefix:]
    return torch.zeros(seen.shape).masked_fill_(~seen, _HIDDEN)[:, None].contiguous()
