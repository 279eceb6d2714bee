"""The sweep: every question in every cell, a row each, with as much shared between cells as can be shared.

    sweep = Sweep(backbone, request, items, base=AskOptions(), sampler=sampler, told=conditions)
    for row in sweep.rows(standing={}): ...

A clip is decoded once for all cells, and each of its frames encoded once; prefill and generating are timed
for every question. A few questions share nothing: each of their cells goes from the file to the answer as
`ask` does, and gives the cell's times of decoding and of the tower, and its memory (``features``: "fresh").
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidllava.backbone.answer import Answer, answer_seen, check_room
from vidllava.backbone.feature_cache import Entry
from vidllava.backbone.memory import OutOfMemory
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory
from vidllava.backbone.see import EncodedVisual, EncodedVisuals, StageClock, see
from vidllava.bench.frames.request import Cell, Failure, FramesRequest, Planned, plan_cell
from vidllava.bench.rows import Row
from vidllava.errors import MediaError, ResourceError, is_allocation_failure
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.memory import PeakMemory
from vidllava.evaluation.scoring import score
from vidllava.media.frames import FramePlan
from vidllava.media.probe import VideoInfo
from vidllava.media.sampler import IN_PROCESS, HandingOn, Sampler
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.planner import VisualPlanner
from vidllava.visuals.question import MediaItem, visual_planner

Media = tuple[MediaItem, ...]
"""What one cell shows the model."""


class ProbedOnce(HandingOn):
    """A sampler whose looks into files are remembered, for the many plans of one question."""

    def __init__(self, sampler: Sampler) -> None:
        self.others = sampler
        self._infos: dict[str, VideoInfo] = {}
        self._pictures: dict[str, npt.NDArray[np.uint8]] = {}

    def forget(self) -> None:
        """Before the next question."""
        self._infos, self._pictures = {}, {}

    def probe(self, path: str) -> VideoInfo:
        """See ``Sampler``."""
        if path not in self._infos:
            self._infos[path] = self.others.probe(path)
        return self._infos[path]

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """See ``Sampler``."""
        if path not in self._pictures:
            self._pictures[path] = self.others.picture(path)
        return self._pictures[path]


@dataclass
class Saved:
    """How many frames the cells asked for, and how many were decoded and encoded for them."""

    asked: int = 0
    decoded: int = 0
    encoded: int = 0


@dataclass(frozen=True, eq=False)
class Shared:
    """Features of all frames of all plans, per medium."""

    seen: tuple[EncodedVisual, ...]
    cells_per_grid: int
    decoded: int = field(default=0)

    @property
    def num_encoded(self) -> int:
        """Grids that went through the tower."""
        return sum(len(set(one.entry.source)) for one in self.seen)

    def encoded_for(self, items: Media) -> EncodedVisuals:
        """What ``see`` would give for ``items``."""
        chosen = [self._of(item, seen) for item, seen in zip(items, self.seen, strict=True)]
        return EncodedVisuals(
            tuple(seen for seen, _ in chosen), torch.cat([features for _, features in chosen])
        )

    def _of(self, item: MediaItem, seen: EncodedVisual) -> tuple[EncodedVisual, torch.Tensor]:
        source = seen.entry.source
        if item.plan is not None:
            assert seen.frames is not None  # a clip
            place = {index: number for number, index in enumerate(seen.frames.indices)}
            source = tuple(source[place[index]] for index in item.plan.indices)
        features = seen.entry.features
        wanted = torch.tensor(source, device=features.device)
        rows = features.view(-1, self.cells_per_grid, features.shape[1])[wanted].flatten(0, 1)
        return EncodedVisual(
            item.layout, Entry(rows, source, None, None, seen.notes), item.plan, "tower"
        ), rows


def see_once(
    backbone: Backbone, plans: Sequence[Media], planner: VisualPlanner, sampler: Sampler
) -> Shared | None:
    """Features of all frames in ``plans`` (the same media in each), decoded in one pass.

    None where the file is damaged: each plan is then a case of its own. Raises torch's OutOfMemoryError, and
    ResourceError for a decoder that takes too long.
    """
    union = tuple(_union(media, planner) for media in zip(*plans, strict=True))
    try:
        encoded = see(backbone, union, StageClock(backbone.device), sampler=sampler, keep_pixels=False)
    except MediaError:
        return None
    for item, seen in zip(union, encoded.visuals, strict=True):
        if item.plan is not None and (seen.frames is None or seen.frames.indices != item.plan.indices):
            return None
        if seen.notes:  # damage somewhere: which plans it touches, only they can tell
            return None
    decoded = sum(item.layout.num_grids for item in union)
    return Shared(encoded.visuals, backbone.settings.side**2, decoded)


def _union(media: Iterable[MediaItem], planner: VisualPlanner) -> MediaItem:
    """One medium with the frames of all its plans."""
    items = list(media)
    first = items[0]
    if first.plan is None:
        return first
    info = first.info
    assert info is not None  # a clip
    indices = sorted({index for item in items if item.plan is not None for index in item.plan.indices})
    times = tuple(float(time) for time in info.frame_times[indices])
    plan = FramePlan(times, tuple(indices), times, f"the frames of {len(items)} plans")
    return replace(first, plan=plan, layout=planner.video(len(indices)))


BLIND = "blind"
# Conditions that change a result or its time; the commit does not, on its own.
_IN_KEY = (
    "model",
    "weights",
    "weights_stamp",
    "pool_first",
    "attn_implementation",
    "kernels",
    "dtype",
    "device",
    "threads",
    "torch",
    "triton",
    "transformers",
    "vidllava",
)


class Sweep:
    """What is measured, in order. ``told`` stands in every row."""

    def __init__(
        self,
        backbone: Backbone,
        request: FramesRequest,
        items: Sequence[EvalItem],
        *,
        base: AskOptions,
        told: Mapping[str, Any],
        sampler: Sampler = IN_PROCESS,
    ) -> None:
        self.request, self.items = request, items
        self.saved = Saved()
        self._backbone, self._base, self._told = backbone, base, told
        self._sampler = ProbedOnce(sampler)
        self._visuals = visual_planner(backbone.settings, base)
        self._content = [item.content_key for item in items]
        by_content = sorted(range(len(items)), key=lambda number: self._content[number])
        self.timed = frozenset(by_content[: request.num_timed])
        """Numbers of the questions that share nothing: those with the smallest hashes."""
        self._warm = False

    @property
    def subjects(self) -> tuple[Cell | None, ...]:
        """The cells, and None for the question without its video."""
        return (*((None,) if self.request.blind else ()), *self.request.cells)

    @property
    def keys(self) -> list[str]:
        """Those of all rows, in order."""
        return [self._key(number, cell) for number in range(len(self.items)) for cell in self.subjects]

    def rows(self, standing: Mapping[str, Row]) -> Iterator[Row | None]:
        """The rows, each as soon as it is measured; None for one that is in ``standing`` (by key)."""
        for number in range(len(self.items)):
            yield from self._question(number, standing)

    def _key(self, number: int, cell: Cell | None) -> str:
        words = [
            self._content[number],
            None if cell is None else cell.to_json(),
            number in self.timed,
            self.request.max_new_tokens,
            self.request.max_frames,
            {name: value for name, value in vars(self._base).items() if value is not None},
            {name: self._told.get(name) for name in _IN_KEY},
        ]
        return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=10).hexdigest()

    def _question(self, number: int, standing: Mapping[str, Row]) -> Iterator[Row | None]:
        """The rows of one question."""
        keys = {cell: self._key(number, cell) for cell in self.subjects}
        if all(key in standing for key in keys.values()):
            yield from [None] * len(keys)
            return
        item = self.items[number]
        self._sampler.forget()
        planned = {
            cell: plan_cell(item, cell, self._backbone, self._base, self.request, self._sampler)
            for cell in self.subjects
        }
        found = {  # results of an earlier run, by what decides them
            plan.subject: standing[keys[cell]]
            for cell, plan in planned.items()
            if isinstance(plan, Planned) and keys[cell] in standing
        }
        missing = [plan for cell, plan in planned.items() if cell is not None and keys[cell] not in standing]
        shared = self._share(number, [plan for plan in missing if isinstance(plan, Planned)], found)
        for cell, plan in planned.items():
            if keys[cell] in standing:
                yield None
                continue
            row = {"key": keys[cell], **_asked(item, cell)}
            if isinstance(plan, Failure):
                row |= {"status": plan.status, "error": plan.words}
            else:
                row |= self._result(item, cell, plan, shared, found)
            yield row | {"date": _now(), "load_1min": _load(), **self._told}

    def _share(
        self, number: int, plans: Sequence[Planned], found: Mapping[Hashable, Row]
    ) -> Shared | Failure | None:
        """Features for all ``plans``; None where each cell sees for itself."""
        todo = list({plan.subject: plan for plan in plans if plan.subject not in found}.values())
        if number in self.timed or not todo:
            return None
        try:
            media = [plan.question.items for plan in todo]
            shared = see_once(self._backbone, media, self._visuals, self._sampler)
        except (ResourceError, MemoryError, RuntimeError) as fault:
            return _failure(fault, seeing=True)
        if shared is not None:
            self.saved.asked += sum(sum(one.layout.num_grids for one in items) for items in media)
            self.saved.decoded += shared.decoded
            self.saved.encoded += shared.num_encoded
        return shared

    def _result(
        self,
        item: EvalItem,
        cell: Cell | None,
        plan: Planned,
        shared: Shared | Failure | None,
        found: dict[Hashable, Row],
    ) -> Row:
        """What came of one cell, measured or taken over from a cell that is the same here."""
        if plan.subject in found:
            other = found[plan.subject]
            fields = {name: other[name] for name in MEASURED if name in other}
            return {**_planned(plan), **fields, "same_as": other.get("same_as") or other["cell"]}
        if isinstance(shared, Failure) and cell is not None:
            return {**_planned(plan), "status": shared.status, "error": shared.words}
        if not self._warm:  # what is paid once must not stand in the first row
            self._answer(plan, shared)
            self._warm = True
        answer = self._answer(plan, shared)
        result = answer if isinstance(answer, dict) else _failed(answer)
        if "given" in result:
            scored = score(item, result["given"])
            result |= {"status": scored.status, "score": scored.score, "read": scored.read}
        found[plan.subject] = {**result, "cell": BLIND if cell is None else cell.name}
        return {**_planned(plan), **result}

    def _answer(self, plan: Planned, shared: Shared | Failure | None) -> Row | Failure:
        backbone, question = self._backbone, plan.question
        clock = StageClock(backbone.device)
        chosen = GenerateOptions(max_new_tokens=self.request.max_new_tokens)
        is_fresh = not isinstance(shared, Shared)
        seeing = True
        try:
            with PeakMemory(backbone.device) as memory:
                check_room(backbone, question, chosen)
                encoded = self._encoded_for(plan, shared, clock)
                seeing = False
                answer = answer_seen(backbone, question, encoded, PromptMemory(backbone), clock, chosen)
        except (MediaError, ResourceError, MemoryError, RuntimeError) as fault:
            return _failure(fault, seeing=seeing)
        return _measured(plan, answer, is_fresh=is_fresh, peak_bytes=memory.peak_bytes)

    def _encoded_for(
        self, plan: Planned, shared: Shared | Failure | None, clock: StageClock
    ) -> EncodedVisuals:
        items = plan.question.items
        if isinstance(shared, Shared) and items:
            return shared.encoded_for(items)
        return see(self._backbone, items, clock, sampler=self._sampler, keep_pixels=False)


MEASURED = (
    "status",
    "error",
    "given",
    "score",
    "read",
    "features",
    "frames_dropped",
    "prompt_tokens",
    "new_tokens",
    "seconds",
    "peak_memory_bytes",
    "notes",
)
"""Fields that cells share which come to the same frames, tokens and factor."""


def _asked(item: EvalItem, cell: Cell | None) -> Row:
    settings = dict.fromkeys(("num_frames", "fps", "pool_stride", "pool_mode", "rope_factor"))
    return {
        "cell": BLIND if cell is None else cell.name,
        **(settings if cell is None else cell.to_json()),
        "id": item.id,
        "media": list(item.media),
        "question": item.prompt,
        "answer": item.answer,
        "groups": dict(item.groups),
        "same_as": None,
    }


def _planned(plan: Planned) -> Row:
    budget, items = plan.budget, plan.question.items
    return {
        "frames_planned": sum(len(item.plan) for item in items if item.plan is not None),
        "visual_tokens": budget.visual_tokens + budget.newline_tokens,
        "text_tokens": budget.text_tokens,
        "reserve_tokens": budget.reserve_tokens,
        "context_limit": budget.context_limit,
        "factor": budget.rope_factor,
        "beyond": plan.is_beyond,
    }


def _measured(plan: Planned, answer: Answer, *, is_fresh: bool, peak_bytes: int | None) -> Row:
    clips = [(item.plan, seen) for item, seen in zip(plan.question.items, answer.frames, strict=True)]
    dropped = sum(
        len(set(wanted.indices) - set(seen.indices))
        for wanted, seen in clips
        if wanted is not None and seen is not None
    )
    stages = ("decode", "vision", "overlap", "prefill", "generate") if is_fresh else ("prefill", "generate")
    return {
        "given": answer.text,
        "features": "fresh" if is_fresh else "shared",
        "frames_dropped": dropped,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.completion_tokens,
        "seconds": {stage: round(answer.seconds[stage], 6) for stage in stages},
        "peak_memory_bytes": peak_bytes if is_fresh else None,
        "notes": list(answer.notes),
    }


def _failed(failure: Failure) -> Row:
    return {"status": failure.status, "error": failure.words}


def _failure(fault: Exception, *, seeing: bool) -> Failure:
    """The status of an expected fault; any other is a fault of ours and goes on."""
    if isinstance(fault, OutOfMemory) or is_allocation_failure(fault):
        return Failure("oom", str(fault).splitlines()[0] if str(fault) else "out of memory")
    if isinstance(fault, MediaError):
        return Failure("decode_error", str(fault))
    if isinstance(fault, ResourceError):
        return Failure("decode_error" if seeing else "oom", str(fault))
    raise fault


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
