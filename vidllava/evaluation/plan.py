"""A question of a data set, planned as ``ask`` would plan it; subtitles are those at the frames it will see.

planner = Planner(settings, codec, AskOptions(num_frames=16))
planner.plan(item, sampler)         # Question
planner.blind(item, question)       # the same words, and no media
"""

from __future__ import annotations

from dataclasses import dataclass

from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.subtitles import preface
from vidllava.media.sampler import Sampler
from vidllava.prompting.conversation import Encoder
from vidllava.visuals.planner import ModelSettings
from vidllava.visuals.question import (
    AskOptions,
    MediaItem,
    Question,
    plan_media,
    plan_turn,
    row_options,
    visual_planner,
)


@dataclass(frozen=True)
class Planner:
    """Plans every question of a set for one model under the same options."""

    settings: ModelSettings
    codec: Encoder
    asked: AskOptions

    def options(self, item: EvalItem) -> AskOptions:
        """The flags' options with the question's own before them."""
        return row_options(self.asked, dict(item.own), item.paths)

    def plan(self, item: EvalItem, sampler: Sampler) -> Question:
        """The question, or the first of a conversation. Raises MediaError, UsageError and OverBudget."""
        options = self.options(item)
        media = plan_media(item.paths, visual_planner(self.settings, options), options, sampler)
        text = preface(item.subtitles, timestamps(media)) + (*item.earlier, item.prompt)[0]
        return plan_turn(media, text, self.settings, self.codec, options)

    def blind(self, item: EvalItem, question: Question) -> Question:
        """The words of ``question`` without its media. Raises OverBudget."""
        return plan_turn((), question.text, self.settings, self.codec, self.options(item))

    def next_turn(self, item: EvalItem, question: Question, said: list[tuple[str, str]]) -> Question:
        """What follows in a conversation in which ``said`` are the questions and answers so far."""
        text = (*item.earlier, item.prompt)[len(said)]
        options = self.options(item)
        return plan_turn(question.items, text, self.settings, self.codec, options, history=said)


def timestamps(media: tuple[MediaItem, ...]) -> tuple[float, ...]:
    """Of the frames of the first clip; none where there are only pictures."""
    for item in media:
        if item.plan is not None:
            return item.plan.timestamps_seconds
    return ()
