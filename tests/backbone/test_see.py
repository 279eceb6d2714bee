"""What the tower makes of media: the same bits however frames come, beside whatever, now or from a cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import write_clip
from tests.tiny import IMAGE_SIZE
from vidllava.backbone import tower as tower_module
from vidllava.backbone.feature_cache import FeatureCache
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.see import EncodedVisuals, StageClock, overlap, see
from vidllava.errors import MediaError
from vidllava.files.cache_folder import CacheFolder
from vidllava.media.decode import OnReady
from vidllava.media.frames import FrameBatch, FramePlan
from vidllava.media.probe import VideoInfo
from vidllava.media.sampler import InProcess
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import MediaItem, plan_media, visual_planner

NUM_FRAMES, CHUNK = 10, 4


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower_module, "CELLS_PER_CHUNK", CHUNK * 25)


@pytest.fixture
def tower_calls(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many grids the tower read in each call."""
    calls: list[int] = []
    encode = backbone.encode

    def counted(pixels: torch.Tensor, **where: Any) -> torch.Tensor:
        if len(pixels):
            calls.append(len(pixels))
        return encode(pixels, **where)

    monkeypatch.setattr(backbone, "encode", counted)
    return calls


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4", num_frames=NUM_FRAMES)
    write_clip(folder / "other.mp4", num_frames=25)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "wide.png")
    return {path.stem: str(path) for path in folder.iterdir()}


def items_of(
    backbone: Backbone, paths: Sequence[str], num_frames: int | None = NUM_FRAMES
) -> list[MediaItem]:
    options = AskOptions(num_frames=num_frames)
    return list(plan_media(paths, visual_planner(backbone.settings, options), options))


def look(backbone: Backbone, items: Sequence[MediaItem], **options: object) -> EncodedVisuals:
    return see(backbone, items, StageClock(backbone.device), **options)  # type: ignore[arg-type]


