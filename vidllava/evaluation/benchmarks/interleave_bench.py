"""LLaVA-Interleave Bench: questions on several pictures or views; every turn of a conversation is scored.

multi_image_in_domain.json, multi_image_out_domain.json, multi_view_in_domain.json: LLaVA rows with `metadata`
of `dataset` and `question_type`. Scored as llava/eval/evaluate_interleave.py does: ROUGE-L for open
questions, the letter or the text for a choice. A later turn is asked after the model's own earlier answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import LETTERS, DataEntry, EvalItem, Record, Task, name_of
from vidllava.evaluation.texts import normalised

# The options stand in the question's text: only their letters are known here, A to H as in the original.
_UNKNOWN = ("",) * 8


def recognises(record: Record, path: Path) -> bool:
    """By the kind of question in its metadata."""
    metadata = record.get("metadata")
    return "conversations" in record and isinstance(metadata, dict) and "question_type" in metadata


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """A question for each answer of the conversation; one without a reference is left out, as there."""
    record, metadata = entry.record, entry.get("metadata")
    if not isinstance(metadata, dict):
        raise RowFault("needs `metadata`, an object")
    kind, dataset = name_of(metadata, "question_type"), str(metadata.get("dataset", "unknown"))
    said = _said(record)
    names = entry.media("image")
    identity = entry.name("sample_id" if "sample_id" in record else "id")
    paths = tuple(entry.root.find(name, endings=()) for name in names)
    for turn, (question, answer) in enumerate(said):
        if not answer.strip():
            continue
        bare = answer.strip().strip("().: ").upper()
        is_letter = kind == "multi-choice" and len(bare) == 1 and bare in LETTERS[: len(_UNKNOWN)]
        yield EvalItem(
            id=f"{dataset}_{identity}" + (f"_{turn + 1}" if turn else ""),
            row=entry.number,
            media=names,
            paths=paths,
            question=question,
            prompt=question,
            options=_UNKNOWN if is_letter else (),
            answer=bare if is_letter else answer.strip(),
            scoring="choice" if is_letter else "rouge" if kind == "open-ended" else "exact",
            groups=(("dataset", dataset), ("question_type", kind)),
            earlier=tuple(asked for asked, _ in said[:turn]),
        )


def _said(record: Record) -> list[tuple[str, str]]:
    """(question, answer) of each turn."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        raise RowFault("needs `conversations`, a list of turns")
    texts = [turn.get("value") for turn in turns]
    speakers = [turn.get("from") for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise RowFault("a turn has no `value`, a text")
    if speakers != ["human", "gpt"] * (len(turns) // 2):
        raise RowFault("turns must be human and gpt in turn")
    if not all(normalised(text) for text in texts[::2]):
        raise RowFault("a question is empty")
    return list(zip(texts[::2], texts[1::2], strict=True))


TASKS = (Task("interleave-bench", recognises, read),)
