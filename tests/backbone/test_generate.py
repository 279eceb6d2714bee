"""Answers come token by token, the same with and without a cache, alone or in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from tests.backbone.test_parity import picture, sample, video
from vidllava.backbone.generate import ReadPrompt, choose_token, generate_after, generate_together
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import SampleInput, collate
from vidllava.errors import ModelError, UsageError
from vidllava.prompting.conversation import IGNORE, TokenizedPrompt
from vidllava.visuals.options import GenerateOptions


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


def read(backbone: Backbone, item: SampleInput, factor: float) -> ReadPrompt:
    cache = DynamicCache(config=backbone.hf.config.text_config)
    with torch.inference_mode():
        logits = backbone.next_token_logits(collate([item]), rope_factor=factor, cache=cache)
    return ReadPrompt(logits, cache, item.num_tokens)


def generate(
    backbone: Backbone, item: SampleInput, *, rope_factor: float, options: GenerateOptions
) -> Iterator[int]:
    prompt = read(backbone, item, rope_factor)
    return generate_after(
        backbone, prompt.logits, prompt.cache, prompt.num_rows, rope_factor=rope_factor, options=options
    )


def generate_batch(
    backbone: Backbone, items: list[SampleInput], *, rope_factor: float, options: GenerateOptions
) -> Iterator[list[int | None]]:
    prompts = [read(backbone, item, rope_factor) for item in items]
    return generate_together(backbone, prompts, rope_factor=rope_factor, options=options)


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
    tokens = list(generate(backbone, item, rope_factor=factor, options=GenerateOptions(max_new_tokens=8)))
    assert tokens == greedy_without_cache(backbone, item, 8, factor)


def ends_at(backbone: Backbone, ends: int | list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checkpoint itself name the tokens that end its answers."""
    monkeypatch.setattr(backbone.hf.generation_config, "eos_token_id", ends)


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_a_batch_answers_as_its_samples_do_alone_and_an_ended_one_stays_silent(
    backbone: Backbone, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [sample(10, video(3), 11, 12), sample(9, picture(140, 190), 10), sample(5, 6, 7)]
    alone = [greedy_without_cache(backbone, item, 8, factor) for item in items]
    # The third ends first, the first later, the second not at all.
    ends = [alone[2][2], alone[0][6]]
    ends_at(backbone, ends, monkeypatch)
    lengths = [next((n for n, token in enumerate(one) if token in ends), 8) for one in alone]
    assert lengths == [6, 8, 2]
    options = GenerateOptions(max_new_tokens=8)
    steps = list(generate_batch(backbone, items, rope_factor=factor, options=options))
    for number, (one, length) in enumerate(zip(alone, lengths, strict=True)):
        assert [step[number] for step in steps] == [*one[:length], *[None] * (8 - length)]


def test_a_batch_stops_when_all_have_ended(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [sample(10, video(3), 11, 12), sample(5, 6, 7)]
    alone = [greedy_without_cache(backbone, item, 6, 1.0) for item in items]
    ends_at(backbone, [alone[0][1], alone[1][3]], monkeypatch)
    options = GenerateOptions(max_new_tokens=6)
    steps = list(generate_batch(backbone, items, rope_factor=1.0, options=options))
    assert steps == [[alone[0][0], alone[1][0]], [None, alone[1][1]], [None, alone[1][2]]]


@pytest.mark.parametrize("as_list", [False, True])
def test_the_checkpoints_own_end_ends_an_answer(
    backbone: Backbone, as_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = sample(5, 6, 7)
    endless = greedy_without_cache(backbone, item, 6, 1.0)
    ends_at(backbone, [endless[3]] if as_list else endless[3], monkeypatch)
    tokens = list(generate(backbone, item, rope_factor=1.0, options=GenerateOptions(max_new_tokens=6)))
    assert tokens == endless[:3]


@pytest.mark.parametrize("ends", [None, 263])
def test_the_end_of_a_turn_ends_an_answer_whatever_the_checkpoint_lists(
    backbone: Backbone, ends: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = sample(5, 6, 7)
    endless = greedy_without_cache(backbone, item, 6, 1.0)
    ends_at(backbone, ends, monkeypatch)
    monkeypatch.setattr(backbone.codec, "special", lambda name: {"<|im_end|>": endless[2]}[name])
    tokens = list(generate(backbone, item, rope_factor=1.0, options=GenerateOptions(max_new_tokens=6)))
    assert tokens == endless[:2]


@pytest.mark.parametrize(("most", "runs"), [(1, 0), (4, 3), (8, 5)])
def test_the_model_is_run_for_no_token_that_nobody_takes(
    backbone: Backbone, most: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = sample(5, 6, 7)
    endless = greedy_without_cache(backbone, item, 8, 1.0)
    ends_at(backbone, endless[5], monkeypatch)  # to find an end, the model must be run for it
    steps, calls = backbone.step_logits, []

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return steps(*arguments, **options)

    monkeypatch.setattr(backbone, "step_logits", counted)
    tokens = list(generate(backbone, item, rope_factor=1.0, options=GenerateOptions(max_new_tokens=most)))
    assert tokens == endless[: min(most, 5)]
    assert len(calls) == runs


def test_the_seed_decides_a_sampled_answer(backbone: Backbone) -> None:
    def draw(seed: int) -> list[int]:
        options = GenerateOptions(max_new_tokens=12, temperature=50.0, seed=seed)
        return list(generate(backbone, sample(10, 11), rope_factor=1.0, options=options))

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
        list(generate(broken, sample(10, 11), rope_factor=1.0, options=GenerateOptions()))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_after_the_first_token_is_told(
    backbone: Backbone, wrong: float, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at(backbone, None, monkeypatch)
    steps, calls = backbone.step_logits, []

    def breaking(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        logits = steps(*arguments, **options)
        if len(calls) == 2:
            logits[0, 7] = wrong
        return logits

    monkeypatch.setattr(backbone, "step_logits", breaking)
    options = GenerateOptions(max_new_tokens=9, temperature=temperature)
    said = []
    with pytest.raises(ModelError, match="computes NaN or Inf at token 3 of the answer"):
        said.extend(generate(backbone, sample(5, 6, 7), rope_factor=1.0, options=options))
    assert len(calls) == 2


def test_what_an_ended_sample_computes_disturbs_nobody(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [sample(10, 11, 12), sample(5, 6, 7)]
    alone = [greedy_without_cache(backbone, item, 5, 1.0) for item in items]
    ends_at(backbone, alone[0][1], monkeypatch)
    steps, calls = backbone.step_logits, []

    def breaking(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        logits = steps(*arguments, **options)
        if len(calls) > 1:
            logits[0] = float("nan")
        return logits

    monkeypatch.setattr(backbone, "step_logits", breaking)
    options = GenerateOptions(max_new_tokens=5)
    found = list(generate_batch(backbone, items, rope_factor=1.0, options=options))
    assert [step[1] for step in found] == alone[1]
    assert [step[0] for step in found] == [alone[0][0], None, None, None, None]


def test_nonsense_in_the_kernels_variable_is_wrong_usage(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDLLAVA_KERNELS", "nonsense")
    with pytest.raises(UsageError, match="VIDLLAVA_KERNELS: 'nonsense' is none of"):
        load_backbone(str(checkpoint))
