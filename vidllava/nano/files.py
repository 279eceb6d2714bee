"""Scenes as real files: clips as .mp4, pictures as .png, large enough for people to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vidllava.media.encode import write_clip
from vidllava.nano.draw import draw, to_bytes
from vidllava.nano.lessons import Exhibit
from vidllava.nano.scene import Scene

SIZE, FPS = 336, 16


def write_exhibit(exhibit: Exhibit, stem: Path) -> Path:
    """Write what is shown as ``stem``.mp4 or ``stem``.png; returns the path."""
    if exhibit.medium == "video":
        return _write_scene(exhibit.scene, stem.with_suffix(".mp4"))
    path = stem.with_suffix(".png")
    Image.fromarray(to_bytes(draw(exhibit.scene, exhibit.times, SIZE))[0]).save(path, optimize=True)
    return path


def _write_scene(scene: Scene, path: Path) -> Path:
    count = max(round(scene.duration_seconds * FPS), 8)
    return write_clip(path, to_bytes(draw(scene, np.linspace(0.0, 1.0, count), SIZE)), fps=FPS)
