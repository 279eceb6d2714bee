"""The batches of a step: sorted by length, bad samples replaced and told, the same from any worker."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worlds import World
from vidllava.backbone.tokens import TextCodec
from vidllava.data.batches import BadSample, Ledger, ProcessShare, ReadAhead, StepBatch, StepBatches
from vidllava.data.encode import SampleEncoder
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.source import Sample
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import DatasetError, ResourceError
from vidllava.visuals.planner import ModelSettings

WHOLE = ProcessShare()
EVERYTHING = ("text", "picture", "pictures", "video")


@pytest.fixture
def batches_of(model_settings: ModelSettings, codec: TextCodec):
    def build(
        world: World, *, batch_size: int = 8, share: ProcessShare = WHOLE, lengths: np.ndarray | None = None
    ) -> StepBatches:
        order = BatchOrder(Mixture((world,), lengths=lengths), mix="in-batch", batch_size=batch_size, seed=1)
        return StepBatches(order, SampleEncoder(model_settings, codec, EncodeOptions()), share)

    return build


def same(left: StepBatch, right: StepBatch) -> bool:
    return left.ids == right.ids and all(
        torch.equal(a.pixels, b.pixels) and torch.equal(a.label_ids, b.label_ids) and a.lengths == b.lengths
        for a, b in zip(left.micro, right.micro, strict=True)
    )


def test_a_step_holds_its_draws_sorted_by_length(batches_of):
    batches = batches_of(World(EVERYTHING, 6), share=ProcessShare(micro_batches=4))
    step = batches[2]
    world = batches.order.mixture.sources[0]
    assert sorted(step.ids) == sorted(world.sample(int(i)).id for i in batches.order.batch(2))
    lengths = [length for micro in step.micro for length in micro.lengths]
    assert lengths == sorted(lengths)
    assert [len(micro.lengths) for micro in step.micro] == [2, 2, 2, 2]
    assert step.visual_tokens + step.text_tokens == sum(lengths) <= step.num_rows
    assert step.num_labels > 0


def test_processes_share_a_global_batch(batches_of):
    whole = batches_of(World(EVERYTHING, 6))[3]
    parts = [batches_of(World(EVERYTHING, 6), share=ProcessShare(rank=r, world_size=2))[3] for r in range(2)]
    assert sorted(whole.ids) == sorted(parts[0].ids + parts[1].ids)
    assert whole.num_labels == parts[0].num_labels + parts[1].num_labels


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(batches_of, workers):
    batches = batches_of(World(EVERYTHING, 6, bad={5}))
    random_before = torch.get_rng_state()
    ahead = list(ReadAhead(batches, start=3, stop=9, num_workers=workers))
    plain = list(ReadAhead(batches, start=3, stop=9, num_workers=0))
    assert torch.equal(torch.get_rng_state(), random_before), "reading data draws no random number"
    assert [one.step for one in ahead] == list(range(3, 9))
    assert all(same(a, b) and a.bad == b.bad for a, b in zip(ahead, plain, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_processes_nor_workers_change_which_samples_a_step_shows(batches_of, workers: int):
    world = World(EVERYTHING, 6, bad={5})
    lengths = np.arange(len(world), dtype=np.int32) * 7919 % 1000
    shown = []
    for size in (1, 2, 4):
        shares = [ProcessShare(rank=rank, world_size=size, micro_batches=2) for rank in range(size)]
        parts = [
            list(
                ReadAhead(
                    batches_of(world, share=share, lengths=lengths), start=2, stop=6, num_workers=workers
                )
            )
            for share in shares
        ]
        shown.append([sorted(name for part in parts for name in part[step].ids) for step in range(4)])
    assert shown[0] == shown[1] == shown[2]
    assert [len(ids) for ids in shown[0]] == [8] * 4


class Sleeping(World):
    def sample(self, index: int) -> Sample:
        time.sleep(100)
        raise AssertionError


def test_every_draw_has_its_own_number_whichever_process_encodes_it(batches_of):
    """The number seeds a mixed placement: two copies of one sample in a batch are placed on their own."""
    numbers: dict[int, list[int]] = {}
    for rank in range(2):
        batches = batches_of(World(("text",), 6), batch_size=8, share=ProcessShare(rank=rank, world_size=2))
        numbers[rank] = []

        def encode(sample, *, draw: int, seen=numbers[rank], plain=batches.encoder):
            seen.append(draw)
            return plain(sample, draw=draw)

        batches.encoder = encode
        assert batches[3].error is None
    assert numbers == {0: [24, 25, 26, 27], 1: [28, 29, 30, 31]}


def test_closing_does_not_wait_for_workers_that_hang(batches_of):
    reading = ReadAhead(batches_of(Sleeping(EVERYTHING, 6)), start=0, stop=9, num_workers=2)
    time.sleep(0.5)
    before = time.monotonic()
    reading.close()
    assert time.monotonic() - before < 3.0
    assert not multiprocessing.active_children()
    assert list(reading) == []


def test_a_worker_dies_with_its_process(batches_of, tmp_path: Path):
    """And lets go at once of what it inherited: the lock on the output folder, for one."""
    inner, outer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inner)
        reading = ReadAhead(batches_of(Sleeping(EVERYTHING, 6)), start=0, stop=9, num_workers=2)
        time.sleep(0.5)
        os.write(outer, b"x")
        next(reading)
        os._exit(0)
    os.close(outer)
    assert os.read(inner, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    before = time.monotonic()
    assert os.read(inner, 1) == b"", "the workers hold the other end as long as they live"
    assert time.monotonic() - before < 2.0
    os.close(inner)


def test_running_out_of_descriptors_is_no_fault_of_a_sample(batches_of, monkeypatch):
    def full(self, index):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(World, "sample", full)
    step = batches_of(World(EVERYTHING, 6))[0]
    assert isinstance(step.error, ResourceError)
    assert not step.bad


def test_a_bad_sample_is_replaced_by_the_next_of_its_modality(batches_of):
    world = World(EVERYTHING, 4, bad={6, 10})  # two neighbours among the several-picture samples
    batches = batches_of(world, batch_size=16)
    step = batches[0]
    assert [(bad.index, bad.id, bad.replaced_by) for bad in sorted(step.bad, key=lambda b: b.index)] == [
        (6, None, "world-14"),
        (10, None, "world-14"),
        (10, None, "world-14"),
    ]
    assert {bad.step for bad in step.bad} == {1}
    assert len(step.ids) == 16
    assert step.bad[0].reason.endswith("is broken")


def test_a_set_that_cannot_be_used_at_all_ends_with_its_reason(batches_of):
    step = batches_of(World(("video",), 30, bad=range(30)))[0]
    assert isinstance(step.error, DatasetError)
    assert "11 samples in a row cannot be used" in str(step.error)
    assert len(step.bad) == 11


def test_a_killed_worker_is_one_clear_line(batches_of, monkeypatch):
    batches = batches_of(World(EVERYTHING, 6))
    monkeypatch.setattr(StepBatches, "__getitem__", lambda self, step: os._exit(9))
    with pytest.raises(ResourceError, match=r"data worker: was killed.*--dataloader-num-workers"):
        list(ReadAhead(batches, start=0, stop=4, num_workers=1))


def bad(step: int) -> BadSample:
    return BadSample(step=step, source="s", index=1, row=2, id="x", reason="is broken\nfor good")


def test_the_ledger_writes_one_line_each(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl", max_bad_fraction=0.5)
    ledger.write(())
    assert not ledger.path.exists()
    ledger.write((bad(1), bad(2)))
    ledger.write((bad(3),))
    rows = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["row"] == 2
    assert rows[0]["reason"] == "is broken\nfor good"


@pytest.mark.parametrize(
    ("fraction", "drawn", "num_bad", "expected"),
    [
        (0.0, 8, 1, True),
        (0.01, 8, 10, False),
        (0.01, 8, 11, True),
        (0.01, 5000, 50, False),
        (0.01, 5000, 51, True),
    ],
)
def test_too_many_bad_samples(tmp_path: Path, fraction, drawn, num_bad, expected):
    ledger = Ledger(tmp_path / "ledger.jsonl", max_bad_fraction=fraction)
    ledger.count(num_bad=num_bad - 1, num_drawn=drawn - 1)
    ledger.count(num_bad=1, num_drawn=1)
    assert ledger.too_many is expected
