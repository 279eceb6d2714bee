"""Answers that only a judge can score: requests go to disk, verdicts are read back, and no judge is called.

requests(records, items)                        # one each: request, question, answer, prediction, messages
verdicts = read_scores(Path("scores.jsonl"))    # {"request": "3f7a...", "pred": "yes", "score": 4}
scored(record, item, verdicts)                  # score 1.0

A request is named by the hash of question, answer and prediction (without a reasoning block): a verdict on
another answer is never used.
As in Video-ChatGPT's scoring of ActivityNet-QA, accuracy is the share of yes, and a mean score of 0 to 5
stands beside it. The wording of the messages is ours: compare only what one judge said to the same words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidllava.data.source import RowFault
from vidllava.errors import DatasetError
from vidllava.evaluation.item import EvalItem, Record
from vidllava.evaluation.read import records as read_records
from vidllava.evaluation.texts import said as free_answer

MAX_SHOWN = 5
_SYSTEM = (
    "You compare a predicted answer to a question about a video with the correct answer. Judge the meaning: "
    "synonyms and other wordings of the correct answer are right, anything that contradicts it is wrong."
)
_USER = (
    "Question: {question}\nCorrect Answer: {answer}\nPredicted Answer: {prediction}\n\n"
    "Does the predicted answer mean the same as the correct one? Reply with one JSON object, nothing else: "
    '{{"pred": "yes" or "no", "score": a whole number from 0 (unrelated) to 5 (the same)}}.'
)


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one answer."""

    is_right: bool
    score: float | None
    """0 to 5."""


def request_key(item: EvalItem, prediction: str) -> str:
    """Names one answer to one question."""
    words = json.dumps([item.question, item.answer, prediction])
    return hashlib.blake2b(words.encode(), digest_size=12).hexdigest()


def requests(records: Sequence[Record], items: Sequence[EvalItem]) -> list[Record]:
    """What a judge must be asked, one for each answer that only it can score."""
    found = []
    for record, item in zip(records, items, strict=True):
        if item.scoring != "judge" or item.answer is None or record["status"] != "ok":
            continue
        prediction = free_answer(record["resps"][0][0])
        user = _USER.format(question=item.question, answer=item.answer, prediction=prediction)
        found.append(
            {
                "request": request_key(item, prediction),
                "id": item.id,
                "question": item.question,
                "answer": item.answer,
                "prediction": prediction,
                "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}],
            }
        )
    return found


def read_scores(path: Path) -> dict[str, Verdict]:
    """What the judge said, by request. Raises DatasetError naming the bad rows."""
    verdicts: dict[str, Verdict] = {}
    faults: list[str] = []
    for number, row in read_records(path):
        try:
            if isinstance(row, RowFault):
                raise row
            request, verdict = _verdict(row)
            if verdicts.setdefault(request, verdict) != verdict:
                raise RowFault(f"request {request} has two different verdicts")
        except RowFault as fault:
            faults.append(f"row {number}: {fault}")
    if faults:
        shown = "; ".join(faults[:MAX_SHOWN])
        what = f"{len(faults)} rows cannot be used: {shown}"
        raise DatasetError(path, what, '{"request": "...", "pred": "yes", "score": 4}')
    return verdicts


def _verdict(row: Mapping[str, Any]) -> tuple[str, Verdict]:
    request, said, score = row.get("request"), row.get("pred"), row.get("score")
    if not isinstance(request, str):
        raise RowFault("needs `request`, as it stands in the requests")
    if not isinstance(said, str) or said.strip().lower() not in ("yes", "no"):
        raise RowFault("needs `pred`, yes or no")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 5
    ):
        raise RowFault("`score` must be a number from 0 to 5")
    return request, Verdict(said.strip().lower() == "yes", None if score is None else float(score))


def scored(record: Record, item: EvalItem, verdicts: Mapping[str, Verdict]) -> Record:
    """The record with the judge's word, where there is one for this very answer."""
    if item.scoring != "judge" or item.answer is None or record["status"] != "ok":
        return record
    verdict = verdicts.get(request_key(item, free_answer(record["resps"][0][0])))
    if verdict is None:
        return {**record, "score": None, "note": "a judge must say", "judge_score": None}
    return {**record, "score": float(verdict.is_right), "note": None, "judge_score": verdict.score}
