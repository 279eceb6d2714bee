"""One question in one cell, planned as `ask` would plan it: its frames, its tokens, its factor.

A factor that was asked for by name is used even where the prompt does not fit: what happens beyond the
trained context is what a sweep is for. It is marked as beyond. ``auto`` goes no further than `ask` does.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

from vidllava.backbone.model import Backbone
from vidllava.bench.frames.request import Cell, FramesRequest
from vidllava.errors import UsageError, VidllavaError
from vidllava.evaluation.item import EvalItem
from vidllava.media.sampler import Sampler
from vidllava.prompting.budget import OverBudget, TokenBudget
from vidllava.visuals.question import AskOptions, Question, plan_question, row_options

# What a cell decides, whatever a row of the data says of itself.
DECIDED = frozenset({"num_frames", "fps", "max_frames", "pool_stride", "pool_mode", "rope_factor"})


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: a status of ``evaluation.summary``, and the words."""

    status: str
    words: str


@dataclass(frozen=True, eq=False)
class Planned:
    """A question that can be asked. ``question.budget`` is wide enough for it; ``budget`` is the true one."""

    question: Question
    budget: TokenBudget

    @property
    def is_beyond(self) -> bool:
        """Whether prompt and reserve exceed trained context x factor."""
        return not self.budget.fits

    @property
    def subject(self) -> Hashable:
        """What decides the result: cells of one subject are measured once."""
        frames = tuple(item.plan.indices if item.plan is not None else None for item in self.question.items)
        layouts = tuple(item.layout for item in self.question.items)
        return frames, layouts, float(self.budget.rope_factor)


def plan_cell(
    item: EvalItem,
    cell: Cell | None,
    backbone: Backbone,
    base: AskOptions,
    request: FramesRequest,
    sampler: Sampler,
) -> Planned | Failure:
    """``item`` in ``cell``; None asks without the video."""
    own = {name: value for name, value in item.own if name not in DECIDED}
    try:
        if cell is None:
            blind = AskOptions(preset=base.preset, context_limit=base.context_limit, system=base.system)
            return _fitting(plan_question([], item.prompt, backbone.settings, backbone.codec, blind))
        asked = replace(base, **cell.to_json(), max_frames=request.max_frames)
        options = row_options(asked, own, item.paths)
        question = plan_question(
            item.paths,
            item.prompt,
            backbone.settings,
            backbone.codec,
            options,
            require_fit=False,
            sampler=sampler,
        )
        if cell.rope_factor == "auto":
            question.budget.require_fit()
        return _fitting(question)
    except OverBudget as fault:
        return Failure("over_budget", str(fault))
    except UsageError as fault:  # a range outside of the clip, frames of a picture
        return Failure("usage_error", str(fault))
    except VidllavaError as fault:  # a file that cannot be used
        return Failure("decode_error", str(fault))


def _fitting(question: Question) -> Planned:
    """The question with a context in which it may be answered, whatever was trained."""
    budget = question.budget
    if budget.fits:
        return Planned(question, budget)
    needed = math.ceil(budget.total_tokens / budget.rope_factor)
    return Planned(replace(question, budget=replace(budget, context_limit=needed)), budget)
