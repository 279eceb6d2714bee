"""Questions answered together: the same as alone; and one that does not fit costs no other one its answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.clips import write_clip
from tests.tiny import tiny_checkpoint
from vidllava.backbone.answer import answer_question
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.errors import ModelError
from vidllava.evaluation import answering
from vidllava.evaluation.answering import Answerer, OutOfMemory, Ready, Reply
from vidllava.evaluation.asking import Planner
from vidllava.evaluation.engine import status_of
from vidllava.evaluation.item import EvalItem
from vidllava.media.sampler import IN_PROCESS
from vidllava.visuals.options import AskOptions, GenerateOptions

LENGTHS = (3, 1, 6, 2, 4)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(tiny_checkpoint(tmp_path_factory.mktemp("model"), preset="nano")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=12))


@pytest.fixture(autouse=True)
def never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights end an answer at a random place."""
    monkeypatch.setattr("vidllava.backbone.generate.stop_ids", lambda _: frozenset())


def answerer(backbone: Backbone) -> Answerer:
    assert backbone.codec is not None
    planner = Planner(backbone.settings, backbone.codec, AskOptions())
    options = GenerateOptions(max_new_tokens=8)
    return Answerer(backbone, planner, options, cache=None, reuse_frames=True)


def ready(backbone: Backbone, clip: str, **changes: object) -> list[Ready]:
    """A question for each number of frames, each with as many words more."""
    planner = Planner(backbone.settings, backbone.codec, AskOptions())
    found = []
    for number in LENGTHS:
        text = "what is " + "very " * number + "red?"
        item = EvalItem(
            **{
                "id": str(number),
                "row": 1,
                "media": (clip,),
                "paths": (clip,),
                "question": text,
                "prompt": text,
            },
            **{"scoring": "exact", "answer": "x", "own": (("num_frames", number),), **changes},  # type: ignore[arg-type]
        )
        found.append(Ready(item, planner.plan(item, IN_PROCESS), IN_PROCESS))
    return found


def texts(replies: Sequence[object]) -> list[str]:
    assert all(isinstance(reply, Reply) for reply in replies)
    return [reply.text for reply in replies if isinstance(reply, Reply)]


def test_together_as_alone_and_as_ask(backbone: Backbone, clip: str):
    asked = ready(backbone, clip)
    together = texts(answerer(backbone).answer(asked))
    alone = [text for one in asked for text in texts(answerer(backbone).answer([one]))]
    options = GenerateOptions(max_new_tokens=8)
    assert together == alone == [answer_question(backbone, one.question, options).text for one in asked]
    assert len(set(together)) > 1


def test_a_benchmarks_own_limit_is_kept_in_a_batch(backbone: Backbone, clip: str):
    asked = ready(backbone, clip)
    asked[1] = ready(backbone, clip, max_new_tokens=2)[1]
    replies = answerer(backbone).answer(asked)
    assert [reply.new_tokens for reply in replies if isinstance(reply, Reply)] == [8, 2, 8, 8, 8]
    assert [reply.stopped for reply in replies if isinstance(reply, Reply)] == [False] * 5


def limited(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Memory that is enough for ``most`` prompts at once; the sizes that were tried."""
    sizes = []
    real = answering.generate_together

    def generate(backbone: Backbone, prompts: Sequence[object], **options: object) -> object:
        sizes.append(len(prompts))
        if len(prompts) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(backbone, prompts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(answering, "generate_together", generate)
    return sizes


def test_where_memory_runs_out_the_batch_is_halved_and_stays_small(
    backbone: Backbone, clip: str, monkeypatch: pytest.MonkeyPatch
):
    asked = ready(backbone, clip)
    whole = texts(answerer(backbone).answer(asked))
    sizes = limited(monkeypatch, 2)
    one = answerer(backbone)
    assert texts(one.answer(asked)) == whole
    assert sizes == [5, 2, 2, 1]
    assert one.largest == 2
    assert texts(one.answer(asked)) == whole
    assert sizes[4:] == [2, 2, 1]


def test_a_question_that_does_not_fit_alone_is_given_up_and_the_others_are_not(
    backbone: Backbone, clip: str, monkeypatch: pytest.MonkeyPatch
):
    asked = ready(backbone, clip)
    real = answering.see

    def see(backbone: Backbone, items: Sequence[object], *rest: object, **options: object) -> object:
        if items is asked[2].question.items:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(backbone, items, *rest, **options)  # type: ignore[arg-type]

    whole = texts(answerer(backbone).answer(asked))
    monkeypatch.setattr(answering, "see", see)
    replies = answerer(backbone).answer(asked)
    fault = replies.pop(2)
    assert isinstance(fault, OutOfMemory)
    assert status_of(fault) == "oom"
    assert texts(replies) == [*whole[:2], *whole[3:]]


def test_another_fault_of_torch_is_no_lack_of_memory(
    backbone: Backbone, clip: str, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(answering, "see", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        answerer(backbone).answer(ready(backbone, clip))


def test_a_later_turn_is_asked_after_the_models_own_answers(backbone: Backbone, clip: str):
    first, *_ = ready(backbone, clip)
    later, *_ = ready(backbone, clip, earlier=("what moves?",))
    assert later.question.text == "what moves?"
    own = answer_question(backbone, later.question, GenerateOptions(max_new_tokens=8)).text
    planner = Planner(backbone.settings, backbone.codec, AskOptions())
    second = planner.next_turn(later.item, later.question, [("what moves?", own)])
    wanted = answer_question(backbone, second, GenerateOptions(max_new_tokens=8)).text
    replies = answerer(backbone).answer([first, later])
    assert texts(replies)[1] == wanted
    assert isinstance(replies[1], Reply)
    assert replies[1].question.text == later.item.prompt


def test_a_question_can_be_asked_without_its_media(backbone: Backbone, clip: str):
    planner = Planner(backbone.settings, backbone.codec, AskOptions())
    asked = ready(backbone, clip)
    blind = [Ready(one.item, planner.blind(one.item, one.question), one.sampler) for one in asked]
    replies = answerer(backbone).answer(blind)
    assert [reply.question.budget.visual_tokens for reply in replies if isinstance(reply, Reply)] == [0] * 5
    assert texts(replies) != texts(answerer(backbone).answer(asked))


def test_a_model_that_computes_nonsense_ends_the_run(
    backbone: Backbone, clip: str, monkeypatch: pytest.MonkeyPatch
):
    def nothing(*_: object, **__: object) -> torch.Tensor:
        return torch.full((1, 8), float("nan"))

    monkeypatch.setattr("vidllava.backbone.prefill.PromptMemory.read", nothing)
    with pytest.raises(ModelError, match="NaN"):
        answerer(backbone).answer(ready(backbone, clip)[:1])
