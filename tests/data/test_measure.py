"""True lengths from headers: what is counted is what is encoded, and batches are made of like lengths."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.clips import write_clip
from vidllava.backbone.tokens import TextCodec
from vidllava.data.encode import SampleEncoder
from vidllava.data.measure import measure
from vidllava.data.media_index import Headers, MediaIndex
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.own_sampler import SamplerPool
from vidllava.data.records import RecordSource
from vidllava.data.token_counter import EncodeOptions, TokenCounter
from vidllava.media.limits import Limits
from vidllava.media.picture import load_picture, picture_size
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest
from vidllava.visuals.planner import ModelSettings


def row(question: str, **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": "yes, it is"}]
    return {"conversations": said, **more}


ROWS = [
    row("what is it? " * 9),
    row("<image>?", image="0.png"),
    row("<image>?", image="1.png"),
    row("<image>?", image="2.png"),
    row("<image>?", image="3.png"),
    row("<image><image>?", image=["1.png", "2.png"]),
    row("<video>?", video="clip.mkv"),
    row("<video>?", video="clip.mkv", num_frames=3),
    row("<video>?", video="clip.mkv", fps=5, video_start=0.1, video_end=0.6),
    row("<video>?", video="frames"),
    row("<video>?", video="frames", fps=4, video_start=1, video_end=2),
    row("<image> or <video>?", image="1.png", video="clip.mkv"),
]


def mixture_of(tmp_path: Path, media: Path, rows: list[dict[str, Any]]) -> Mixture:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return Mixture((RecordSource(path, media),))


def lengths_of(mixture: Mixture, counter: TokenCounter, *, workers: int = 2) -> np.ndarray:
    notes: list[str] = []
    with (
        MediaIndex(None, notes.append) as index,
        SamplerPool(Limits(), workers) as pool,
    ):
        return measure(mixture, counter, Headers(index), pool)


@pytest.mark.parametrize(
    "options",
    [EncodeOptions(), EncodeOptions(request=SamplingRequest(fps=2, max_frames=5), pool_stride=3)],
    ids=["preset", "asked"],
)
def test_counted_is_what_is_encoded(
    tmp_path: Path, media: Path, model_settings: ModelSettings, codec: TextCodec, options: EncodeOptions
):
    mixture = mixture_of(tmp_path, media, ROWS)
    encoder = SampleEncoder(model_settings, codec, options)
    found = lengths_of(mixture, TokenCounter(model_settings, codec, options))
    assert found.tolist() == [encoder(mixture.sample(index)).num_tokens for index in range(len(ROWS))]
    assert len(set(found.tolist())) > 5


def test_held_frames_and_samplings_are_counted_and_encoded_alike(
    tmp_path: Path, model_settings: ModelSettings, codec: TextCodec
):
    """A range within a held frame is that frame, a number of frames is even in time: in training rows too."""
    write_clip(tmp_path / "held.mkv", num_frames=4, times_ms=(0, 1000, 2000, 62000))
    asked = ({"start": 30, "end": 40}, {"num_frames": 3}, {"num_frames": 3, "sampling": "index"})
    rows = [row("<video>which?", video="held.mkv", id=n, **own) for n, own in enumerate(asked)]
    mixture = mixture_of(tmp_path, tmp_path, rows)
    for sampling, second in ((None, (0, 2, 3)), ("index", (0, 1, 3))):
        options = EncodeOptions(sampling=sampling)
        encoder = SampleEncoder(model_settings, codec, options)
        counter = TokenCounter(model_settings, codec, options)
        samples = [mixture.sample(index) for index in range(3)]
        found = lengths_of(mixture, counter)
        assert found.tolist() == [encoder(sample).num_tokens for sample in samples]
        path = samples[0].visuals[0].path
        assert path is not None
        info = probe(path)
        plans = [
            counter.plan(one.visuals[0], info.frame_times, path, info.duration_seconds) for one in samples
        ]
        assert [plan.indices for plan in plans] == [(2,), second, (0, 1, 3)]


def test_the_rate_of_a_folder_of_pictures_gives_their_times(
    tmp_path: Path, media: Path, model_settings: ModelSettings, codec: TextCodec
):
    counter = TokenCounter(model_settings, codec, EncodeOptions())
    visual = mixture_of(tmp_path, media, ROWS).sample(10).visuals[0]
    plan = counter.plan_pictures(visual)
    assert plan.indices == (4, 5, 6, 7)  # 1 s to 2 s at 4 pictures a second
    assert plan.timestamps_seconds == (1.0, 1.25, 1.5, 1.75)


def test_what_cannot_be_read_has_no_length_and_keeps_its_place(
    tmp_path: Path, media: Path, model_settings: ModelSettings, codec: TextCodec, faulty_decoder: None
):
    names = ["0.png", "page.png", "empty.png", "crashes.png", "hangs.png"]
    rows = [*(row("<image>?", image=name) for name in names), row("<video>?", video="cut.mkv")]
    mixture = mixture_of(tmp_path, media, rows)
    found = lengths_of(mixture, TokenCounter(model_settings, codec, EncodeOptions()), workers=1)
    assert (found > 0).tolist() == [True, False, False, False, False, False]
    measured = replace(mixture, lengths=found)
    assert sorted(BatchOrder(measured, mix="in-batch", batch_size=2, seed=0).epoch(0)) == list(range(6))


def test_batches_are_of_like_length_and_hang_on_the_seed_alone(
    tmp_path: Path, media: Path, model_settings: ModelSettings, codec: TextCodec
):
    rows = [row("why? " * (number * 7919 % 50 + 1), id=number) for number in range(200)]
    mixture = mixture_of(tmp_path, media, rows)
    counter = TokenCounter(model_settings, codec, EncodeOptions())
    once, again = (lengths_of(mixture, counter, workers=workers) for workers in (1, 3))
    assert np.array_equal(once, again)

    def order(of: Mixture) -> BatchOrder:
        return BatchOrder(of, mix="in-batch", batch_size=8, seed=3)

    grouped, plain = order(replace(mixture, lengths=once)), order(mixture)
    spread = [np.mean([np.ptp(once[each.batch(step)]) for step in range(25)]) for each in (grouped, plain)]
    assert spread[0] < 0.4 * spread[1]
    assert np.array_equal(grouped.epoch(1), order(replace(mixture, lengths=again)).epoch(1))


def test_only_rows_of_files_are_measured(tmp_path: Path, media: Path):
    from tests.worlds import World

    files = mixture_of(tmp_path, media, ROWS)
    assert files.sources[0].row(0) == 1
    assert World(("text",)).row(0) is None
    assert replace(files, lengths=np.ones(len(files), np.int32)).fingerprint() == files.fingerprint()


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_size_is_of_the_upright_picture(tmp_path: Path, ending: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert picture_size(path) == load_picture(path).shape[:2]
