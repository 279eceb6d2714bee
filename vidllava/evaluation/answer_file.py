"""The file of answers: a JSON line each, on disk before the next is begun; what stands is not done again.

with AnswerFile(path, settings="2-3f7a", model="nano", asked={"9be1": "7"}, overwrite=False) as answers:
    answers.append({"id": "7", "key": "9be1", "status": "ok", ...})
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidllava.errors import UsageError, VidllavaError
from vidllava.files.json_log import Check, Found, JsonLog, read_log

Record = dict[str, Any]
SETTINGS_FORMAT = "2-"
"""How the settings of a run begin in its records: the form in which weights, media and flags are named."""
_BEGINS = re.compile(
    rb'\{("doc_id": \d+, )?"id": ("([^"\\]|\\.)*"|-?\d+), '
    rb'("key": "[0-9a-f]{24}"|"status": "[a-z_]+", "question": )'
)
"""How a line begins: of ``eval`` with its key, of ``ask --batch`` with its status."""


class AnswerFile(JsonLog):
    """Locked while it is open: a second run into the same file is refused."""

    def __init__(
        self,
        path: Path,
        *,
        settings: str,
        model: str,
        asked: Mapping[str, str],
        overwrite: bool,
        stands: Sequence[str] = ("ok",),
        earlier: Iterable[Path] = (),
        only: bool = False,
    ) -> None:
        """``asked``: the id of each question by its key. ``stands``: with these statuses an answer is kept.
        ``earlier``: other files whose answers are taken over. ``only``: a file that holds answers to other
        questions is refused, and left as it is.

        Raises UsageError for a file of other settings, another model, or no answers at all.
        """
        self.notes: list[str] = []
        self._stamp = {"model": model, "settings": settings}
        check = answer_check(self._stamp)
        super().__init__(path, check=check, begins=_BEGINS, overwrite=overwrite)
        try:
            records = list(self.records)
            torn = [path] if self.was_cut_off else []
            for other in () if overwrite else earlier:
                found = read_log(other, check, begins=_BEGINS)
                records += found.records
                torn += [other] if found.end == "cut off" else []
            self.notes += [f"{each}: the last line was cut off and is answered again" for each in torn]
            kept = standing(records, asked, stands)
            others = sum(str(record["key"]) not in asked for record in kept) if only else 0
            if others:
                what = f"holds answers to {others} questions that are not asked now"
                raise UsageError(f"--output {path}", what, "another name, or --overwrite")
            self.replace(kept)
        except BaseException:
            self.close()
            raise
        self.done = frozenset(str(record["key"]) for record in kept)
        """Keys of the questions that are answered."""

    def append(self, record: Record) -> None:
        """One answer, on disk when this returns. Raises ResourceError."""
        super().append({**record, **self._stamp})


def answer_check(stamp: Mapping[str, str] | None) -> Check:
    """What is wrong with a line of a file of answers; ``stamp``: the model and settings that it must have."""

    def check(record: Record) -> str | None:
        if not all(isinstance(record.get(name), str) for name in ("key", "status", "model", "settings")):
            return "is no answer of a batch"
        if stamp is None or all(record[name] == value for name, value in stamp.items()):
            return None
        if record["model"] != stamp["model"]:
            return f"was made with model {record['model']}"
        if not record["settings"].startswith(SETTINGS_FORMAT):
            return "was made by an earlier version, which did not read the weights and media whole"
        return "was made with other settings or weights"

    return check


def read_answers(path: Path, stamp: Mapping[str, str] | None) -> Found:
    """The answers in a file. Raises UsageError for those of another run."""
    return read_log(path, answer_check(stamp), begins=_BEGINS)


def is_answers(path: Path) -> bool:
    """Whether a file holds answers and nothing else, of whatever run."""
    try:
        return path.is_file() and bool(read_answers(path, None).records)
    except VidllavaError:
        return False


def standing(found: Iterable[Record], asked: Mapping[str, str], stands: Sequence[str]) -> list[Record]:
    """The answers that stand: of these questions as they are now, and of others; each once."""
    ids = frozenset(asked.values())
    kept: dict[str, Record] = {}
    for record in found:
        key = str(record["key"])
        if record.get("status") in stands and (key in asked or str(record.get("id")) not in ids):
            kept.setdefault(key, record)
    return list(kept.values())
