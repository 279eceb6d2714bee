"""Lengths are looked up by one process, whatever it takes, and the texts of a file once for all runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from tests.tiny import tiny_checkpoint
from tests.training.conftest import Heard
from tests.training.test_two_processes import torchrun
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.cli import progress
from vidllava.cli.console import Console
from vidllava.data import measure as text_lengths
from vidllava.data.measure import UNCOUNTED, TextLengths
from vidllava.data.mixture import Mixture
from vidllava.data.records import RecordSource
from vidllava.data.token_counter import EncodeOptions, TokenCounter
from vidllava.files.cache_folder import CacheFolder
from vidllava.media.limits import Limits
from vidllava.training import session


def write_rows(folder: Path, count: int, word: str = "why? ") -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "id": number,
                    "conversations": [
                        {"from": "human", "value": word * (number % 7 + 1)},
                        {"from": "gpt", "value": "so"},
                    ],
                }
            )
            + "\n"
            for number in range(count)
        )
    )
    return path


def test_two_processes_get_what_one_looked_up_however_long_it_takes(tmp_path: Path):
    tiny_checkpoint(tmp_path / "tiny", preset="nano")
    write_rows(tmp_path, 5)
    done = torchrun("-m", "tests.training.length_world", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first["lengths"] == second["lengths"]
    assert min(first["lengths"]) > 0
    assert len(set(first["lengths"])) == 5
    assert first["measurings"] > 5
    assert second["measurings"] == 0
    # And a look that fails ends both; one of them says why.
    assert first["fault"].startswith("ResourceError('disk', 'went away'")
    assert second["fault"] == "SystemExit(6)"


@pytest.fixture
def parts(checkpoint: Path) -> tuple[Any, Any]:
    backbone = SimpleNamespace(settings=read_settings(checkpoint, "tiny"), codec=read_codec(checkpoint))
    return SimpleNamespace(encode=EncodeOptions(), limits=Limits()), backbone


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the samples whose text was tokenized."""
    ids: list[str] = []
    prompt = TokenCounter.prompt

    def watched(self: TokenCounter, sample: Any, **more: Any) -> Any:
        ids.append(sample.id)
        return prompt(self, sample, **more)

    monkeypatch.setattr(TokenCounter, "prompt", watched)
    monkeypatch.setattr(text_lengths, "MIN_ROWS", 3)
    return ids


def measured(path: Path, parts: tuple[Any, Any], **options: Any) -> list[int]:
    job, backbone = parts
    job.encode = EncodeOptions(**options)
    mixture = Mixture((RecordSource(path),))
    found = session.with_measured_lengths(mixture, job, backbone, Accelerator(cpu=True), Heard()).lengths  # type: ignore[arg-type]
    assert found is not None
    return found.tolist()


def test_a_second_start_counts_no_text_again(tmp_path: Path, parts: tuple[Any, Any], counted: list[str]):
    path = write_rows(tmp_path, 9)
    first = measured(path, parts)
    assert len(counted) == 9
    assert measured(path, parts) == first
    moved = tmp_path / "moved"
    moved.mkdir()
    assert measured(path.rename(moved / "other.jsonl"), parts, labels="upstream") == first
    assert len(counted) == 9


@pytest.mark.parametrize("change", ["content", "formatting", "broken", "short"])
def test_what_may_change_a_text_is_counted_again(
    tmp_path: Path, parts: tuple[Any, Any], counted: list[str], change: str
):
    path = write_rows(tmp_path, 9)
    first = measured(path, parts)
    if change == "content":
        write_rows(tmp_path, 9, word="why now? ")
    (kept,) = (CacheFolder.of_environment().path / "lengths").iterdir()
    if change == "broken":
        kept.write_bytes(kept.read_bytes()[:100])
    if change == "short":
        np.save(kept, np.ones(3, np.int32))
    again = measured(path, parts, **({"formatting_prompts": True} if change == "formatting" else {}))
    assert (again != first) == (change == "content")
    assert len(counted) == 18


def test_what_a_start_has_counted_is_kept_where_it_is_cut_off(
    tmp_path: Path, parts: tuple[Any, Any], counted: list[str], monkeypatch: pytest.MonkeyPatch
):
    def cut_off(work: list[Any], **_timeout: float) -> None:
        work[0].result()
        raise KeyboardInterrupt

    path = write_rows(tmp_path, 9)
    with monkeypatch.context() as patch:
        patch.setattr(session, "wait", cut_off)
        with pytest.raises(KeyboardInterrupt):
            measured(path, parts)
    assert min(measured(path, parts)) > 0
    assert len(counted) == 9


def test_lengths_of_few_rows_and_of_a_full_disk_are_not_kept(
    tmp_path: Path, parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    measured(write_rows(tmp_path, 9), parts)
    folder = CacheFolder.of_environment()
    assert not (folder.path / "lengths").exists()
    monkeypatch.setattr(text_lengths, "MIN_ROWS", 3)
    monkeypatch.setenv("VIDLLAVA_CACHE", os.devnull)
    assert min(measured(write_rows(tmp_path, 9), parts)) > 0
    kept = TextLengths(
        CacheFolder.of_environment(), TokenCounter(parts[1].settings, parts[1].codec, EncodeOptions())
    )
    assert set(kept.find(Mixture((RecordSource(tmp_path / "rows.jsonl"),)))) == {UNCOUNTED}


def test_a_long_look_is_seen_and_a_short_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for seconds in (1.0, 6.0):
        shown = progress.TrainingProgress(Console())
        for done in (10, 20, 30, 40):
            now[0] += seconds
            shown.measured(done, 40)
    assert capsys.readouterr().err == "note: lengths of samples: 30/40\n"
