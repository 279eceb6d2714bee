"""Training sees exactly what `ask` sees, learns, and goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.train_nano.model import IMAGE_SIZE, fresh_model, save_nano
from examples.train_nano.optimizer import Optimizer
from examples.train_nano.packing import layouts, pack
from examples.train_nano.school import SchoolSettings, school
from examples.train_nano.student import WatchHeads, read, watching_loss
from examples.train_nano.tower import train_tower
from examples.train_nano.train import train_nano
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.nano.draw import draw, to_bytes
from vidllava.nano.lessons import SETTINGS, Lesson, Setting, make_lesson
from vidllava.prompting.conversation import CHATML, Turn, build_prompt, tokenize


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("fresh")
    save_nano(fresh_model(), folder)
    return load_backbone(str(folder))


def lessons_of(setting: Setting, count: int = 2) -> tuple[list[Lesson], list[list[np.ndarray]]]:
    lessons = [make_lesson("val", 0, i, setting, num_frames=5, num_questions=3)[0] for i in range(count)]
    pixels = [
        [to_bytes(draw(shown.scene, shown.times, IMAGE_SIZE)) for shown in lesson.exhibits]
        for lesson in lessons
    ]
    return lessons, pixels


def loss_alone(backbone: Backbone, lesson: Lesson, pixels: list[np.ndarray], number: int) -> float:
    """The loss of one question by the way of `finetune`: prompt, collate, splice kernel, model."""
    made = lesson.questions[number]
    kinds = ["video" if shown.medium == "video" else "picture" for shown in lesson.exhibits]
    turns = (*build_prompt(made.text, kinds, None), Turn("assistant", made.answer))
    prompt = tokenize(turns, CHATML, backbone.codec, add_generation_prompt=False)
    visuals = []
    for frames, layout in zip(pixels, layouts(lesson, IMAGE_SIZE), strict=True):
        grids = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        repeats = layout.num_grids // len(frames)  # base view and tile of a small picture are the same
        visuals.append(VisualInput(grids.repeat(repeats, 1, 1, 1), layout))
    with torch.no_grad():
        return float(backbone(collate([SampleInput(prompt, tuple(visuals))])).loss)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_packed_question_costs_what_it_costs_alone_through_the_real_backbone(backbone, setting):
    lessons, pixels = lessons_of(setting)
    batch = pack(lessons, tile=IMAGE_SIZE)
    batch.targets[:, 3] = -1  # the real loss lets every word be a choice
    flat = torch.from_numpy(np.concatenate([frames for shown in pixels for frames in shown]))
    with torch.no_grad():
        packed = read(backbone.hf, batch, flat, tower_learns=False)
    number = 0
    for lesson, shown in zip(lessons, pixels, strict=True):
        for position in range(len(lesson.questions)):
            mine = packed.losses[batch.targets[:, 2] == number].mean().item()
            assert mine == pytest.approx(loss_alone(backbone, lesson, shown, position), abs=1e-4)
            number += 1
    assert number == len(batch.kinds)


def test_questions_beyond_the_budget_are_left_out_whole():
    lesson, _ = make_lesson("val", 0, 1, "clip", num_questions=9)
    small, large = (pack([lesson], tile=IMAGE_SIZE, budget=budget) for budget in (60, 400))
    assert len(small.kinds) < len(large.kinds) == len(lesson.questions)
    assert small.ids.shape[1] - small.prefix <= 60


def test_every_visual_cell_is_watched_and_its_labels_match(backbone):
    lessons, pixels = lessons_of("clip, picture")
    batch = pack(lessons, tile=IMAGE_SIZE)
    flat = torch.from_numpy(np.concatenate([frames for shown in pixels for frames in shown]))
    result = read(backbone.hf, batch, flat, tower_learns=False)
    assert result.watched.shape[1] == 5 * 16 + 49
    loss, accuracies = watching_loss(WatchHeads(result.watched.shape[-1]), result.watched, lessons)
    assert torch.isfinite(loss)
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)


def test_the_tower_learns_and_gives_its_words_their_first_meaning():
    model = fresh_model()
    before = model.model.language_model.embed_tokens.weight.clone()
    curve = list(train_tower(model, minutes=10, batch_size=8, every=8, max_steps=32))
    assert len(curve) == 4
    assert curve[-1].loss < curve[0].loss
    changed = (model.model.language_model.embed_tokens.weight != before).any(1)
    assert 0 < changed.sum() < 100  # the words for colours and forms, and no others


def test_school_writes_a_curve_and_goes_on_where_it_stopped(tmp_path):
    settings = dict(batch_size=2, log_every=1, save_minutes=1e-6, validation_lessons=1)
    model = fresh_model()
    first = list(school(model, SchoolSettings(minutes=0.03, **settings), tmp_path))
    steps = [line["step"] for line in first if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert all(0 <= share <= 1 for share in first[-1]["marks"].values())
    again = fresh_model(seed=1)
    more = list(school(again, SchoolSettings(minutes=0.09, **settings), tmp_path))
    assert next(line["step"] for line in more if "loss" in line) == steps[-1] + 1
    assert more[-1]["step"] > steps[-1]


def test_the_optimizer_owns_each_parameter_once_and_slows_what_is_slow():
    model = fresh_model()
    parts = [("language", model.model.language_model), ("tower", model.model.vision_tower)]
    optimizer = Optimizer(
        parts, muon_lr=1.0, adam_lr=0.1, slow=("tower",), vectors=[model.model.image_newline]
    )
    groups = [group for state in optimizer.state_dict() for group in state["param_groups"]]
    assert sorted({group["peak"] for group in groups}) == pytest.approx([0.02, 0.1, 0.2, 1.0])
    owned = sum(len(group["params"]) for group in groups)
    unused = sum("post_layernorm" in name for name, _ in model.model.vision_tower.named_parameters())
    tensors = sum(len(list(module.parameters())) for _, module in parts)
    assert owned == tensors - unused + 1


def test_a_stage_that_is_complete_is_not_trained_again(tmp_path):
    for stage in ("tower", "school"):
        save_nano(fresh_model(), tmp_path / stage)
    before = (tmp_path / "school" / "model.safetensors").stat().st_mtime_ns
    done = train_nano(tmp_path, tower_minutes=9, school_minutes=9, finetune_steps=0)
    assert done == tmp_path / "school"
    assert (done / "model.safetensors").stat().st_mtime_ns == before
