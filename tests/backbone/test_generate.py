"""Answers come token by token, the same with and without a cache, alone or in a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.backbone.test_parity import picture, sample, video
from vidllava.backbone.generate import GenerateOptions, choose_token, generate, generate_batch
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import SampleInput, collate
from vidllava.errors import ModelError, UsageError
from vidllava.prompting.conversation import IGNORE, TokenizedPrompt


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


def greedy_without_cache(backbone: Backbone, item: SampleInput, count: int, factor: float) -> list[int]:
    """The definition: read the whole sequence again for every token."""
    ids = list(item.prompt.ids)
    answer: list[int] = []
    for _ in range(count):
        prompt = TokenizedPrompt(tuple(ids), (IGNORE,) * len(ids))
        with torch.inference_mode():
            logits = backbone.all_logits(collate([SampleInput(prompt, item.visuals)]), rope_factor=factor)
        answer.append(int(logits[0, -1].argmax()))
        ids.append(answer[-1])
    return answer


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_the_cache_changes_nothing(
    backbone: Backbone, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidllava.backbone.generate.stop_ids", lambda _: frozenset())
    item = sample(10, video(3), 11, 12)
    tokens = list(
        generate(backbone, collate([item]), rope_factor=factor, options=GenerateOptions(max_new_tokens=8))
    )
    assert tokens == greedy_without_cache(backbone, item, 8, factor)


def test_a_batch_answers_as_its_samples_do_alone(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidllava.backbone.generate.stop_ids", lambda _: frozenset())
    items = [sample(10, video(3), 11, 12), sample(9, picture(140, 190), 10), sample(5, 6, 7)]
    options = GenerateOptions(max_new_tokens=6)
    steps = list(generate_batch(backbone, collate(items), rope_factor=1.0, options=options))
    for number, item in enumerate(items):
        together = [step[number] for step in steps]
        assert together == greedy_without_cache(backbone, item, 6, 1.0)


def test_an_answer_ends_at_a_stop_token(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    item = sample(10, video(2), 11)
    endless = greedy_without_cache(backbone, item, 6, 1.0)
    stop = endless[3]
    monkeypatch.setattr("vidllava.backbone.generate.stop_ids", lambda _: frozenset({stop}))
    tokens = list(
        generate(backbone, collate([item]), rope_factor=1.0, options=GenerateOptions(max_new_tokens=6))
    )
    assert tokens == endless[: endless.index(stop)]


def test_the_seed_decides_a_sampled_answer(backbone: Backbone) -> None:
    def draw(seed: int) -> list[int]:
        options = GenerateOptions(max_new_tokens=12, temperature=50.0, seed=seed)
        return list(generate(backbone, collate([sample(10, 11)]), rope_factor=1.0, options=options))

    assert draw(1) == draw(1)
    assert any(draw(1) != draw(seed) for seed in range(2, 6))


def test_top_p_keeps_the_smallest_set_that_holds_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(500, 1)
    options = GenerateOptions(temperature=1.0, top_p=0.6)
    drawn = choose_token(logits, options, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 1}
    only = choose_token(logits, GenerateOptions(temperature=1.0, top_p=0.01), torch.Generator())
    assert set(only.tolist()) == {0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"seed": 2**63},
    ],
)
def test_options_outside_their_bounds_name_the_flag(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--" + next(iter(wrong)).replace("_", "-")):
        GenerateOptions(**wrong)  # type: ignore[arg-type]


def test_a_model_that_computes_nan_is_told_apart_from_one_with_nothing_to_say(checkpoint: Path) -> None:
    broken = load_backbone(str(checkpoint))
    torch.nn.init.constant_(broken.hf.lm_head.weight, float("nan"))
    with pytest.raises(ModelError, match="computes NaN or Inf"):
        list(generate(broken, collate([sample(10, 11)]), rope_factor=1.0, options=GenerateOptions()))


def test_nonsense_in_the_kernels_variable_is_wrong_usage(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDLLAVA_KERNELS", "nonsense")
    with pytest.raises(UsageError, match="VIDLLAVA_KERNELS: 'nonsense' is none of"):
        load_backbone(str(checkpoint))
