"""The rules by which visuals become rows: the sizes of the model and the chosen pooling.

rules = VisualRules.of(settings, pool_stride=4)
rules.video(32).num_tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidllava.errors import UsageError
from vidllava.prompting.layout import (
    NewlineMode,
    PoolMode,
    VisualLayout,
    picture_layout,
    square_layout,
    video_layout,
    whole_layout,
)
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


@dataclass(frozen=True, kw_only=True)
class VisualRules:
    """How the visuals of one run become rows."""

    settings: ModelSettings
    pool_stride: int
    pool_mode: PoolMode
    newline_mode: NewlineMode

    @classmethod
    def of(
        cls,
        settings: ModelSettings,
        *,
        preset: Preset | None = None,
        pool_stride: int | None = None,
        pool_mode: PoolMode | None = None,
        newline_mode: NewlineMode | None = None,
    ) -> VisualRules:
        """The rules of ``preset`` (the model's own by default), with whatever else was asked for."""
        preset = preset or settings.preset
        return cls(
            settings=settings,
            pool_stride=preset.pool_stride if pool_stride is None else pool_stride,
            pool_mode=pool_mode or preset.pool_mode,
            newline_mode=newline_mode or preset.newline_mode,
        )

    def video(self, num_frames: int) -> VisualLayout:
        """The rows of a clip of ``num_frames`` frames."""
        return video_layout(
            num_frames,
            side=self.settings.side,
            stride=self.pool_stride,
            mode=self.pool_mode,
            newline=self.newline_mode,
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


def named_preset(name: str | None) -> Preset | None:
    """The preset called ``name``; None for None. Raises UsageError naming those there are."""
    if name is None:
        return None
    if name not in PRESETS:
        raise UsageError(f"--preset {name}", "no such preset", f"one of {', '.join(PRESETS)}")
    return PRESETS[name]
