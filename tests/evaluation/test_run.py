"""What is asked together hangs on the set alone, whoever asks it and wherever an earlier run ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidllava.errors import DatasetError, UsageError
from vidllava.evaluation.engine import batches_of
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.ranks import Ranks, parts


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.data())
def test_processes_share_every_batch_and_none_twice(
    number: int, size: int, world: int, data: st.DataObject
) -> None:
    keys = [f"key {place}" for place in range(number)]
    whole = batches_of(keys, size, ())
    assert [place for batch in whole for place in batch] == list(range(number))
    done = data.draw(st.sets(st.sampled_from(keys)))
    shares = [batches_of(keys, size, done, rank=rank, world=world) for rank in range(world)]
    found = sorted((batch for share in shares for batch in share), key=lambda batch: batch.start)
    assert found == [batch for batch in whole if not done.issuperset(keys[place] for place in batch)]
    assert set(found) <= set(whole)


def test_a_launchers_environment(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    alone = Ranks.of_environment()
    assert (alone.rank, alone.world, alone.part(tmp_path / "a.jsonl")) == (0, 1, tmp_path / "a.jsonl")
    assert alone.device("auto") == "auto"
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="there are 1 processes"):
        Ranks.of_environment()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="MASTER_ADDR is not set"):
        Ranks.of_environment()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    second = Ranks.of_environment()
    assert not second.is_first
    assert second.part(tmp_path / "a.jsonl").name == "a.jsonl.rank1of2"
    assert second.device("cpu") == "cpu"
    second.part(tmp_path / "a.jsonl").touch()
    assert parts(tmp_path / "a.jsonl") == [second.part(tmp_path / "a.jsonl")]


def test_a_judges_file_with_two_words_on_one_answer_is_refused(tmp_path) -> None:
    from vidllava.evaluation.judge import read_scores

    path = tmp_path / "scores.jsonl"
    path.write_text('{"request": "a", "pred": "yes"}\n{"request": "a", "pred": "no"}\n{"pred": "no"}\n')
    with pytest.raises(DatasetError, match=r"2 rows cannot be used: row 2: .* two different verdicts; row 3"):
        read_scores(path)


def test_a_verdict_is_on_one_answer_to_one_question() -> None:
    from vidllava.evaluation.judge import Verdict, request_key, scored

    item = EvalItem(
        **{"id": "1", "row": 1, "media": (), "paths": (), "question": "q", "prompt": "q"},  # type: ignore[arg-type]
        answer="blue",
        scoring="judge",
    )
    verdicts = {request_key(item, "navy"): Verdict(True, 4.0)}
    said = [{"status": "ok", "score": None, "resps": [[text]]} for text in ("navy", "red")]
    assert [scored(one, item, verdicts)["score"] for one in said] == [1.0, None]
    other = replace(item, answer="green")
    assert scored(said[0], other, verdicts)["score"] is None
