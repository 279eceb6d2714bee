"""The sweep: what is shared changes no answer, the same is measured once, and no failure is silent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.clips import write_clip
from tests.tiny import tiny_checkpoint
from vidllava.backbone.answer import answer_question
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.see import StageClock, see
from vidllava.bench.frames.measure import BLIND, ProbedOnce, Sweep, see_once
from vidllava.bench.frames.request import FramesRequest
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.memory import PeakMemory, method
from vidllava.media.frames import FrameBatch
from vidllava.media.sampler import IN_PROCESS, InProcess
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import plan_question, visual_planner

REQUEST = FramesRequest(
    num_frames=(2, 8, 32),
    pool_strides=(1, 2),
    pool_modes=("bilinear",),
    rope_factors=("off", "auto"),
    max_new_tokens=4,
    num_timed=0,
)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), preset="nano")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "bars.mp4", num_frames=48)


class Counting(InProcess):
    """How many frames were decoded, file by file."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: list[int] = []

    def decode(self, info: Any, plan: Any, **options: Any) -> FrameBatch:
        self.decoded.append(len(plan))
        return super().decode(info, plan, **options)


def item(path: Path, **fields: Any) -> EvalItem:
    made = EvalItem(
        id="1",
        row=1,
        media=(path.name,),
        paths=(str(path),),
        question="what?",
        prompt="what?",
        scoring="exact",
        answer="red",
    )
    return replace(made, **fields)


def sweep(
    backbone: Backbone, *items: EvalItem, request: FramesRequest = REQUEST, sampler: Any = IN_PROCESS
) -> Sweep:
    told = {"model": "tiny", "weights": "checkpoint"}
    return Sweep(backbone, request, items, base=AskOptions(), told=told, sampler=sampler)


def by_cell(rows: Any) -> dict[str, Row]:
    return {row["cell"]: row for row in rows if row is not None}


@dataclass
class Done:
    """A sweep of one question, and its rows."""

    sweep: Sweep
    sampler: Counting
    rows: list[Row]

    @property
    def cells(self) -> dict[str, Row]:
        return by_cell(self.rows)


@pytest.fixture(scope="module")
def done(tiny: Backbone, clip: Path) -> Done:
    sampler = Counting()
    made = sweep(tiny, item(clip), sampler=sampler)
    return Done(made, sampler, [row for row in made.rows({}) if row is not None])


def test_a_clip_is_decoded_once_for_all_cells_and_the_answers_are_those_of_ask(
    tiny: Backbone, clip: Path, done: Done
) -> None:
    sampler, made, rows = done.sampler, done.sweep, done.cells
    union = {index for number in (2, 8, 32) for index in planned(tiny, clip, number)}
    assert sampler.decoded == [len(union)]
    assert made.saved.asked > made.saved.decoded == len(union)
    for cell in REQUEST.cells:
        row = rows[cell.name]
        options = AskOptions(**cell.to_json(), context_limit=100_000 if row["beyond"] else None)
        question = plan_question([str(clip)], "what?", tiny.settings, tiny.codec, options)
        alone = answer_question(tiny, question, GenerateOptions(max_new_tokens=4))
        assert row["given"] == alone.text
        assert row["prompt_tokens"] == alone.prompt_tokens
        assert row["frames_planned"] == cell.num_frames


def planned(backbone: Backbone, path: Path, number: int) -> tuple[int, ...]:
    options = AskOptions(num_frames=number, rope_factor=8)
    plan = plan_question([str(path)], "what?", backbone.settings, backbone.codec, options).items[0].plan
    assert plan is not None
    return plan.indices


def test_shared_features_are_those_of_each_plan(tiny: Backbone, clip: Path) -> None:
    rules = visual_planner(tiny.settings, AskOptions())
    plans = [
        plan_question(
            [str(clip)], "what?", tiny.settings, tiny.codec, AskOptions(num_frames=number, rope_factor=8)
        ).items
        for number in (3, 7, 48)
    ]
    shared = see_once(tiny, plans, rules, ProbedOnce(IN_PROCESS))
    assert shared is not None
    for items in plans:
        ours = shared.encoded_for(items)
        theirs = see(tiny, items, StageClock(tiny.device))
        assert ours.visuals[0].layout == theirs.visuals[0].layout
        torch.testing.assert_close(ours.features, theirs.features, rtol=1e-5, atol=1e-5)


def test_beyond_the_trained_context_off_is_run_and_marked_and_auto_scales(done: Done) -> None:
    off, auto = (done.cells[f"32 frames, stride 1, bilinear, factor {word}"] for word in ("off", "auto"))
    assert off["factor"] == 1
    assert off["beyond"]
    assert "given" in off
    assert auto["factor"] == 2
    assert not auto["beyond"]
    assert off["same_as"] is auto["same_as"] is None


def test_cells_that_come_to_the_same_are_measured_once_and_shown_in_both(done: Done) -> None:
    off, auto = (done.cells[f"2 frames, stride 2, bilinear, factor {word}"] for word in ("off", "auto"))
    assert off["same_as"] is None
    assert auto["same_as"] == off["cell"]
    assert auto["seconds"] == off["seconds"]
    assert auto["factor"] == off["factor"] == 1


