"""A conversation remembers what was read, and its answers are those of one that remembers nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.clips import write_clip
from vidllava.backbone.answer import Answer, Conversation, answer_question
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory, segments
from vidllava.prompting.budget import OverBudget
from vidllava.prompting.conversation import SLOT
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import Question, plan_media, plan_turn, visual_planner

CLIP = str(Path(__file__).resolve().parents[2] / "examples" / "clip.mp4")
QUESTIONS = ("what happens", "Which way does the red circle move?", "What colour is the circle?")
GREEDY = GenerateOptions(max_new_tokens=24)
DRAWN = GenerateOptions(max_new_tokens=24, temperature=1.5, top_p=0.95, seed=7)
WIDE = AskOptions(context_limit=2000)


@pytest.fixture(scope="module")
def nano() -> Backbone:
    return load_backbone("nano")


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What every prefill computed, in order."""
    kept: list[torch.Tensor] = []
    read = PromptMemory.read

    def watched(self: PromptMemory, *arguments: object, **options: object) -> torch.Tensor:
        kept.append(read(self, *arguments, **options))  # type: ignore[arg-type]
        return kept[-1]

    monkeypatch.setattr(PromptMemory, "read", watched)
    return kept


def talk(
    backbone: Backbone, chosen: GenerateOptions = GREEDY, options: AskOptions = WIDE, clip: str = CLIP
) -> Conversation:
    items = plan_media([clip], visual_planner(backbone.settings, options), options)
    return Conversation(backbone, items, options, chosen)


def replay(
    backbone: Backbone, chat: Conversation, chosen: GenerateOptions, options: AskOptions = WIDE
) -> list[Answer]:
    """Every turn of a conversation again, each from nothing: the definition."""
    said = [(exchange.question.text, exchange.text) for exchange in chat.exchanges]
    answers = []
    for turn, (text, _) in enumerate(said):
        question = plan_turn(
            chat.items, text, backbone.settings, backbone.codec, options, history=said[:turn]
        )
        answers.append(answer_question(backbone, question, chosen))
    return answers


