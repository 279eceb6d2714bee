"""An answer with weight 0 is read and not learned; what a row says about its frames has several spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidllava.backbone.tokens import TextCodec
from vidllava.data.formats import parse_row
from vidllava.data.media_root import MediaRoot
from vidllava.data.records import RecordSource
from vidllava.data.row import RowContext, RowFault
from vidllava.data.source import Sample
from vidllava.data.token_counter import EncodeOptions, TokenCounter
from vidllava.errors import DatasetError
from vidllava.prompting.template import IGNORE
from vidllava.visuals.planner import ModelSettings


def talk(
    first: dict[str, Any], *, key: str = "messages", asked: dict[str, Any] | None = None
) -> dict[str, Any]:
    if key == "conversations":
        said = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "red"}]
        said += [{"from": "human", "value": "b?"}, {"from": "gpt", "value": "blue"}]
    else:
        said = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "red"}]
        said += [{"role": "user", "content": "b?"}, {"role": "assistant", "content": "blue"}]
    said[1] |= first
    said[0] |= asked or {}
    return {key: said}


def parsed(record: dict[str, Any], root: Path) -> Sample:
    return parse_row(record, RowContext(1, MediaRoot(root)))


@pytest.mark.parametrize("key", ["messages", "conversations"])
@pytest.mark.parametrize("placement", ["in-place", "front"])
@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"loss": False}], ids=str)
def test_only_the_other_answer_is_learned(
    tmp_path: Path,
    model_settings: ModelSettings,
    codec: TextCodec,
    key: str,
    placement: Any,
    mark: dict[str, Any],
):
    counter = TokenCounter(model_settings, codec, EncodeOptions(placement=placement))
    prompt = counter.prompt(parsed(talk(mark, key=key), tmp_path))
    learned = codec.decode([label for label in prompt.labels if label != IGNORE])
    assert learned.strip() == "blue"
    both = counter.prompt(parsed(talk({"weight": 1, "loss": True}, key=key), tmp_path))
    assert both.ids == prompt.ids
    assert both.num_labels > prompt.num_labels


def test_parts_and_stage_1_know_the_weight_too(media: Path, model_settings: ModelSettings, codec: TextCodec):
    asked = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "?"}]
    record = {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "red", "weight": 0}]
    }
    for options in (EncodeOptions(), EncodeOptions(plain=True), EncodeOptions(placement="front")):
        counter = TokenCounter(model_settings, codec, options)
        sample = parsed(record, media)
        with pytest.raises(DatasetError, match="has no answer to learn"):
            counter.check_labels(sample, counter.prompt(sample))


@pytest.mark.parametrize(
    ("first", "asked", "what"),
    [
        ({"weight": 0.5}, {}, "turn 2: `weight` must be 0 or 1, not 0.5"),
        ({"weight": True}, {}, "turn 2: `weight` must be 0 or 1, not true"),
        ({"weight": "0"}, {}, "turn 2: `weight` must be 0 or 1, not a text"),
        ({"loss": 0}, {}, "turn 2: `loss` must be true or false, not 0"),
        ({}, {"weight": 1}, "turn 1 is the user's: only answers are trained on"),
        ({}, {"loss": True}, "turn 1 is the user's: only answers are trained on"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, first: dict[str, Any], asked: dict[str, Any], what: str):
    with pytest.raises(RowFault, match=what):
        parsed(talk(first, asked=asked), tmp_path)
    parsed(talk({}, asked={"weight": 0, "loss": False}), tmp_path)


def clip_row(**wanted: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": "<video>?"}, {"from": "gpt", "value": "yes"}]
    return {"video": "clip.mkv", "conversations": said, **wanted}


def test_a_range_is_spelt_as_in_a_batch_of_questions_too(media: Path):
    for names in (("start", "end"), ("video_start", "video_end")):
        request = parsed(clip_row(**dict(zip(names, (0.2, 0.8), strict=True))), media).visuals[0].request
        assert request is not None
        assert (request.start_seconds, request.end_seconds) == (0.2, 0.8)
    words = parsed(clip_row(start="0:00.2", end="0.8"), media).visuals[0].request
    assert words is not None
    assert (words.start_seconds, words.end_seconds) == (0.2, 0.8)
    same = parsed(clip_row(start=1, video_start=1.0), media).visuals[0].request
    assert same is not None
    assert same.start_seconds == 1


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"start": "soon"}, "`start`: soon: is not a time"),
        ({"start": [1]}, "`start` must be seconds or mm:ss, not a list"),
        ({"start": 1, "video_start": 2}, "`video_start` and `start` say different things"),
        ({"fps": -1}, "`fps`: must be a number above 0, got -1"),
        ({"start": 3, "end": 2}, "`end`: 2 s must be after `start` 3 s"),
    ],
)
def test_a_range_that_cannot_be_meant_is_told_in_the_rows_own_words(
    media: Path, wanted: dict[str, Any], what: str
):
    with pytest.raises(RowFault, match=what):
        parsed(clip_row(**wanted), media)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("form", ["lines", "list"])
def test_what_is_no_number_is_no_json(tmp_path: Path, word: str, form: str):
    row = json.dumps(clip_row(note=0)).replace('"note": 0', f'"note": {word}')
    path = tmp_path / "rows.json"
    path.write_text(f"[{row}]" if form == "list" else row)
    with pytest.raises(DatasetError, match=f"row 1: invalid JSON: {word} is not a number"):
        RecordSource(path, tmp_path)
