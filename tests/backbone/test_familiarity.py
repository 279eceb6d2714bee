"""Statistics of a checkpoint's own media: told apart from others, and never used for other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from examples.train_nano.familiarity import BLANK_LEVELS, fit, media, report, write_card
from vidllava.backbone.answer import Answer, answer_question
from vidllava.backbone.familiarity import WEIGHTS_FILE, WORLD_FILE, World, read_world
from vidllava.backbone.feature_cache import FeatureCache
from vidllava.backbone.folders import nano_folder
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.errors import ModelError, UnfamiliarMedia
from vidllava.files.cache_folder import CacheFolder
from vidllava.nano.lessons import SETTINGS, make_lesson, write_exhibit
from vidllava.nano.scene import Split
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import plan_question

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHORT = GenerateOptions(max_new_tokens=3)


@pytest.fixture(scope="module")
def nano() -> Backbone:
    return load_backbone("nano")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colours running into each other all over the picture: nothing that nano's world shows."""
    path = tmp_path_factory.mktemp("foreign") / "blobs.png"
    levels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


def ask(
    backbone: Backbone,
    *paths: Path,
    cache: FeatureCache | None = None,
    options: AskOptions | None = None,
    heard: list[str] | None = None,
) -> Answer:
    names = [str(path) for path in paths]
    question = plan_question(names, "what happens", backbone.settings, backbone.codec, options)
    hear = None if heard is None else heard.append
    return answer_question(backbone, question, SHORT, cache=cache, on_text=hear, keep_pixels=False)


def test_the_distance_is_mahalanobis_squared_per_dimension_and_a_mean_over_frames() -> None:
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    covariance, mean = root @ root.T + torch.eye(4), torch.randn(4, generator=generator, dtype=torch.float64)
    frames = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    wanted = [float((one - mean) @ torch.linalg.inv(covariance) @ (one - mean)) / 4 for one in frames]
    found = World(mean, covariance, 1.0).distance(frames)
    assert found == pytest.approx(sum(wanted) / 5, rel=1e-9)


def test_every_shipped_example_is_of_nanos_world(nano: Backbone) -> None:
    nano.asked_by_name = False
    shown = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".mp4", ".png"))
    assert len(shown) > 10
    for path in shown:
        assert ask(nano, path).notes == (), path.name


@pytest.mark.parametrize("split", ["test", "combos"])
def test_files_of_unseen_seeds_are_of_nanos_world(nano: Backbone, split: Split, tmp_path: Path) -> None:
    nano.asked_by_name = False
    for index, setting in enumerate(SETTINGS):
        lesson, _ = make_lesson(split, 41_000, index, setting, num_questions=1)
        paths = [write_exhibit(one, tmp_path / f"{index}-{n}") for n, one in enumerate(lesson.exhibits)]
        assert ask(nano, *paths).notes == (), setting


def test_foreign_media_are_refused_before_a_word_unless_the_model_was_asked_for(
    nano: Backbone, foreign: Path
) -> None:
    nano.asked_by_name, heard = False, []
    with pytest.raises(UnfamiliarMedia, match=r"vidllava models pull onevision-0\.5b") as refused:
        ask(nano, EXAMPLES / "clip.mp4", foreign, heard=heard)
    assert refused.value.exit_code == 5
    assert refused.value.thing == str(foreign)
    assert heard == []
    nano.asked_by_name = True
    (note,) = ask(nano, EXAMPLES / "clip.mp4", foreign).notes
    assert note.startswith("the picture at place 2 does not look like anything that nano was trained on")
    assert "vidllava models pull onevision-0.5b" in note
    (alone,) = ask(nano, foreign).notes
    assert alone.startswith("the picture does not look like")


def test_a_question_without_media_is_answered(nano: Backbone) -> None:
    nano.asked_by_name = False
    assert ask(nano).text


@pytest.mark.parametrize("pool_first", [False, True])
def test_the_verdict_is_the_same_from_cached_features_and_with_pool_first(
    nano: Backbone, foreign: Path, tmp_path: Path, pool_first: bool
) -> None:
    own = EXAMPLES / "clip.mp4"
    nano.asked_by_name, nano.pool_first = True, pool_first
    try:
        folder = CacheFolder(tmp_path / "cache")
        plain, known = [], []
        for path in (own, foreign):
            plain.append(ask(nano, path).notes)
            ask(nano, path, cache=FeatureCache(nano, folder))
            again = ask(nano, path, cache=FeatureCache(nano, folder))
            assert again.visuals[0].source == "disk"
            known.append(again.notes)
        assert known == plain
        assert [len(notes) for notes in plain] == [0, 1]
        nano.asked_by_name = False
        with pytest.raises(UnfamiliarMedia):
            ask(nano, foreign, cache=FeatureCache(nano, folder))
    finally:
        nano.pool_first = False


