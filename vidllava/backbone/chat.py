"""A conversation about a clip: the tower reads it once, the language model reads each turn once.

    conversation = Conversation(backbone, items, AskOptions(), GenerateOptions())
    first = conversation.ask(conversation.plan("what happens"))
    second = conversation.ask(conversation.plan("Which way does it move?"))

Each answer is, bit for bit on a CPU, the one that ``answer_question`` gives for the same conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vidllava.backbone.answer import Answer, answer_seen, report_out_of_memory, stage_seconds
from vidllava.backbone.clock import StageClock
from vidllava.backbone.feature_cache import FeatureCache
from vidllava.backbone.generate import GenerateOptions
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory
from vidllava.backbone.see import EncodedVisuals, see
from vidllava.media.sampler import IN_PROCESS, Sampler
from vidllava.visuals.question import AskOptions, MediaItem, Question, plan_turn


@dataclass(frozen=True, eq=False)
class Exchange:
    """A question and what was answered; ``answer`` is None where the answer was stopped on its way."""

    question: Question
    text: str
    answer: Answer | None


class Conversation:
    """Questions and answers about ``items``. Nothing is decoded before the first question."""

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[MediaItem],
        options: AskOptions,
        chosen: GenerateOptions,
        *,
        sampler: Sampler = IN_PROCESS,
        cache: FeatureCache | None = None,
        reuse_frames: bool = True,
    ) -> None:
        self.items = tuple(items)
        self.exchanges: list[Exchange] = []
        self._backbone = backbone
        self._options = options
        self._chosen = chosen
        self._sampler = sampler
        self._cache = cache
        self._reuse_frames = reuse_frames
        self._encoded: EncodedVisuals | None = None
        self._memory = PromptMemory(backbone)

    def plan(self, text: str) -> Question:
        """The next question, after all that was said. Raises UsageError, OverBudget if it does not fit."""
        settings, codec = self._backbone.settings, self._backbone.codec
        history = [(exchange.question.text, exchange.text) for exchange in self.exchanges]
        return plan_turn(self.items, text, settings, codec, self._options, history=history)

    def ask(self, question: Question, *, on_text: Callable[[str], None] | None = None) -> Answer:
        """Answer a question that ``plan`` made last. Where the answer is interrupted, the part that had come
        stays in the conversation, and the interrupt goes on. Raises as ``answer_question``."""
        backbone, clock = self._backbone, StageClock(self._backbone.device)
        said: list[str] = []

        def hear(piece: str) -> None:
            said.append(piece)
            if on_text is not None:
                on_text(piece)

        with report_out_of_memory(backbone, question):
            encoded = self._see(clock)
        try:
            answer = answer_seen(backbone, question, encoded, self._memory, clock, self._chosen, on_text=hear)
        except KeyboardInterrupt:
            if part := "".join(said).strip():
                self.exchanges.append(Exchange(question, part, None))
            raise
        self.exchanges.append(Exchange(question, answer.text, answer))
        if self._cache is None:
            return answer
        with clock.stage("cache"):
            self._cache.flush()
        return replace(answer, seconds=stage_seconds(clock), cache_notes=self._cache.take_notes())

    def _see(self, clock: StageClock) -> EncodedVisuals:
        if self._encoded is None:
            self._encoded = see(
                self._backbone,
                self.items,
                clock,
                sampler=self._sampler,
                cache=self._cache,
                reuse_frames=self._reuse_frames,
                keep_pixels=False,
            )
        return self._encoded

    def reset(self) -> None:
        """Forget what was said. What was seen is kept, and so is what the language model read of it."""
        self.exchanges.clear()

    def look_at(self, items: Sequence[MediaItem], options: AskOptions) -> None:
        """Go on about other frames or another range; what was said stays said.

        Raises OverBudget, and changes nothing, if not even a word more would fit then.
        """
        settings, codec = self._backbone.settings, self._backbone.codec
        history = [(exchange.question.text, exchange.text) for exchange in self.exchanges]
        plan_turn(items, "?", settings, codec, options, history=history)
        self.items, self._options = tuple(items), options
        self._encoded = None  # with it goes what the language model read: see PromptMemory.read
