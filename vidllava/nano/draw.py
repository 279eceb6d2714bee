"""Scenes to pixels. Only the box around each thing is drawn: about 2 ms for 8 frames of 84 x 84."""

from __future__ import annotations

import numpy as np

from vidllava.nano.scene import Scene, Thing
from vidllava.nano.shapes import DISTANCES, REACH


def draw(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """Draw ``scene`` at ``times`` [T] (0..1): float32 [T, size, size, 3] in 0..255."""
    grey, slope_x, slope_y = scene.ground
    ramp = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    ground = grey + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    frames = np.empty((len(times), size, size, 3), np.float32)
    frames[:] = ground[None, :, :, None]
    for thing in scene.things:
        _paint(frames, thing, times)
    return frames


def _paint(frames: np.ndarray, thing: Thing, times: np.ndarray) -> None:
    """Blend one thing into every frame, in place."""
    size = frames.shape[1]
    track = thing.track(times)
    still = thing.deed.verb in ("stays", "appears", "vanishes", "becomes")
    coverage = None
    for t in np.flatnonzero(track.alpha > 0):
        cx, cy, radius = track.x[t] * size, track.y[t] * size, track.radius[t] * size
        reach = radius * REACH + 1
        left, right = max(int(cx - reach), 0), min(int(cx + reach) + 1, size)
        top, bottom = max(int(cy - reach), 0), min(int(cy + reach) + 1, size)
        if left >= right or top >= bottom:
            continue
        if coverage is None or not still:
            dx = (np.arange(left, right, dtype=np.float32) + (0.5 - cx)) / radius
            dy = (np.arange(top, bottom, dtype=np.float32) + (0.5 - cy)) / radius
            turn = np.deg2rad(track.angle[t])
            cos, sin = float(np.cos(turn)), float(np.sin(turn))
            u = dx[None, :] * cos + dy[:, None] * sin
            v = dy[:, None] * cos - dx[None, :] * sin
            # The edge is one pixel wide: half covered where the distance is zero.
            coverage = np.clip(0.5 - DISTANCES[thing.form](u, v) * radius, 0.0, 1.0)[:, :, None].astype(
                np.float32
            )
        box = frames[t, top:bottom, left:right]
        weight = coverage * np.float32(track.alpha[t])
        box += weight * (track.rgb[t].astype(np.float32) - box)


def weather(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera and a codec do, for training: soft edges, half-resolution colour, noise, rounding.

    ``frames`` float32 [T, S, S, 3] with S even -> uint8 of the same shape.
    """
    if rng.random() < 0.5:
        frames = _soften(frames, float(rng.uniform(0.05, 0.25)))
    if rng.random() < 0.5:
        frames = _halve_colour(frames)
    if rng.random() < 0.5:
        noise = rng.standard_normal(frames.shape[:3], dtype=np.float32)
        frames = frames + noise[..., None] * np.float32(rng.uniform(0.5, 4.0))
    return to_bytes(frames)


def to_bytes(frames: np.ndarray) -> np.ndarray:
    """Round to uint8."""
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def _soften(frames: np.ndarray, amount: float) -> np.ndarray:
    """A three-tap blur across and down; the border pixels stay."""
    frames = frames.copy()
    side = np.float32(amount / 2)
    frames[:, :, 1:-1] += side * (frames[:, :, :-2] + frames[:, :, 2:] - 2 * frames[:, :, 1:-1])
    frames[:, 1:-1] += side * (frames[:, :-2] + frames[:, 2:] - 2 * frames[:, 1:-1])
    return frames


def _halve_colour(frames: np.ndarray) -> np.ndarray:
    """4:2:0: luma stays, colour differences are averaged over 2 x 2 pixels (BT.601 luma)."""
    luma = frames @ np.array([0.299, 0.587, 0.114], np.float32)
    tint = frames - luma[..., None]
    t, h, w, _ = tint.shape
    small = tint.reshape(t, h // 2, 2, w // 2, 2, 3).mean((2, 4))
    return luma[..., None] + small.repeat(2, 1).repeat(2, 2)
