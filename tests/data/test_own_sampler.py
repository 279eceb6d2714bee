"""A file that hangs its decoder costs the deadline and one sample; no process is left of it."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from vidllava.backbone.tokens import TextCodec
from vidllava.data.batches import StepBatches
from vidllava.data.encode import SampleEncoder
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.own_sampler import OwnSampler, SamplerPool
from vidllava.data.records import RecordSource
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import MediaError, ResourceError
from vidllava.media.limits import Limits
from vidllava.visuals.planner import ModelSettings

pytestmark = pytest.mark.usefixtures("faulty_decoder")
LIMITS = Limits(decode_seconds=59)


def children(of: int) -> set[int]:
    """Processes whose parent is ``of``, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {of, *found}} - found:
        found |= more
    return found


def rows(path: Path, *media: str) -> Path:
    lines = []
    for number, name in enumerate(media):
        key, mark = ("video", "<video>") if name.endswith(".mkv") else ("image", "<image>")
        said = [{"from": "human", "value": f"{mark}\nwhat?"}, {"from": "gpt", "value": "it"}]
        lines.append(json.dumps({"id": f"{number} {name}", key: name, "conversations": said}))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_hanging_file_is_abandoned_and_recorded(
    tmp_path: Path, media: Path, model_settings: ModelSettings, codec: TextCodec, workers: int
):
    before = children(os.getpid())
    source = RecordSource(rows(tmp_path / "r", "hangs.mkv", "clip.mkv", "crashes.png", "0.png"), media)
    sampler = OwnSampler(LIMITS)
    encoder = SampleEncoder(model_settings, codec, EncodeOptions(), sampler)
    batches = StepBatches(BatchOrder(Mixture((source,)), mix="in-batch", batch_size=4, seed=0), encoder)
    start = time.monotonic()
    steps = list(DataLoader(batches, batch_size=None, sampler=range(1), num_workers=workers))
    assert time.monotonic() - start < 40
    for step in steps:
        assert step.error is None
        assert sorted(step.ids) == ["1 clip.mkv", "1 clip.mkv", "3 0.png", "3 0.png"]
        bad = {one.row: one for one in step.bad}
        assert "was not decoded within the limit of 0.5 s" in bad[1].reason
        assert "ended its decoder (SIGSEGV)" in bad[3].reason
        assert (bad[1].id, bad[1].replaced_by) == ("0 hangs.mkv", "1 clip.mkv")
    if workers == 0:
        assert len(children(os.getpid()) - before) == 1, "one child of its own"
    sampler.close()
    end = time.monotonic() + 10
    while (left := children(os.getpid()) - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, "no orphan"


def test_it_travels_without_its_child_and_starts_another(media: Path):
    sampler = OwnSampler(LIMITS)
    try:
        assert sampler.picture_size(str(media / "1.png")) == (70, 140)
        again = pickle.loads(pickle.dumps(sampler))
        assert again._worker is None
        assert again.limits == LIMITS
        assert again.picture(str(media / "1.png")).shape == (70, 140, 3)
        again.close()
        sampler.close()
        assert sampler.probe(str(media / "clip.mkv")).num_frames == 21, "a closed one starts anew"
    finally:
        sampler.close()


def test_a_child_of_the_process_before_the_fork_is_left_to_it(media: Path):
    sampler = OwnSampler(LIMITS)
    try:
        sampler.picture_size(str(media / "1.png"))
        worker = sampler._worker
        sampler._process = os.getpid() + 1  # as it looks from a forked process
        assert sampler._own() is not worker
        sampler.close()
        sampler._worker, sampler._process = worker, os.getpid() + 1
        sampler.close()
        assert worker is not None
        assert worker.picture_size(str(media / "1.png")) == (70, 140)
        worker.close()
    finally:
        sampler.close()


def test_a_pool_answers_in_order_around_what_hangs(media: Path):
    names = ["0.png", "hangs.png", "1.png", "page.png", "crashes.png", "2.png"]

    def look(sampler: OwnSampler, name: str) -> Any:
        try:
            return sampler.picture_size(str(media / name))
        except (MediaError, ResourceError) as fault:
            return fault.what

    before = children(os.getpid())
    with SamplerPool(LIMITS, 2) as pool:
        found = list(pool.map(look, names))
    assert (found[0], found[2], found[5]) == ((40, 60), (70, 140), (140, 70))
    assert "within the limit" in found[1]
    assert "HTML" in found[3]
    assert "SIGSEGV" in found[4]
    assert not children(os.getpid()) - before


def test_the_deadline_is_the_one_that_was_asked_for(media: Path):
    # No child starts in a hundredth of a second.
    sampler = OwnSampler(Limits(decode_seconds=0.01))
    try:
        with pytest.raises(ResourceError, match=r"within the limit of 0.01 s \(raise --decode-timeout"):
            sampler.picture(str(media / "0.png"))
    finally:
        sampler.close()
