"""What cells of a sweep share: a clip is decoded once for the frames of all plans, each frame encoded once.

    shared = see_once(backbone, plans, planner, sampler)   # plans: the media of every cell
    encoded = shared.encoded_for(items)  # one cell's features, as `see` would give them

Features of a frame depend on no other frame (to rounding: the tower reads chunks, which are cut elsewhere).
Where a decoder met damage, what it did may depend on what else was asked: then nothing is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from vidllava.backbone.feature_cache import Entry
from vidllava.backbone.model import Backbone
from vidllava.backbone.see import EncodedVisual, EncodedVisuals, StageClock, see
from vidllava.errors import MediaError
from vidllava.media.frames import FrameBatch, FramePlan, OnReady
from vidllava.media.probe import VideoInfo
from vidllava.media.sampler import Sampler
from vidllava.visuals.planner import VisualPlanner
from vidllava.visuals.question import MediaItem

Media = tuple[MediaItem, ...]
"""What one cell shows the model."""


class ProbedOnce:
    """A sampler whose looks into files are remembered, for the many plans of one question."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._infos: dict[str, VideoInfo] = {}
        self._pictures: dict[str, npt.NDArray[np.uint8]] = {}

    def forget(self) -> None:
        """Before the next question."""
        self._infos, self._pictures = {}, {}

    def probe(self, path: str) -> VideoInfo:
        """See ``Sampler``."""
        if path not in self._infos:
            self._infos[path] = self._sampler.probe(path)
        return self._infos[path]

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """See ``Sampler``."""
        if path not in self._pictures:
            self._pictures[path] = self._sampler.picture(path)
        return self._pictures[path]

    def picture_notes(self, path: str) -> tuple[str, ...]:
        """See ``Sampler``."""
        return self._sampler.picture_notes(path)

    def decode(
        self,
        info: VideoInfo,
        plan: FramePlan,
        *,
        backend: str = "pyav",
        size: int | None = None,
        on_ready: OnReady | None = None,
    ) -> FrameBatch:
        """See ``Sampler``. Nothing of it is remembered."""
        return self._sampler.decode(info, plan, backend=backend, size=size, on_ready=on_ready)


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
