"""NExT-QA: five options (MC), or a free answer scored by WUPS (OE), as the authors' CSV files have them.

Columns: video, question, answer, qid, type; MC has a0 to a4 and the number of the right one, OE test a second
reference. Sources: doc-doc/NExT-QA and doc-doc/NExT-OE; prompts of lmms_eval/tasks/nextqa. Theirs draws a
random letter where none can be read; here that answer is unparsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidllava.evaluation.item import DataEntry, EvalItem, Groups, Record, Task, lettered

OE_INSTRUCTION = "Answer a question using a short phrase or sentence."
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")
# Descriptive questions on a count or a yes: nearness in WordNet says nothing there.
_EXACT = ("DC", "DB")


def recognises_mc(record: Record, path: Path) -> bool:
    """By its five option columns."""
    return {"video", "question", "answer", *_OPTIONS} <= record.keys()


def recognises_oe(record: Record, path: Path) -> bool:
    """By its columns, without options."""
    return {"video", "question", "answer", "qid", "type"} <= record.keys() and "a0" not in record


def read_mc(entry: DataEntry) -> Iterator[EvalItem]:
    """One question with five options."""
    question = entry.text("question")
    options = tuple(entry.text(key) for key in _OPTIONS)
    yield EvalItem(
        id=_id(entry),
        **entry.clip(entry.name("video")),
        question=question,
        prompt=f"{question}\n{lettered(options)}",
        options=options,
        answer=entry.letter("answer", len(options)),
        scoring="choice",
        groups=_kind(entry),
    )


def read_oe(entry: DataEntry) -> Iterator[EvalItem]:
    """One open question."""
    question = entry.text("question")
    kind = entry.name("type")
    second = entry.get("additional_ref_answer")
    yield EvalItem(
        id=_id(entry),
        **entry.clip(entry.name("video")),
        question=question,
        prompt=f"{question}\n{OE_INSTRUCTION}",
        answer=entry.name("answer"),
        alternatives=(second,) if isinstance(second, str) and second.strip() else (),
        scoring="exact" if kind in _EXACT else "wups",
        groups=_kind(entry),
    )


def _id(entry: DataEntry) -> str:
    return f"{entry.name('video')}_{entry.record.get('qid', entry.number)}"


def _kind(entry: DataEntry) -> Groups:
    kind = str(entry.record.get("type", ""))
    return (("type", "TN" if kind == "TP" else kind),) if kind else ()


TASKS = (Task("nextqa-mc", recognises_mc, read_mc), Task("nextqa-oe", recognises_oe, read_oe))