@pytest.mark.parametrize("chosen", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_each_turn_is_bit_for_bit_the_same_conversation_read_anew(
    nano: Backbone, chosen: GenerateOptions, logits: list[torch.Tensor]
) -> None:
    chat = talk(nano, chosen)
    answers = [chat.ask(chat.plan(text)) for text in QUESTIONS]
    assert all(answer.text for answer in answers)
    again = replay(nano, chat, chosen)
    assert [answer.text for answer in again] == [answer.text for answer in answers]
    for one, other in zip(logits[:3], logits[3:], strict=True):
        assert torch.equal(one, other)


def test_the_first_turn_is_what_ask_answers(nano: Backbone, logits: list[torch.Tensor]) -> None:
    chat = talk(nano)
    turn = chat.plan(QUESTIONS[0])
    asked = answer_question(nano, turn, GREEDY)
    assert chat.ask(turn).text == asked.text == "The red circle moves right. The yellow star becomes blue."
    assert torch.equal(*logits)


def test_a_later_turn_reads_only_the_last_answer_and_the_question(
    nano: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = talk(nano)
    first = chat.plan(QUESTIONS[0])
    chat.ask(first)
    monkeypatch.setattr("vidllava.backbone.answer.see", lambda *_, **__: pytest.fail("looked again"))
    monkeypatch.setattr(PromptMemory, "_read_visuals", lambda *_: pytest.fail("read the clip again"))
    read: list[tuple[int, int]] = []
    read_text = PromptMemory._read_text

    def watched(self: PromptMemory, segment: tuple[int, ...], start: int) -> torch.Tensor:
        read.append((start, len(segment)))
        return read_text(self, segment, start)

    monkeypatch.setattr(PromptMemory, "_read_text", watched)
    second = chat.plan(QUESTIONS[1])
    answer = chat.ask(second)
    added = len(second.prompt.ids) - len(first.prompt.ids)
    assert read == [(answer.prompt_tokens - added, added)]
    assert answer.seconds["decode"] == answer.seconds["vision"] == 0.0


def test_after_a_reset_the_clip_is_remembered_and_the_talk_is_not(
    nano: Backbone, monkeypatch: pytest.MonkeyPatch, logits: list[torch.Tensor]
) -> None:
    chat = talk(nano)
    before = [chat.ask(chat.plan(text)).text for text in QUESTIONS[:2]]
    chat.reset()
    monkeypatch.setattr(PromptMemory, "_read_visuals", lambda *_: pytest.fail("read the clip again"))
    assert [chat.ask(chat.plan(text)).text for text in QUESTIONS[:2]] == before
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[1], logits[3])


def test_other_frames_are_read_and_the_talk_goes_on(nano: Backbone, logits: list[torch.Tensor]) -> None:
    chat = talk(nano)
    chat.ask(chat.plan(QUESTIONS[0]))
    fewer = AskOptions(num_frames=4, context_limit=2000)
    chat.look_at(plan_media([CLIP], visual_planner(nano.settings, fewer), fewer), fewer)
    answer = chat.ask(chat.plan(QUESTIONS[1]))
    assert answer.frames[0] is not None
    assert len(answer.frames[0]) == 4
    assert len(chat.exchanges) == 2
    replay(nano, chat, GREEDY, fewer)
    assert torch.equal(logits[1], logits[3])


def test_a_factor_that_rises_reads_everything_again(nano: Backbone, logits: list[torch.Tensor]) -> None:
    room = talk(nano).plan(QUESTIONS[0]).budget
    tight = AskOptions(context_limit=room.total_tokens + 8)
    chat = talk(nano, options=tight)
    answers = [chat.ask(chat.plan(text)) for text in QUESTIONS]
    assert [answer.question.budget.rope_factor for answer in answers] == [1, 2, 2]
    assert any("RoPE factor 2" in note for note in answers[1].question.notes)
    again = replay(nano, chat, GREEDY, tight)
    assert [answer.text for answer in again] == [answer.text for answer in answers]
    for one, other in zip(logits[:3], logits[3:], strict=True):
        assert torch.equal(one, other)


def test_what_cannot_fit_is_refused_and_the_conversation_lives_on(nano: Backbone) -> None:
    room = talk(nano).plan(QUESTIONS[0]).budget
    chat = talk(nano, options=AskOptions(context_limit=room.total_tokens + 8, rope_factor="off"))
    first = chat.ask(chat.plan(QUESTIONS[0])).text
    with pytest.raises(OverBudget):
        chat.plan(QUESTIONS[1])
    chat.reset()
    assert chat.ask(chat.plan(QUESTIONS[0])).text == first


@pytest.mark.parametrize("place", ["prefill", "generate"])
def test_an_interrupt_leaves_a_conversation_that_answers_right(
    place: str, nano: Backbone, monkeypatch: pytest.MonkeyPatch, logits: list[torch.Tensor]
) -> None:
    chat = talk(nano)
    chat.ask(chat.plan(QUESTIONS[0]))
    layer = nano.hf.model.language_model.layers[2]
    forward, calls = layer.forward, iter(range(100))

    def interrupted(*arguments: object, **options: object) -> object:
        if next(calls) == (0 if place == "prefill" else 1):
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    monkeypatch.setattr(layer, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chat.ask(chat.plan(QUESTIONS[1]))
    # With a part of the answer the turn stays; with none it is as if it had not been asked.
    assert len(chat.exchanges) == (1 if place == "prefill" else 2)
    monkeypatch.setattr(layer, "forward", forward)
    chat.ask(chat.plan(QUESTIONS[2]))
    last = logits[-1]
    replay(nano, chat, GREEDY)
    assert torch.equal(logits[-1], last)


def test_segments_of_a_conversation_begin_those_of_its_continuation(tiny: Backbone) -> None:
    chat = talk(tiny)
    said: list[tuple[str, str]] = []
    before: tuple[tuple[int, ...], ...] = ()
    for text, answer in (("one?", "1 <video>"), ("two <image>?", ""), ("three?", "<|im_end|>")):
        question: Question = plan_turn(
            chat.items, text, tiny.settings, tiny.codec, AskOptions(), history=said
        )
        parts = segments(question.prompt)
        assert sum(parts, ()) == question.prompt.ids
        assert parts[0][-1] == SLOT
        assert all(SLOT not in part for part in parts[1:])
        assert parts[: len(before)] == before
        assert len(parts) == 2 + len(said)
        before = parts
        said.append((text, answer))


def test_two_clips_are_one_prefix(tiny: Backbone, tmp_path: Path, logits: list[torch.Tensor]) -> None:
    paths = [str(write_clip(tmp_path / f"{number}.mp4", num_frames=12)) for number in (1, 2)]
    options = AskOptions(num_frames=3)
    items = plan_media(paths, visual_planner(tiny.settings, options), options)
    chat = Conversation(tiny, items, options, GREEDY)
    for text in QUESTIONS[:2]:
        chat.ask(chat.plan(text))
    replay(tiny, chat, GREEDY, options)
    assert torch.equal(logits[1], logits[3])
