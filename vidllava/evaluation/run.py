"""Every question of a set that has no answer yet: decoded ahead, asked in batches, on disk before the next.

Which questions are asked together depends on the set and the batch size alone, never on where an earlier run
was cut off: a batch of which one answer is missing is asked again as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from vidllava.backbone.ahead import Prepared
from vidllava.errors import VidllavaError
from vidllava.evaluation.answer_file import AnswerFile
from vidllava.evaluation.answering import Answerer, Ready, Reply
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.plan import Planner
from vidllava.evaluation.record import Record, answered, failed, with_blind

Batch = tuple[int, ...]
"""Numbers of questions, counted from 0."""


def batches_of(
    keys: Sequence[str], batch_size: int, done: Collection[str], *, rank: int = 0, world: int = 1
) -> list[Batch]:
    """The batches of process ``rank`` in which an answer is missing."""
    every = [
        tuple(range(start, min(start + batch_size, len(keys)))) for start in range(0, len(keys), batch_size)
    ]
    return [batch for batch in every[rank::world] if any(keys[number] not in done for number in batch)]


def evaluate(
    items: Sequence[EvalItem],
    batches: Sequence[Batch],
    prepared: Iterable[Prepared | Exception],
    *,
    answerer: Answerer,
    answers: AnswerFile,
    done: Collection[str],
    planner: Planner | None = None,
    on_done: Callable[[Record], None],
) -> None:
    """Answer ``batches``; ``prepared`` are their questions in order. ``planner``: asks them blind, too.

    Raises what is no fault of a single question.
    """
    coming = iter(prepared)
    for batch in batches:
        found = {number: next(coming) for number in batch}
        records: dict[int, Record] = {}
        for number, one in found.items():
            if isinstance(one, Exception):
                records[number] = failed(items[number], number, _expected(one))
        ready = {number: one for number, one in found.items() if isinstance(one, Prepared)}
        asked = [Ready(items[number], one.question, one) for number, one in ready.items()]
        replies = answerer.answer(asked)
        for (number, one), reply in zip(ready.items(), replies, strict=True):
            if isinstance(reply, Reply):
                records[number] = answered(items[number], number, reply, {"ahead": one.seconds})
            else:
                records[number] = failed(items[number], number, reply)
        if planner is not None:
            seen = [one for one, reply in zip(asked, replies, strict=True) if isinstance(reply, Reply)]
            _ask_blind(
                seen,
                records,
                {one.item.id: number for number, one in zip(ready, asked, strict=True)},
                answerer,
                planner,
            )
        for number in batch:
            if records[number]["key"] not in done:
                answers.append(records[number])
                on_done(records[number])


def _ask_blind(
    seen: Sequence[Ready],
    records: dict[int, Record],
    numbers: dict[str, int],
    answerer: Answerer,
    planner: Planner,
) -> None:
    """The only place where a question is asked without its media: its line says so."""
    words = [Ready(one.item, planner.blind(one.item, one.question), one.sampler) for one in seen]
    for one, reply in zip(words, answerer.answer(words), strict=True):
        number = numbers[one.item.id]
        records[number] = with_blind(records[number], one.item, reply)


def _expected(fault: Exception) -> VidllavaError:
    if isinstance(fault, VidllavaError):
        return fault
    raise fault
