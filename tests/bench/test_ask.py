"""`bench ask`: both paths answer the same, and what is counted was spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clips import write_clip
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.bench import ask
from vidllava.errors import UsageError
from vidllava.visuals.options import AskOptions

QUESTIONS = ("what happens", "how many things are there")


@pytest.fixture(scope="module")
def nano() -> Backbone:
    return load_backbone("nano")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "bars.mp4", num_frames=24)


def rows(nano: Backbone, clip: Path, options: AskOptions | None = None, **others: object) -> list[ask.Row]:
    found = ask.measure(
        nano,
        str(clip),
        QUESTIONS,
        options=options or AskOptions(),
        max_new_tokens=8,
        repeats=1,
        **others,  # type: ignore[arg-type]
    )
    return list(found)


def test_transformers_own_model_gives_the_same_answers(nano: Backbone, clip: Path) -> None:
    found = rows(nano, clip)
    theirs = [row for row in found if row["path"] == "transformers"]
    assert [row["question"] for row in theirs] == ["first", "second"]
    assert all(row["same_answer"] for row in theirs)


def test_every_stage_that_took_place_took_time_and_no_other(nano: Backbone, clip: Path) -> None:
    spent = {(row["path"], row["question"]): row["seconds"] for row in rows(nano, clip)}
    for key in (("vidllava", "first"), ("transformers", "first"), ("transformers", "second")):
        assert all(spent[key][stage] > 0 for stage in ask.STAGES), key
    again, second = spent["vidllava", "first again"], spent["vidllava", "second"]
    assert again["decode"] == again["vision"] == second["decode"] == second["vision"] == 0
    assert again["prefill"] > 0
    assert second["prefill"] > 0
    for seconds in spent.values():
        parts = sum(seconds[stage] for stage in ask.STAGES) + seconds.get("cache", 0.0)
        assert seconds["total"] == pytest.approx(parts - seconds.get("overlap", 0.0), abs=2e-3)


def test_settings_that_transformers_has_not_are_refused_unless_it_is_left_out(
    nano: Backbone, clip: Path
) -> None:
    other = AskOptions(pool_stride=4)
    with pytest.raises(UsageError, match="--no-transformers"):
        rows(nano, clip, other)
    assert {row["path"] for row in rows(nano, clip, other, against=False)} == {"vidllava"}


def test_the_table_shows_medians_and_whether_answers_agree(nano: Backbone, clip: Path) -> None:
    found = rows(nano, clip)
    found[-1]["same_answer"] = False
    table = ask.table(found)
    assert [line[:2] for line in table[1:]] == [
        ("vidllava", "first"),
        ("vidllava", "first again"),
        ("vidllava", "second"),
        ("transformers", "first"),
        ("transformers", "second"),
    ]
    assert [line[-1] for line in table[1:]] == ["", "", "", "yes", "1 of 1 differ"]
