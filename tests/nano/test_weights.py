"""The model that ships: it loads everywhere, fits in its size, and answers what its card says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from examples.train_nano.make_examples import write_examples
from examples.train_nano.tokenizer import build_tokenizer
from vidllava.backbone.answer import answer_question
from vidllava.backbone.folders import nano_folder
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.media.decode import decode
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.nano.draw import draw
from vidllava.nano.lessons import make_lesson, write_exhibit
from vidllava.nano.score import Asked, ask_held_out, same_answer, summary, table
from vidllava.visuals.question import plan_question

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SIZE_LIMIT_BYTES = 20_000_000


@pytest.fixture(scope="module")
def nano() -> Backbone:
    return load_backbone("nano")


def test_transformers_loads_the_folder_with_no_weight_missing_or_left_over():
    model, loading = LlavaOnevisionForConditionalGeneration.from_pretrained(
        nano_folder(), output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert model.config.text_config.tie_word_embeddings


def test_the_package_stays_small():
    assert (nano_folder() / "model.safetensors").stat().st_size <= SIZE_LIMIT_BYTES


def test_the_shipped_tokenizer_is_the_one_that_the_recipe_builds():
    """A word added to the world without new weights would move every id."""
    shipped = Tokenizer.from_file(str(nano_folder() / "tokenizer.json"))
    assert shipped.get_vocab() == build_tokenizer().get_vocab()


def test_auto_tokenizer_loads_it_and_speaks_chatml():
    tokenizer = AutoTokenizer.from_pretrained(nano_folder())
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "what happens"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nwhat happens<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token == "<|im_end|>"


def test_the_card_says_what_the_figures_file_says():
    figures = json.loads((nano_folder() / "score.json").read_text(encoding="utf-8"))
    card = (nano_folder() / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert table(figures) in card


def test_the_example_questions_are_answered_as_well_as_measured(nano):
    """Nine of ten is the goal, and 31 of 34 were right when these weights were made."""
    rows = [json.loads(line) for line in (EXAMPLES / "questions.jsonl").read_text("utf-8").splitlines()]
    wrong = []
    for row in rows:
        media = [str(EXAMPLES / name) for name in row["media"]]
        question = plan_question(media, row["question"], nano.settings, nano.codec)
        given = answer_question(nano, question).text
        if not same_answer(given, row["answer"]):
            wrong.append((row["id"], given))
    assert len(rows) == 34
    assert len(rows) - len(wrong) >= 0.9 * len(rows), wrong


def test_the_example_clip_is_told_rightly(nano):
    question = plan_question([str(EXAMPLES / "clip.mp4")], "what happens", nano.settings, nano.codec)
    assert answer_question(nano, question).text == "The red circle moves right. The yellow star becomes blue."


def test_examples_are_what_their_generator_writes(tmp_path):
    rows = write_examples(tmp_path)
    assert (tmp_path / "questions.jsonl").read_text() == (EXAMPLES / "questions.jsonl").read_text()
    for name in {name for row in rows for name in row["media"] if name.endswith(".png")}:
        np.testing.assert_array_equal(
            np.array(Image.open(tmp_path / name)), np.array(Image.open(EXAMPLES / name))
        )
    kinds = [tuple(Path(name).suffix for name in row["media"]) for row in rows]
    assert {(".mp4",), (".png",), (".png", ".png"), (".mp4", ".mp4"), (".png", ".mp4")} <= set(kinds)


def test_a_clip_that_went_through_a_file_looks_like_the_one_drawn_at_84_pixels(tmp_path):
    """Training draws at 84; people's files are larger and compressed. Both must look alike to the model."""
    shown = make_lesson("test", 0, 5, "clip")[0].exhibits[0]
    info = probe(write_exhibit(shown, tmp_path / "clip"))
    plan = plan_frames(info.frame_times, SamplingRequest(num_frames=8), source="clip")
    frames = decode(info, plan, size=84)
    times = np.array(frames.timestamps_seconds) / frames.timestamps_seconds[-1]
    difference = np.abs(frames.pixels - draw(shown.scene, times, 84))
    assert difference.mean() < 2
    assert np.quantile(difference, 0.99) < 25


def test_a_few_held_out_lessons_are_answered_as_well_as_the_card_says(nano):
    """A small sample (a full score takes minutes): well below the card's figures would be a regression."""
    asked = list(ask_held_out(nano, ("test", "combos"), lessons=6, questions=4, seed=3))
    report = summary(asked)
    for split, single, free in (("test", 0.88, 0.7), ("combos", 0.82, 0.6)):
        assert report[split]["single_fact"]["exact"] >= single
        assert report[split]["free"]["f1"] >= free


def test_the_report_counts_kinds_and_settings_apart():
    asked = [
        Asked("test", "clip", "colour", "what colour is it", "red", "red"),
        Asked("test", "picture", "colour", "what colour is it", "red", "blue"),
        Asked(
            "test",
            "clip",
            "happens",
            "what happens",
            "The red star turns. The ring grows.",
            "The ring grows.",
        ),
    ]
    report = summary(asked)["test"]
    assert report["single_fact"] == {"asked": 2, "exact": 0.5, "f1": 0.5}
    assert report["kinds"]["happens"] == {"asked": 1, "exact": 0.0, "f1": 0.6667}
    assert report["settings_single_fact"]["clip"]["exact"] == 1.0
    assert "happens" in table({"test": report})