def frames(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


@dataclass
class Scripted(InProcess):
    """A sampler that hands over ``pixels`` the way ``script`` does."""

    pixels: np.ndarray
    script: Callable[[np.ndarray, OnReady], None] = lambda pixels, hear: None
    notes: tuple[str, ...] = ()
    num_decoded: int = field(default=0)

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: int | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        self.num_decoded += 1
        assert on_ready is not None
        self.script(self.pixels, on_ready)
        times = np.array(plan.timestamps_seconds)
        return FrameBatch(self.pixels, times, plan, notes=self.notes)


def in_order(pixels: np.ndarray, hear: OnReady) -> None:
    for place in range(len(pixels)):
        hear(place, pixels)


def backwards(pixels: np.ndarray, hear: OnReady) -> None:
    for place in reversed(range(len(pixels))):
        hear(place, pixels)


def twice(pixels: np.ndarray, hear: OnReady) -> None:
    """A first pass of other pixels, void once most of it was reported."""
    good = pixels.copy()
    hear(None, pixels)
    pixels[:] = 7
    for place in range(NUM_FRAMES - 1):
        hear(place, pixels)
    threading.Event().wait(0.05)  # time for the tower to read what will be void
    hear(None, pixels)
    pixels[:] = good
    in_order(pixels, hear)


@pytest.mark.parametrize("script", [in_order, backwards, twice])
def test_features_do_not_depend_on_how_frames_come(
    backbone: Backbone,
    media: dict[str, str],
    tower_calls: list[int],
    script: Callable[[np.ndarray, OnReady], None],
) -> None:
    items = items_of(backbone, [media["clip"]])
    at_once = look(backbone, items, sampler=Scripted(frames(NUM_FRAMES)))
    assert tower_calls == [4, 4, 2]
    scripted = look(backbone, items, sampler=Scripted(frames(NUM_FRAMES), script))
    assert tower_calls[-3:] == [4, 4, 2]
    assert torch.equal(scripted.features, at_once.features)
    with torch.inference_mode():
        pixels = torch.from_numpy(frames(NUM_FRAMES)).permute(0, 3, 1, 2).contiguous()
        assert torch.equal(at_once.features, backbone.encode(pixels))


def test_a_whole_chunk_is_encoded_while_later_frames_are_decoded(
    backbone: Backbone, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = threading.Event()
    encode = backbone.encode

    def told(pixels: torch.Tensor, **where: Any) -> torch.Tensor:
        features = encode(pixels, **where)
        if len(pixels):
            encoded.set()
        return features

    def waits(pixels: np.ndarray, hear: OnReady) -> None:
        for place in range(len(pixels)):
            if place == CHUNK - 1:
                assert not encoded.wait(0.1), "encoded before its last frame was there"
            hear(place, pixels)
            if place == CHUNK:
                assert encoded.wait(20), "the tower waited for the end of the clip"

    monkeypatch.setattr(backbone, "encode", told)
    clock = StageClock(backbone.device)
    see(backbone, items_of(backbone, [media["clip"]]), clock, sampler=Scripted(frames(NUM_FRAMES), waits))
    assert 0.0 < clock.overlap("decode", "vision") <= clock.seconds["vision"]


def test_overlap_is_what_both_stages_share() -> None:
    assert overlap([(0.0, 4.0), (6.0, 8.0)], [(3.0, 7.0)]) == 2.0
    assert overlap([(0.0, 1.0)], [(1.0, 2.0)]) == 0.0


def test_a_visual_has_the_same_features_whatever_stands_beside_it(
    backbone: Backbone, media: dict[str, str]
) -> None:
    alone = [look(backbone, items_of(backbone, [media[name]])).features for name in ("clip", "other")]
    beside = look(backbone, items_of(backbone, [media["clip"], media["wide"], media["other"]])).features
    rows = NUM_FRAMES * 25
    assert torch.equal(beside[:rows], alone[0])
    assert torch.equal(beside[-rows:], alone[1])


def still(pixels: np.ndarray) -> np.ndarray:
    """Frames 0 1 0 0 2 3 1 4 5 6 of the given ones."""
    return pixels[[0, 1, 0, 0, 2, 3, 1, 4, 5, 6]].copy()


def test_repeated_frames_are_encoded_once(
    backbone: Backbone, media: dict[str, str], tower_calls: list[int]
) -> None:
    items = items_of(backbone, [media["clip"]])
    encoded = look(backbone, items, sampler=Scripted(still(frames(10)), in_order))
    assert tower_calls == [4, 3]
    assert encoded.visuals[0].num_repeated == 3
    grids = encoded.features.view(NUM_FRAMES, 25, -1)
    assert torch.equal(grids[0], grids[3])
    assert not torch.equal(grids[0], grids[1])
    late = look(backbone, items, sampler=Scripted(still(frames(10)), backwards))
    assert torch.equal(late.features, encoded.features)
    tower_calls.clear()
    every = look(backbone, items, sampler=Scripted(still(frames(10)), in_order), reuse_frames=False)
    assert tower_calls == [4, 4, 2]
    assert every.visuals[0].num_repeated == 0
    torch.testing.assert_close(every.features, encoded.features)


def test_a_fault_of_the_decoder_is_raised_where_the_answer_is_wanted(
    backbone: Backbone, media: dict[str, str]
) -> None:
    def breaks(pixels: np.ndarray, hear: OnReady) -> None:
        hear(0, pixels)
        raise MediaError("clip.mp4", "is damaged")

    with pytest.raises(MediaError, match="is damaged"):
        look(backbone, items_of(backbone, [media["clip"]]), sampler=Scripted(frames(10), breaks))


def test_a_decoder_that_nobody_waits_for_ends(
    backbone: Backbone, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def endless(pixels: np.ndarray, hear: OnReady) -> None:
        try:
            while True:
                in_order(pixels, hear)
        finally:
            ended.set()

    def interrupted(pixels: torch.Tensor, **where: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(backbone, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        look(backbone, items_of(backbone, [media["clip"]]), sampler=Scripted(frames(10), endless))
    assert ended.wait(20)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_hit_decodes_nothing_and_is_what_a_miss_was(
    backbone: Backbone, media: dict[str, str], tmp_path: Path, tower_calls: list[int], where: str
) -> None:
    items = items_of(backbone, [media["clip"], media["wide"]])
    sampler = Scripted(still(frames(10)), in_order, notes=("damaged: a little",))
    folder = CacheFolder(tmp_path / "cache")
    cache = FeatureCache(backbone, folder)
    first = look(backbone, items, sampler=sampler, cache=cache)
    cache.flush()
    tower_calls.clear()
    if where == "disk":
        cache = FeatureCache(backbone, folder)
    second = look(backbone, items, sampler=sampler, cache=cache, keep_pixels=False)
    assert (sampler.num_decoded, tower_calls) == (1, [])
    assert torch.equal(second.features, first.features)
    for one, other in zip(first.visuals, second.visuals, strict=True):
        assert (one.source, other.source) == ("tower", where)
        assert (one.frames, one.notes, one.num_repeated) == (other.frames, other.notes, other.num_repeated)
        assert other.pixels is None
    assert second.visuals[0].notes == ("damaged: a little",)


def test_pixels_of_what_is_known_are_decoded_where_they_are_wanted(
    backbone: Backbone, media: dict[str, str], tmp_path: Path, tower_calls: list[int]
) -> None:
    items = items_of(backbone, [media["clip"], media["wide"]])
    cache = FeatureCache(backbone, CacheFolder(tmp_path / "cache"))
    first = look(backbone, items, cache=cache)
    tower_calls.clear()
    second = look(backbone, items, cache=cache, keep_pixels=True)
    assert tower_calls == []
    for one, other in zip(first.visuals, second.visuals, strict=True):
        assert one.pixels is not None
        assert other.pixels is not None
        assert torch.equal(one.pixels, other.pixels)
