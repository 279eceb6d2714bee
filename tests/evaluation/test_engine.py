"""The batch engine answers whatever rows an asker plans: here captions are made, without a model."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.clips import numbered_picture
from tests.tiny import tiny_checkpoint
from vidllava.backbone.ahead import Plan
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError, UsageError, VidllavaError
from vidllava.evaluation.engine import Batch, PlannedRow, read_answers
from vidllava.evaluation.item import Record
from vidllava.evaluation.ranks import Ranks
from vidllava.media.limits import DEFAULT_LIMITS
from vidllava.media.sampler import Sampler
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import Question, plan_question


@dataclass
class Captions:
    """Says the name of each picture."""

    checkpoint: Path
    broken: str = ""
    asked: list[list[str]] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)

    def planner(self) -> Plan[str]:
        settings, codec = read_settings(self.checkpoint, "tiny"), read_codec(self.checkpoint)

        def plan(row: str, sampler: Sampler) -> Question:
            return plan_question([row], "describe", settings, codec, AskOptions(), sampler=sampler)

        return plan

    def begin(self, total: int, ranks: Ranks) -> None:
        self.totals.append(total)

    def answer(self, asked: Sequence[PlannedRow[str]]) -> list[Record | VidllavaError]:
        self.asked.append([Path(one.row).stem for one in asked])
        if any(Path(one.row).stem == self.broken for one in asked):
            raise ModelError("model", "is broken", "load another one")
        return [self._line(one.number, one.row, "ok", Path(one.row).stem) for one in asked]

    def failed(self, number: int, row: str, status: str, fault: Exception) -> Record:
        return self._line(number, row, status, None)

    def done(self, record: Record) -> None: ...

    def _line(self, number: int, row: str, status: str, caption: str | None) -> Record:
        return {"doc_id": number, "id": row, "key": f"key of {row}", "status": status, "caption": caption}


class Told:
    """What was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    warn = note


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"), preset="nano")


@pytest.fixture
def batch(tmp_path: Path, checkpoint: Path) -> Batch[str]:
    """Five pictures, of which the second is none."""
    rows = [str(tmp_path / f"{name}.png") for name in "abcde"]
    for place, row in enumerate(rows):
        Image.fromarray(numbered_picture(place)).save(row)
    Path(rows[1]).write_text("no picture at all\n" * 40)
    return Batch(
        rows=rows,
        keys=[f"key of {row}" for row in rows],
        ids=rows,
        output=tmp_path / "captions.jsonl",
        model="none",
        settings="2-1",
        overwrite=False,
        size=2,
        workers=1,
        limits=DEFAULT_LIMITS,
        frame_size=read_settings(checkpoint, "tiny").frame_size,
        repeats=True,
    )


def captions(records: Sequence[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(record["status"], record["caption"]) for record in records]


DONE = [("ok", "a"), ("decode_error", None), ("ok", "c"), ("ok", "d"), ("ok", "e")]


def test_each_row_has_a_line_with_a_status_and_what_failed_is_asked_again(
    batch: Batch[str], checkpoint: Path
):
    asker, told = Captions(checkpoint), Told()
    with batch.answered(asker, Ranks(), told) as answers:
        assert answers is not None
        assert (captions(answers.records), answers.num_asked) == (DONE, 5)
    assert (asker.asked, asker.totals, told.notes) == ([["a"], ["c", "d"], ["e"]], [5], [])
    Image.fromarray(numbered_picture(9)).save(batch.rows[1])
    with batch.answered(asker, Ranks(), told) as answers:
        assert answers is not None
        assert (captions(answers.records), answers.num_asked) == ([*DONE[:1], *DONE[2:], ("ok", "b")], 1)
    assert asker.asked[3:] == [["a", "b"]]  # together as before, and its neighbour is not written twice
    assert told.notes == ["4 of 5 questions are answered already"]


def test_a_fault_that_is_no_rows_ends_the_run_and_keeps_what_is_done(batch: Batch[str], checkpoint: Path):
    with (
        pytest.raises(ModelError, match="is broken"),
        batch.answered(Captions(checkpoint, broken="d"), Ranks(), Told()),
    ):
        pass
    assert captions(read_answers(batch.output, None).records) == DONE[:2]
    asker = Captions(checkpoint)
    with batch.answered(asker, Ranks(), Told()) as answers:
        assert answers is not None
        assert sorted(captions(answers.records), key=str) == sorted(DONE, key=str)
    assert asker.asked == [["a"], ["c", "d"], ["e"]]


class Meeting(Ranks):
    """Processes that are threads."""

    barrier = threading.Barrier(2)

    def wait(self) -> None:
        self.barrier.wait(timeout=60)


def test_rows_are_shared_out_and_come_back_in_their_order(batch: Batch[str], checkpoint: Path):
    others = [Captions(checkpoint), Captions(checkpoint)]
    found: list[Any] = []

    def work(rank: int) -> None:
        with batch.answered(others[rank], Meeting(rank, 2), Told()) as answers:
            found.append(None if answers is None else captions(answers.records))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(found, key=str) == [None, DONE] or sorted(found, key=str) == [DONE, None]
    assert [other.asked for other in others] == [[["a"], ["e"]], [["c", "d"]]]
    assert [json.loads(line)["id"] for line in batch.output.read_text().splitlines()] == list(batch.rows)
    assert list(batch.output.parent.glob("*.rank*")) == []


def test_a_file_of_other_rows_is_kept_or_refused(batch: Batch[str], checkpoint: Path):
    with batch.answered(Captions(checkpoint), Ranks(), Told()):
        pass
    fewer = replace(batch, rows=batch.rows[2:], keys=batch.keys[2:], ids=batch.ids[2:])
    with pytest.raises(UsageError, match="holds answers to 1 questions that are not asked now"):
        replace(fewer, only=True).answered(Captions(checkpoint), Ranks(), Told()).__enter__()
    told = Told()
    with fewer.answered(Captions(checkpoint), Ranks(), told) as answers:
        assert answers is not None
        assert captions(answers.records) == [DONE[0], *DONE[2:]]
    assert told.notes == ["3 of 3 questions are answered already"]