def test_auto_beyond_its_largest_factor_is_over_budget_as_it_is_for_ask(tiny: Backbone, clip: Path) -> None:
    request = replace(REQUEST, num_frames=(48,), pool_strides=(1,))
    made = Sweep(
        tiny, request, [item(clip)], base=AskOptions(context_limit=150), told={"weights": "checkpoint"}
    )
    rows = by_cell(made.rows({}))
    auto = rows["48 frames, stride 1, bilinear, factor auto"]
    assert auto["status"] == "over_budget"
    assert "exceed the limit" in auto["error"]
    assert rows["48 frames, stride 1, bilinear, factor off"]["beyond"]


def test_rows_that_stand_are_not_measured_again(tiny: Backbone, clip: Path, done: Done) -> None:
    first = done.rows
    made = sweep(tiny, item(clip), sampler=(sampler := Counting()))
    assert [row["key"] for row in first] == made.keys
    assert list(made.rows({row["key"]: row for row in first})) == [None] * len(first)
    assert sampler.decoded == []
    # One that is missing, and comes to the same as one that stands, takes its figures over.
    gone = next(row for row in first if row["same_as"] is not None)
    standing = {row["key"]: row for row in first if row is not gone}
    (again,) = [row for row in made.rows(standing) if row is not None]
    assert {**again, "date": None, "load_1min": None} == {**gone, "date": None, "load_1min": None}
    assert sampler.decoded == []


def test_a_key_changes_with_what_could_change_the_row(tiny: Backbone, clip: Path, tmp_path: Path) -> None:
    keys = set(sweep(tiny, item(clip)).keys)
    other = write_clip(tmp_path / "bars.mp4", num_frames=47)
    for changed in (
        sweep(tiny, item(clip, prompt="who?")),
        sweep(tiny, item(clip, answer="blue")),
        sweep(tiny, item(other)),
        sweep(tiny, item(clip), request=replace(REQUEST, max_new_tokens=5)),
        Sweep(tiny, REQUEST, [item(clip)], base=AskOptions(), told={"model": "other"}),
        Sweep(tiny, REQUEST, [item(clip)], base=AskOptions(newline_mode="grid"), told={"model": "tiny"}),
    ):
        assert not keys & set(changed.keys)


def test_a_question_that_shares_nothing_has_the_times_and_the_memory_of_ask(
    tiny: Backbone, clip: Path, done: Done
) -> None:
    sampler = Counting()
    request = replace(REQUEST, num_timed=1, num_frames=(2, 8), pool_strides=(2,))
    made = sweep(tiny, item(clip), request=request, sampler=sampler)
    rows = by_cell(made.rows({}))
    measured = [row for name, row in rows.items() if name != BLIND and row["same_as"] is None]
    assert len(sampler.decoded) == len(measured)
    for row in measured:
        assert row["features"] == "fresh"
        assert row["seconds"]["decode"] > 0
        assert row["seconds"]["vision"] > 0
        assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 0
    assert all("decode" not in row["seconds"] for row in done.rows if row["cell"] != BLIND)


def test_without_the_video_the_question_is_asked_of_the_language_model_alone(
    tiny: Backbone, clip: Path, done: Done
) -> None:
    blind = done.cells[BLIND]
    assert blind["visual_tokens"] == blind["frames_planned"] == 0
    alone = plan_question([], "what?", tiny.settings, tiny.codec)
    assert blind["given"] == answer_question(tiny, alone, GenerateOptions(max_new_tokens=4)).text
    assert None not in sweep(tiny, item(clip), request=replace(REQUEST, blind=False)).subjects


def test_a_file_that_cannot_be_read_is_a_status_in_every_cell_and_never_an_answer(
    tiny: Backbone, clip: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(clip.read_bytes()[:2000])
    bad_rows = by_cell(sweep(tiny, item(bad)).rows({}))
    for cell in REQUEST.cells:
        assert bad_rows[cell.name]["status"] == "decode_error"
        assert bad_rows[cell.name]["error"]
        assert "given" not in bad_rows[cell.name]


def test_a_damaged_clip_is_decoded_for_each_plan_as_ask_would(
    tiny: Backbone, clip: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mp4"
    shutil.copyfile(clip, damaged)
    data = bytearray(damaged.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 120] = b"\x00" * 120
    damaged.write_bytes(bytes(data))
    request = replace(REQUEST, pool_strides=(2,), blind=False)
    rows = by_cell(sweep(tiny, item(damaged), request=request).rows({}))
    assert any(row["notes"] for row in rows.values())
    for cell in request.cells:
        row = rows[cell.name]
        options = AskOptions(**cell.to_json(), context_limit=100_000 if row.get("beyond") else None)
        question = plan_question([str(damaged)], "what?", tiny.settings, tiny.codec, options)
        alone = answer_question(tiny, question, GenerateOptions(max_new_tokens=4))
        assert row["given"] == alone.text
        assert row["notes"] == list(alone.notes)


@pytest.mark.skipif(method(torch.device("cpu")) is None, reason="no way to set the high-water mark back here")
def test_a_small_answer_after_a_large_one_does_not_show_the_large_ones_memory() -> None:
    peaks = []
    for megabytes in (300, 20):
        with PeakMemory(torch.device("cpu")) as memory:
            torch.ones(megabytes << 18)  # float32
        assert memory.peak_bytes is not None
        peaks.append(memory.peak_bytes)
    assert peaks[0] - peaks[1] > 200 << 20
