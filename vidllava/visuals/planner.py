"""The planner of visuals: the sizes of the model, the chosen pooling and the frames asked for, as one value.

    planner = VisualPlanner.of(settings, PoolingOptions(pool_stride=4))
    planner.frames(info.frame_times, source="clip.mp4", duration_seconds=10.0)
    planner.video(32).num_tokens

Asking, training, counting, evaluation and sweeps plan with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidllava.errors import UsageError
from vidllava.media.frames import FramePlan
from vidllava.media.timeline import Sampling, SamplingRequest, plan_frames
from vidllava.prompting.layout import (
    NewlineMode,
    PoolMode,
    VisualLayout,
    picture_layout,
    square_layout,
    video_layout,
    whole_layout,
)
from vidllava.visuals.options import PoolingOptions
from vidllava.visuals.presets import PRESETS, Preset


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is needed to count tokens and prepare pixels for one model."""

    name: str
    folder: Path | None
    """None for a named model whose checkpoint is not on this machine."""
    preset: Preset
    image_size: int
    """Pixels on each side of a frame or tile."""
    patch_size: int
    """Pixels on each side of a patch."""
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    pinpoints: tuple[tuple[int, int], ...]
    """AnyRes canvases, (height, width) in pixels."""
    max_tiles: int
    trained_context: int
    """Longest trained sequence, in tokens."""

    @property
    def side(self) -> int:
        """Cells on each side of a frame's token map."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class Pooling:
    """How the token map of a video's frame shrinks, and where the learned newline vector stands."""

    mode: PoolMode
    stride: int
    newline: NewlineMode


@dataclass(frozen=True, kw_only=True)
class VisualPlanner:
    """How the visuals of one run are planned: the frames seen of a clip, and the rows of each visual."""

    settings: ModelSettings
    pooling: Pooling
    request: SamplingRequest
    """The frames of a clip that asks for none itself."""

    @classmethod
    def of(
        cls,
        settings: ModelSettings,
        asked: PoolingOptions | None = None,
        *,
        preset: Preset | None = None,
        request: SamplingRequest | None = None,
        sampling: Sampling | None = None,
    ) -> VisualPlanner:
        """The planner of ``preset`` (the model's own by default), with whatever else was asked for."""
        preset = preset or settings.preset
        request = request or SamplingRequest(num_frames=preset.num_frames, rule=preset.sampling_rule)
        return cls(
            settings=settings,
            pooling=_pooling(asked or PoolingOptions(), preset),
            request=_spread(request, sampling or preset.sampling),
        )

    def frames(
        self,
        times: npt.NDArray[np.float64],
        *,
        source: str,
        duration_seconds: float | None,
        key_frames: npt.NDArray[np.int64] | None = None,
        own: SamplingRequest | None = None,
    ) -> FramePlan:
        """Which frames of a clip are seen: those that it asks for itself (``own``), or else the run's.

        ``times`` is float64 [num_frames_in_file], sorted seconds from the clip's start. Raises UsageError for
        a range that holds none of them.
        """
        return plan_frames(
            times,
            self.request if own is None else _spread(own, self.request.sampling),
            source=source,
            key_frames=key_frames,
            duration_seconds=duration_seconds,
        )

    def video(self, num_frames: int) -> VisualLayout:
        """The rows of a clip of ``num_frames`` frames."""
        return video_layout(
            num_frames,
            side=self.settings.side,
            stride=self.pooling.stride,
            mode=self.pooling.mode,
            newline=self.pooling.newline,
        )

    def picture(self, height: int, width: int) -> VisualLayout:
        """The rows of a picture that is alone in its prompt (AnyRes); without canvases those of the whole."""
        if not self.settings.pinpoints:
            return whole_layout(side=self.settings.side)
        return picture_layout(
            height,
            width,
            side=self.settings.side,
            tile_size=self.settings.image_size,
            pinpoints=self.settings.pinpoints,
            max_tiles=self.settings.max_tiles,
        )

    def square(self) -> VisualLayout:
        """The rows of one of several pictures."""
        return square_layout(side=self.settings.side)


def _spread(request: SamplingRequest, sampling: Sampling | None) -> SamplingRequest:
    """``request`` with the sampling that holds for all, where it names none."""
    return request if request.sampling is not None else replace(request, sampling=sampling)


def named_preset(name: str | None) -> Preset | None:
    """The preset called ``name``; None for None. Raises UsageError naming those there are."""
    if name is None:
        return None
    if name not in PRESETS:
        raise UsageError(f"--preset {name}", "no such preset", f"one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _pooling(asked: PoolingOptions, preset: Preset) -> Pooling:
    """That of ``preset``, with whatever was asked for."""
    return Pooling(
        mode=asked.pool_mode or preset.pool_mode,
        stride=preset.pool_stride if asked.pool_stride is None else asked.pool_stride,
        newline=asked.newline_mode or preset.newline_mode,
    )
