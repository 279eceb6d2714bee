"""The changes that a training run makes to a model besides its weights, and the files that record them.

    tuning = Tuning(rope_factor=2.0, pinpoints=parse_pinpoints("(1x1),...,(6x6)", 384))
    settings = tuning.applied(backbone.settings)       # tokens are counted with these
    write_own_file(folder, settings)                   # vidllava.json: what transformers has no field for

A model that was trained with stride 4 must be asked with stride 4: pooling, frames and context go into
vidllava.json, RoPE and AnyRes into config.json, where transformers reads them too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vidllava.backbone.settings import OWN_FILE
from vidllava.visuals.planner import ModelSettings, PoolingOptions
from vidllava.visuals.presets import PRESETS, Preset


@dataclass(frozen=True, kw_only=True)
class Tuning(PoolingOptions):
    """How a model is read from now on; None keeps its own way."""

    num_frames: int | None = None
    pinpoints: tuple[tuple[int, int], ...] | None = None
    """AnyRes canvases, (height, width) in pixels; empty = the whole picture once, for this run alone."""
    max_tiles: int | None = None
    rope_factor: float = 1.0
    """Multiplies the context, and the linear factor that the model has."""

    def applied(self, settings: ModelSettings) -> ModelSettings:
        """The settings of the model once it is tuned so."""
        chosen = {
            name: getattr(self, name)
            for name in ("num_frames", "pool_stride", "pool_mode", "newline_mode")
            if getattr(self, name) is not None
        }
        context = settings.preset.trained_context
        if context is not None:
            chosen["trained_context"] = int(context * self.rope_factor)
        return replace(
            settings,
            preset=replace(settings.preset, **chosen),
            pinpoints=settings.pinpoints if self.pinpoints is None else self.pinpoints,
            max_tiles=settings.max_tiles if self.max_tiles is None else self.max_tiles,
            trained_context=int(settings.trained_context * self.rope_factor),
        )


def own_json(preset: Preset) -> dict[str, Any]:
    """The preset by name, and what differs from it: what ``read_settings`` reads."""
    named = PRESETS[preset.name]
    changed = {
        field.name: getattr(preset, field.name)
        for field in fields(Preset)
        if getattr(preset, field.name) != getattr(named, field.name)
    }
    return {"preset": preset.name, **changed}


def write_own_file(folder: Path, preset: Preset) -> None:
    """Write vidllava.json."""
    text = json.dumps(own_json(preset), indent=2)
    (folder / OWN_FILE).write_text(text + "\n", encoding="utf-8")


def write_grids(folder: Path, pinpoints: tuple[tuple[int, int], ...]) -> None:
    """Put AnyRes canvases into the preprocessor's files, where transformers' own processor reads them."""
    for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = folder / name
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        processor = content if section is None else content.get(section)
        grids = [list(pair) for pair in pinpoints]
        if isinstance(processor, dict) and processor.get("image_grid_pinpoints", grids) != grids:
            processor["image_grid_pinpoints"] = grids
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
