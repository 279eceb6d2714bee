"""The long clips: what is asked about is seen as long as the row says, and guessing does not help."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from examples.train_nano.long_clips import (
    CHANCE,
    DURATIONS_SECONDS,
    EVENTS_SECONDS,
    frames,
    long_clips,
    write_set,
)
from vidllava.media.probe import probe
from vidllava.nano.scene import HELD_OUT


@pytest.fixture(scope="module")
def clips():
    return list(long_clips(950))


def test_every_duration_event_and_kind_is_asked_about_as_often(clips) -> None:
    cells = Counter((clip.scene.duration_seconds, clip.row()["category"]) for clip in clips)
    assert len(cells) == sum(
        event is None or event < d for d in DURATIONS_SECONDS for event in EVENTS_SECONDS
    )
    assert max(cells.values()) - min(cells.values()) <= 1
    kinds = Counter(clip.kind for clip in clips)
    assert min(kinds[kind] for kind in ("colour", "shape", "is_there")) > 250
    assert kinds["direction"] > 50  # of whole clips alone


def test_no_answer_can_be_guessed_from_the_question_alone(clips) -> None:
    """The best constant answer of each kind is right hardly more often than chance."""
    for kind, chance in CHANCE.items():
        answers = Counter(clip.answer for clip in clips if clip.kind == kind)
        best = max(answers.values()) / answers.total()
        assert best < chance + 0.06, (kind, answers)


def test_the_visitor_is_drawn_for_as_long_as_the_row_says() -> None:
    clip = next(c for c in long_clips(20, durations=(8.0,)) if c.event_seconds == 2.0)
    visitor = next(thing for thing in clip.scene.things if thing.shown is not None)
    alpha = visitor.track(np.linspace(0.0, 1.0, 801)).alpha
    assert alpha.sum() / 100 == pytest.approx(2.0, abs=0.02)
    assert set(alpha) == {0.0, 1.0}
    drawn = frames(clip.scene)
    assert drawn.shape == (64, 168, 168, 3)
    place = drawn[:, int(visitor.y * 168), int(visitor.x * 168)].astype(int)
    there = np.abs(place - place[np.argmin(alpha[::13][:64])]).sum(-1) > 60
    assert 14 <= there.sum() <= 18  # of eight frames a second


def test_no_clip_shows_what_training_kept_out(clips) -> None:
    assert not any((thing.colour, thing.form) in HELD_OUT for clip in clips for thing in clip.scene.things)


def test_the_set_on_disk_is_the_rows_and_their_clips(tmp_path: Path) -> None:
    listed = write_set(tmp_path, 3, durations=(8.0,))
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [row["duration_seconds"] for row in rows] == [8.0] * 3
    for row in rows:
        assert probe(tmp_path / row["video"]).duration_seconds == pytest.approx(8.0)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    write_set(tmp_path, 3, durations=(8.0,))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")} == first
    write_set(tmp_path, 3, durations=(8.0,), seed=1)
    assert len(list(tmp_path.glob("*.mp4"))) == 6  # another seed's clips never pass for these
