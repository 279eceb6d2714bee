"""What is kept of a prompt is what was read whole, at the same factor, by layers that keep everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backbone.test_parity import video
from tests.tiny import tiny_checkpoint
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory, segments
from vidllava.backbone.rotary import ScaledRotary
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt

CLIP = video(3)
FIRST = TokenizedPrompt((10, SLOT, 11, 12, 13), (IGNORE,) * 5)
# The first prompt, an answer to it and a second question.
SECOND = TokenizedPrompt((*FIRST.ids, 20, 21, 22, 14, 15), (*FIRST.labels, 20, 21, 22, IGNORE, IGNORE))


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A language model whose layers forget all but the last eight rows."""
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    return load_backbone(str(tiny_checkpoint(tmp_path_factory.mktemp("sliding"), **window)))


def features_of(backbone: Backbone) -> torch.Tensor:
    with torch.inference_mode():
        return backbone.encode(CLIP.pixels)


def read(
    memory: PromptMemory, prompt: TokenizedPrompt, features: torch.Tensor, factor: float = 1.0
) -> torch.Tensor:
    return memory.read(prompt, [CLIP.layout], features, rope_factor=factor)


def watched(memory: PromptMemory, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the text segments that are read from now on; 0 for the segment with the clip."""
    kept: list[int] = []
    visuals, text = memory._read_visuals, memory._read_text
    monkeypatch.setattr(memory, "_read_visuals", lambda *a: (kept.append(0), visuals(*a))[1])
    monkeypatch.setattr(memory, "_read_text", lambda s, start: (kept.append(len(s)), text(s, start))[1])
    return kept


def test_a_continuation_reads_only_what_is_new_with_the_same_bits(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, memory = features_of(backbone), PromptMemory(backbone)
    read(memory, FIRST, features)
    kept = watched(memory, monkeypatch)
    logits = read(memory, SECOND, features)
    assert kept == [5]
    assert torch.equal(logits, read(PromptMemory(backbone), SECOND, features))


@pytest.mark.parametrize("what", ["factor", "features"])
def test_another_factor_or_other_features_keep_nothing(
    backbone: Backbone, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, memory = features_of(backbone), PromptMemory(backbone)
    read(memory, FIRST, features)
    factor = 2.0 if what == "factor" else 1.0
    if what == "features":
        features = features + 0.5
    kept = watched(memory, monkeypatch)
    logits = read(memory, SECOND, features, factor)
    assert kept == [0, 3, 5]
    assert torch.equal(logits, read(PromptMemory(backbone), SECOND, features, factor))


def test_a_sliding_window_keeps_nothing_to_go_on_from(
    sliding: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, memory = features_of(sliding), PromptMemory(sliding)
    read(memory, FIRST, features)
    kept = watched(memory, monkeypatch)
    logits = read(memory, SECOND, features)
    assert kept == [0, 3, 5]
    assert torch.equal(logits, read(PromptMemory(sliding), SECOND, features))


@pytest.mark.parametrize("place", ["_read_visuals", "_read_text"])
def test_an_interrupted_segment_was_not_read(
    backbone: Backbone, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the keys and values of some layers and not of others."""
    features, memory = features_of(backbone), PromptMemory(backbone)
    layers: list[Any] = list(backbone.hf.model.language_model.layers)
    forward, counted = layers[1].forward, iter(range(9))
    interrupts = 0 if place == "_read_visuals" else 1

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if next(counted) == interrupts:
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(layers[1], "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(memory, FIRST, features)
    whole = segments(FIRST)[:interrupts]
    assert [segment for segment, _ in memory._read] == list(whole)
    assert torch.equal(read(memory, FIRST, features), read(PromptMemory(backbone), FIRST, features))
    # With another last segment what was interrupted is not the last one, which is read in any case.
    assert torch.equal(read(memory, SECOND, features), read(PromptMemory(backbone), SECOND, features))


def test_a_segment_that_was_interrupted_is_not_taken_for_read_by_a_longer_prompt(backbone: Backbone) -> None:
    features, memory = features_of(backbone), PromptMemory(backbone)
    text, calls = memory._read_text, []

    def interrupted(segment: tuple[int, ...], start: int) -> torch.Tensor:
        calls.append(segment)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return text(segment, start)

    memory._read_text = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        read(memory, FIRST, features)
    logits = read(memory, SECOND, features)
    assert [len(segment) for segment in calls] == [3, 3, 5]
    assert torch.equal(logits, read(PromptMemory(backbone), SECOND, features))


@pytest.fixture
def rotary() -> ScaledRotary:
    return ScaledRotary(torch.tensor([1.0, 0.5]), 0.75)


def tables(rotary: ScaledRotary) -> Iterator[torch.Tensor]:
    return iter(rotary(torch.zeros(1, 3, 4), torch.arange(3)[None]))


@pytest.mark.parametrize("fails", [False, True])
def test_tables_and_factor_hold_for_one_run_and_those_before_come_back(
    rotary: ScaledRotary, fails: bool
) -> None:
    before = list(tables(rotary))
    written = torch.full((1, 3, 4), 7.0), torch.full((1, 3, 4), 8.0)
    try:
        with rotary.using(2.0, written):
            assert rotary.factor == 2.0
            assert list(tables(rotary)) == list(written)
            with rotary.using(4.0):
                inner = list(tables(rotary))
            assert rotary.factor == 2.0
            assert list(tables(rotary)) == list(written)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert rotary.factor == 1.0
    for one, other, scaled in zip(tables(rotary), before, inner, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, scaled)
