"""One sample -> pixels, rows, ids and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import read_number, write_clip
from tests.worlds import World, frames
from vidllava.backbone.tokens import TextCodec
from vidllava.data.encode import SampleEncoder
from vidllava.data.source import Sample, Visual
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import DatasetError, UsageError
from vidllava.media.timeline import SamplingRequest
from vidllava.prompting.conversation import IGNORE, SLOT, Turn
from vidllava.visuals.planner import ModelSettings


@pytest.fixture
def encode(model_settings: ModelSettings, codec: TextCodec):
    def with_options(sample: Sample, **options):
        draw = options.pop("draw", 0)
        return SampleEncoder(model_settings, codec, EncodeOptions(**options))(sample, draw=draw)

    return with_options


def said(question: str, answer: str = "yes") -> tuple[Turn, ...]:
    return (Turn("user", question), Turn("assistant", answer))


def picture() -> Visual:
    return Visual(kind="picture", frames=frames(1, 0))


def clip(count: int = 4) -> Visual:
    return Visual(kind="video", frames=frames(count, 0), timestamps_seconds=np.arange(count) * 1.0)


def test_each_modality_gets_its_own_layout(encode):
    world = World(("text", "picture", "pictures", "video"))
    encoded = [encode(world.sample(index)) for index in range(4)]
    assert [[v.layout.kind for v in e.visuals] for e in encoded] == [
        [],
        ["picture"],
        ["pictures", "pictures"],
        ["video"],
    ]
    for one in encoded:
        assert all(v.pixels.dtype == torch.uint8 and v.pixels.shape[1:] == (3, 70, 70) for v in one.visuals)


def test_labels_are_the_answers_of_every_turn(encode, codec: TextCodec):
    sample = Sample(id="s", turns=(*said("a?", "one"), *said("b?", "two")))
    prompt = encode(sample).prompt
    learned = [label for label in prompt.labels if label != IGNORE]
    end = codec.special("<|im_end|>")
    assert learned == [*codec.encode("one"), end, *codec.encode("two"), end]


def test_pooling_follows_the_preset_or_the_options(encode):
    sample = Sample(id="s", turns=said("<video>?"), visuals=(clip(4),))
    # A 5 x 5 grid: 3 x 3 at stride 2 (bilinear rounds up), and one newline for the clip.
    assert encode(sample).visuals[0].layout.num_tokens == 4 * 9 + 1
    pooled = encode(sample, pool_stride=2, pool_mode="average", newline_mode="no_token")
    assert pooled.visuals[0].layout.num_tokens == 4 * 4
    with pytest.raises(UsageError, match="--pool-stride 9"):
        encode(sample, pool_stride=9)


def test_visuals_without_a_placeholder_stand_in_front_as_ask_spells_them(encode):
    visuals = (clip(), Visual(kind="pictures", frames=frames(1, 2)))
    bare = encode(Sample(id="s", turns=said("what?"), visuals=visuals))
    marked = encode(Sample(id="s", turns=said("<video> <image>\nwhat?"), visuals=visuals))
    assert bare.prompt == marked.prompt


def test_placements(encode):
    visuals = (clip(), clip(2))
    sample = Sample(id="s", turns=said("is <video> like <video>?"), visuals=visuals)

    def slots(**options) -> list[int]:
        ids = encode(sample, **options).prompt.ids
        return [at for at, token in enumerate(ids) if token == SLOT]

    in_place, front = slots(placement="in-place"), slots(placement="front")
    assert in_place[1] - in_place[0] > front[1] - front[0]
    drawn = [slots(placement="mixed", seed=1, draw=draw) for draw in range(20)]
    assert in_place in drawn
    assert front in drawn
    assert drawn == [slots(placement="mixed", seed=1, draw=draw) for draw in range(20)]


def test_a_clip_file_gives_the_frames_that_the_request_picks(encode, tmp_path: Path):
    path = str(write_clip(tmp_path / "clip.mkv", num_frames=21))
    visual = Visual(kind="video", path=path, request=SamplingRequest(num_frames=3))
    sample = Sample(id="s", turns=said("<video>"), visuals=(visual,))
    pixels = encode(sample).visuals[0].pixels
    assert [read_number(frame) for frame in pixels.permute(0, 2, 3, 1).numpy()] == [0, 10, 20]
    asked = Sample(id="s", turns=said("<video>"), visuals=(Visual(kind="video", path=path),))
    assert len(encode(asked, request=SamplingRequest(num_frames=5)).visuals[0].pixels) == 5
    assert len(encode(asked).visuals[0].pixels) == 8, "the preset's own number"


def test_a_picture_file_is_tiled_when_alone_and_squared_in_company(encode, tmp_path: Path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.zeros((70, 140, 3), np.uint8)).save(path)
    alone = Sample(id="s", turns=said("<image>"), visuals=(Visual(kind="picture", path=path),))
    assert len(encode(alone).visuals[0].pixels) == 1 + 2, "the whole picture, and 1 x 2 tiles"
    both = (Visual(kind="pictures", path=path),) * 2
    company = encode(Sample(id="s", turns=said("<image><image>"), visuals=both))
    assert [len(v.pixels) for v in company.visuals] == [1, 1]


def test_a_sample_over_the_limit_is_refused_and_never_cut(encode):
    sample = Sample(id="long one", turns=said("<video>?"), visuals=(clip(4),))
    needed = encode(sample).num_tokens
    assert encode(sample, max_length=needed).num_tokens == needed
    with pytest.raises(DatasetError, match=f"long one: needs {needed} tokens, the limit is {needed - 1}"):
        encode(sample, max_length=needed - 1)


def test_a_sample_without_an_answer_is_refused(encode):
    with pytest.raises(DatasetError, match="has no answer to learn"):
        encode(Sample(id="s", turns=(Turn("user", "hello?"),)))


def test_a_sample_whose_placeholders_do_not_fit_is_refused(encode):
    with pytest.raises(DatasetError, match="2 placeholders for 1 visuals"):
        encode(Sample(id="s", turns=said("<video><video>"), visuals=(clip(),)))


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint8), "uint8"),
        (np.zeros((0, 4, 4, 3), np.uint8), "uint8"),
    ],
)
def test_frames_of_another_form_are_refused(pixels, what):
    with pytest.raises(DatasetError, match=what):
        Visual(kind="video", frames=pixels)


def test_a_visual_is_a_path_or_frames():
    with pytest.raises(DatasetError, match="either a path or frames"):
        Visual(kind="video")
    with pytest.raises(DatasetError, match="holds one picture, not 2"):
        Visual(kind="picture", frames=frames(2, 0))


def test_formatting_prompts_are_those_of_the_row_or_else_of_its_data_set(encode, codec: TextCodec):
    def asked(**options) -> str:
        on = options.pop("formatting_prompts", True)
        sample = Sample(id="s", turns=said("<image>\nwhich?"), visuals=(picture(),), **options)
        prompt = encode(sample, formatting_prompts=on).prompt
        return codec.decode([id_ for id_ in prompt.ids if id_ != SLOT])

    assert "which?\nAnswer the question with Yes or No." in asked(prompt_id=3)
    assert "single word (or phrase)" in asked(dataset="chartqa")
    assert "Yes or No" in asked(prompt_id="vsr", dataset="chartqa")
    for plain in (asked(), asked(dataset="mine"), asked(prompt_id=3, formatting_prompts=False)):
        assert "Answer" not in plain
    with pytest.raises(DatasetError, match="format vrs: no formatting prompt for picture has this name"):
        asked(prompt_id="vrs")


def test_plain_is_the_visual_and_the_caption_alone(encode, codec: TextCodec):
    sample = Sample(id="s", turns=said("<image>\nDescribe it.", "A cat."), visuals=(picture(),))
    prompt = encode(sample, plain=True).prompt
    caption = codec.encode("A cat.\n")
    assert list(prompt.ids) == [SLOT, *caption]
    assert list(prompt.labels) == [IGNORE, *caption]
    with pytest.raises(DatasetError, match="s: has 4 turns; the plain format"):
        encode(Sample(id="s", turns=(*said("a?"), *said("b?"))), plain=True)
    with pytest.raises(DatasetError, match="s: has no picture or clip"):
        encode(Sample(id="s", turns=said("a?")), plain=True)


def test_a_picture_without_grids_is_seen_once(model_settings: ModelSettings, codec: TextCodec):
    whole = SampleEncoder(replace(model_settings, pinpoints=()), codec, EncodeOptions())
    tiled = SampleEncoder(model_settings, codec, EncodeOptions())
    sample = Sample(id="s", turns=said("<image>\nwhich?"), visuals=(picture(),))
    (one,), (many,) = whole(sample).visuals, tiled(sample).visuals
    assert one.pixels.shape[0] == 1 < many.pixels.shape[0]
    assert torch.equal(one.pixels[0], many.pixels[0])
    assert one.layout.num_tokens == model_settings.side**2
