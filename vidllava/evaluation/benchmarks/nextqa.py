"""NExT-QA: five options (MC), or a free answer scored by WUPS (OE), as the authors' CSV files have them.

Columns: video, question, answer, qid, type; MC has a0 to a4 and the number of the right one, OE test a second
reference. Sources: doc-doc/NExT-QA and doc-doc/NExT-OE; prompts of lmms_eval/tasks/nextqa. Theirs draws a
random letter where none can be read; here that answer is unparsed.
"""

from __future__ import annotations

from pathlib import Path

from vidllava.evaluation.item import (
    Context,
    EvalItem,
    Groups,
    Record,
    Task,
    index_of,
    lettered,
    name_of,
    text_of,
)

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


def read_mc(record: Record, context: Context) -> list[EvalItem]:
    """One question with five options."""
    question = text_of(record, "question")
    options = tuple(text_of(record, key) for key in _OPTIONS)
    return [
        EvalItem(
            **_common(record, context),
            question=question,
            prompt=f"{question}\n{lettered(options)}",
            options=options,
            answer=index_of(record, "answer", len(options)),
            scoring="choice",
            groups=_kind(record),
        )
    ]


def read_oe(record: Record, context: Context) -> list[EvalItem]:
    """One open question."""
    question = text_of(record, "question")
    kind = str(record["type"])
    second = record.get("additional_ref_answer")
    return [
        EvalItem(
            **_common(record, context),
            question=question,
            prompt=f"{question}\n{OE_INSTRUCTION}",
            answer=str(record["answer"]),
            alternatives=(second,) if isinstance(second, str) and second.strip() else (),
            scoring="exact" if kind in _EXACT else "wups",
            groups=_kind(record),
        )
    ]


def _common(record: Record, context: Context) -> Record:
    video = name_of(record, "video")
    return {
        "id": f"{video}_{record.get('qid', context.number)}",
        "row": context.number,
        "media": (video,),
        "paths": (context.root.find(video),),
    }


def _kind(record: Record) -> Groups:
    kind = str(record.get("type", ""))
    return (("type", "TN" if kind == "TP" else kind),) if kind else ()


TASKS = (
    Task("nextqa-mc", recognises_mc, read_mc),
    Task("nextqa-oe", recognises_oe, read_oe),
)