def test_pooling_first_moves_no_distance(nano: Backbone) -> None:
    assert nano.world is not None
    pixels = next(media("test", 41_500, 1))
    found = []
    for nano.pool_first in (False, True):
        found.append(nano.world.distance(nano.frame_features(nano.encode(pixels))))
    nano.pool_first = False
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_auto_is_not_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load_backbone("auto").asked_by_name
    assert load_backbone("nano").asked_by_name


def test_the_statistics_belong_to_the_exact_weights(nano: Backbone, foreign: Path, tmp_path: Path) -> None:
    """A copy of the folder is nano; one byte of the weights changed, or trained further, is another model."""
    copied = tmp_path / "copied"
    shutil.copytree(nano_folder(), copied)
    assert read_world(copied) is not None
    weights = load_file(copied / WEIGHTS_FILE)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, copied / WEIGHTS_FILE, metadata={"format": "pt"})
    assert read_world(copied) is None
    trained = load_backbone(str(copied))
    trained.asked_by_name = False
    assert ask(trained, foreign).notes == ()
    saved = tmp_path / "saved"
    nano.save(saved)
    assert not (saved / WORLD_FILE).exists()


def test_an_adapter_on_nano_is_another_model(nano: Backbone, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from vidllava.backbone.adapter import LoraOptions, add_adapter

    trained = load_backbone("nano")
    add_adapter(trained, LoraOptions(rank=2, alpha=4.0), base="nano")
    trained.save(tmp_path / "adapter")
    assert load_backbone(str(tmp_path / "adapter")).world is None


def test_a_damaged_file_of_statistics_is_told(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")
    assert read_world(tmp_path) is None
    (tmp_path / WORLD_FILE).write_bytes(b"statistics")
    with pytest.raises(ModelError, match=r"world\.safetensors: cannot be read"):
        read_world(tmp_path)


def test_fitting_is_a_function_of_the_seeds_and_media_of_every_kind(nano: Backbone) -> None:
    shown = list(media("test", 41_600, 1))
    # Fourteen exhibits of the eight settings, a long clip, a still of any size and angle.
    assert len(shown) == 16
    assert all(one.dtype == torch.uint8 and one.shape[1:] == (3, 84, 84) for one in shown)
    first, second = fit(nano, 1), fit(nano, 1)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.covariance, second.covariance)
    assert first.threshold == second.threshold > 0


def test_the_card_says_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "own": {"a.png": 0.5, "b.mp4": 3.0},
        "shipped": {"clip.mp4": 1.0},
        "real": {"dog.mp4": 20.0, "page.webm": 1.5},
        "blank": ["black.mp4"],
        "variants": {"grey": {"dog.mp4": 9.0, "page.webm": 1.0}},
    }
    text = report(found, 2.5)
    assert "| real media | at least 95 % | 1 of 2 (50.0%) |" in text
    assert "| clips and pictures of its world, unseen seeds | at most 1 % | 1 of 2 (50.0%) |" in text
    assert "| the same, grey |  | 1 of 2 (50.0%) |" in text
    assert "taken for its own: `page.webm`." in text
    assert f"up to {BLANK_LEVELS:g} of 255" in text
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("above\n<!-- familiarity -->\nold\n<!-- /familiarity -->\nbelow\n", encoding="utf-8")
    monkeypatch.setattr("examples.train_nano.familiarity.CARD", card)
    write_card(text)
    lines = card.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("above", "below")
    assert "old" not in lines


def test_the_shipped_card_holds_both_error_rates_within_their_goals() -> None:
    card = (nano_folder() / "MODEL_CARD.md").read_text(encoding="utf-8")
    cells = [line.split("|") for line in card.splitlines() if line.count("|") == 4]
    rows = {row[1].strip(): row[3].split() for row in cells}
    own, real = rows["clips and pictures of its world, unseen seeds"], rows["real media"]
    assert int(own[2]) >= 400
    assert int(own[0]) <= 0.01 * int(own[2])
    assert int(real[0]) >= 0.95 * int(real[2])
    world = read_world(nano_folder())
    assert world is not None
    assert f"Threshold {world.threshold:g};" in card
