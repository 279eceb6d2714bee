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
from vidllava.media.frames import FramePlan, FrameSize
from vidllava.media.timeline import Sampling, SamplingRequest, plan_frames
from vidllava.models import presets
from vidllava.models.family import PictureRule, Preset
from vidllava.prompting.layout import (
    NewlineMode,
    Pinpoints,
    PoolAt,
    PoolMode,
    VisualLayout,
    picture_layout,
    square_layout,
    video_layout,
    whole_layout,
)
from vidllava.prompting.template import TEMPLATES, Template
from vidllava.visuals.options import PoolingOptions


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is needed to count tokens and prepare pixels for one model."""

    name: str
    folder: Path | None
    """None for a named model whose checkpoint is not on this machine."""
    preset: Preset
    family: str
    """The family whose class holds the weights: a preset may be another family's."""
    template: Template
    """The checkpoint's own chat template where it has one, else its family's."""
    image_size: int
    """Pixels on each side of a frame or tile."""
    frame_size: FrameSize
    """How a frame becomes such a square: squashed into it (a number), or the middle cut out."""
    patch_size: int
    """Pixels on each side of a patch."""
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    pinpoints: tuple[tuple[int, int], ...]
    """AnyRes canvases, (height, width) in pixels."""
    max_tiles: int | None
    trained_context: int
    """Longest trained sequence in tokens, before any scaling of positions."""
    least_factor: float = 1.0
    """The linear RoPE scale that the checkpoint stores."""
    has_newline: bool = True
    """Whether the weights hold a learned newline vector."""
    conv_stride: int | None = None
    """Stride of the learned convolution that pools, where the weights hold one."""
    notes: tuple[str, ...] = ()
    """What a reader of its answers must know."""

    @property
    def side(self) -> int:
        """Cells on each side of a frame's token map."""
        return self.image_size // self.patch_size

    def template_of(self, preset: Preset) -> Template:
        """The template to speak with under ``preset``: the checkpoint's own unless it is another's."""
        return self.template if preset.name == self.preset.name else TEMPLATES[preset.template]


@dataclass(frozen=True)
class Pooling:
    """How and where the token map of a video's frame shrinks, and where the learned newline vector stands."""

    mode: PoolMode
    stride: int
    newline: NewlineMode
    at: PoolAt = "projected"


@dataclass(frozen=True, kw_only=True)
class VisualPlanner:
    """How the visuals of one run are planned: the frames seen of a clip, and the rows of each visual."""

    settings: ModelSettings
    pooling: Pooling
    request: SamplingRequest
    """The frames of a clip that asks for none itself."""
    lone_picture: PictureRule = "tiles"
    several_pictures: PictureRule = "square"

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
            pooling=_pooling(asked or PoolingOptions(), preset, settings),
            request=_spread(request, sampling or preset.sampling),
            lone_picture=preset.lone_picture,
            several_pictures=preset.several_pictures,
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
        """The rows of a clip of ``num_frames`` frames. Raises UsageError for what this model cannot do."""
        layout = video_layout(
            num_frames,
            side=self.settings.side,
            stride=self.pooling.stride,
            mode=self.pooling.mode,
            newline=self.pooling.newline,
        )
        return self._checked(layout, f"--newline-mode {self.pooling.newline}")

    def picture(self, height: int, width: int, *, alone: bool = True) -> VisualLayout:
        """The rows of a picture that is alone in its prompt, or one of several. Raises as ``video``."""
        rule, side = self.picture_rule(alone=alone), self.settings.side
        if rule == "square":
            layout = square_layout(side=side)
        elif rule == "whole":
            layout = whole_layout(side=side)
        else:
            layout = picture_layout(
                height,
                width,
                side=side,
                tile_size=self.settings.image_size,
                pinpoints=self.settings.pinpoints,
                max_tiles=self.settings.max_tiles,
            )
        return self._checked(layout, f"a picture seen as {rule}")

    def picture_rule(self, *, alone: bool) -> PictureRule:
        """How a picture is seen; without canvases there are no tiles."""
        rule = self.lone_picture if alone else self.several_pictures
        return "whole" if rule == "tiles" and not self.settings.pinpoints else rule

    def canvases(self, *, alone: bool) -> Pinpoints:
        """The AnyRes canvases of a picture, (height, width) in pixels; empty where it is not tiled."""
        return self.settings.pinpoints if self.picture_rule(alone=alone) == "tiles" else ()

    def _checked(self, layout: VisualLayout, thing: str) -> VisualLayout:
        if layout.num_newline_tokens and not self.settings.has_newline:
            hint = "--newline-mode no_token, or the model's own preset"
            raise UsageError(thing, f"{self.settings.name} holds no newline vector", hint)
        return layout if self.pooling.at == "projected" else replace(layout, pool_at=self.pooling.at)


def _spread(request: SamplingRequest, sampling: Sampling | None) -> SamplingRequest:
    """``request`` with the sampling that holds for all, where it names none."""
    return request if request.sampling is not None else replace(request, sampling=sampling)


def named_preset(name: str | None) -> Preset | None:
    """The preset called ``name``; None for None. Raises UsageError naming those there are."""
    if name is None:
        return None
    known = presets()
    if name not in known:
        raise UsageError(f"--preset {name}", "no such preset", f"one of {', '.join(known)}")
    return known[name]


def _pooling(asked: PoolingOptions, preset: Preset, settings: ModelSettings) -> Pooling:
    """That of ``preset``, with whatever was asked for. Raises UsageError for a convolution it has not."""
    pooling = Pooling(
        mode=asked.pool_mode or preset.pool_mode,
        stride=preset.pool_stride if asked.pool_stride is None else asked.pool_stride,
        newline=asked.newline_mode or preset.newline_mode,
        at=preset.pool_at,
    )
    if pooling.mode == "conv" and settings.conv_stride is None:
        what = f"{settings.name} holds no convolution that pools"
        raise UsageError("--pool-mode conv", what, "bilinear, average or max")
    if pooling.mode == "conv" and pooling.at != "tower":
        what = "the convolution reads the tower's features, and this preset pools projected ones"
        raise UsageError("--pool-mode conv", what, "the model's own preset")
    if pooling.mode == "conv" and pooling.stride != settings.conv_stride:
        what = f"the convolution of {settings.name} has stride {settings.conv_stride}"
        raise UsageError(f"--pool-stride {pooling.stride}", what, "leave it out, or another --pool-mode")
    return pooling
