"""A scene: what is there, what each thing does, and where everything is at any moment. Exact by construction.

Places and radii are fractions of the picture's side; times are fractions of the clip (0 first, 1 last frame).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidllava.nano.words import COLOURS, noun

_STEP = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_FADE = 0.04  # an appearance, a disappearance or a change of colour takes this part of the clip


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What one thing does between ``start`` and ``end``.

    ``amount``: distance (moves, meets), degrees (turns) or ratio of the radii (grows, shrinks).
    """

    verb: str = "stays"
    direction: str | None = None
    colour: str | None = None  # the colour it becomes
    partner: str | None = None  # the name of the thing it meets
    start: float = 0.0
    end: float = 1.0
    amount: float = 0.0

    def phrase(self) -> str:
        """``moves left``, ``becomes blue``, ``meets the red star``, ``stays still``, ``grows``."""
        if self.verb == "stays":
            return "stays still"
        rest = self.direction if self.verb == "moves" else self.colour
        if self.verb == "meets":
            rest = f"the {self.partner}"
        return f"{self.verb} {rest}" if rest else self.verb


@dataclass(frozen=True)
class Track:
    """One thing at T moments: arrays [T], its colour [T, 3] in 0..255, ``alpha`` how visible it is."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    alpha: np.ndarray
    rgb: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing of a scene as it is at its start."""

    form: str
    colour: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    shade: float = 1.0  # brightness of this very thing; its colour keeps its name
    tint: tuple[float, float, float] | None = None  # RGB that has no name, drawn instead of the colour
    deed: Deed = Deed()
    shown: tuple[float, float] | None = None  # the part of the clip in which it is there; None = all of it

    @property
    def name(self) -> str:
        """``red circle``, ``blue letter A``: unique within its scene."""
        return f"{self.colour} {noun(self.form)}"

    @property
    def last_name(self) -> str:
        """Its name once it has changed colour."""
        return f"{self.deed.colour or self.colour} {noun(self.form)}"

    def fact(self) -> str:
        """One sentence: ``The red circle moves left.``"""
        return f"The {self.name} {self.deed.phrase()}."

    def track(self, times: np.ndarray) -> Track:
        """Its place, size, angle and colour at ``times`` [T] in 0..1."""
        deed, same = self.deed, np.ones_like(times)
        done = np.clip((times - deed.start) / max(deed.end - deed.start, 1e-6), 0.0, 1.0)
        x, y, radius, angle, alpha = self.x * same, self.y * same, self.radius * same, self.angle * same, same
        rgb = np.outer(same, self.tint or COLOURS[self.colour])
        if deed.verb in ("moves", "meets"):
            assert deed.direction is not None
            step_x, step_y = _STEP[deed.direction]
            x, y = x + step_x * deed.amount * done, y + step_y * deed.amount * done
        elif deed.verb == "turns":
            angle = angle + deed.amount * done
        elif deed.verb in ("grows", "shrinks"):
            radius = radius * deed.amount**done
        elif deed.verb == "appears":
            alpha = np.clip((times - deed.start) / _FADE, 0.0, 1.0)
        elif deed.verb == "vanishes":
            alpha = 1.0 - np.clip((times - deed.start) / _FADE, 0.0, 1.0)
        elif deed.verb == "becomes":
            assert deed.colour is not None
            mixed = np.clip((times - deed.start) / _FADE, 0.0, 1.0)[:, None]
            rgb = rgb * (1 - mixed) + np.outer(same, COLOURS[deed.colour]) * mixed
        if self.shown is not None:
            alpha = alpha * ((times >= self.shown[0]) & (times < self.shown[1]))
        return Track(x, y, radius, angle, alpha, np.clip(rgb * self.shade, 0, 255))

    def there_at(self, time: float) -> bool:
        """Whether it can be seen at a moment."""
        return bool(self.track(np.array([time])).alpha[0] > 0.5)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Things on a plain ground: its grey level (0..255) at the centre, and its rise to the right and down."""

    things: tuple[Thing, ...]
    ground: tuple[float, float, float] = (60.0, 0.0, 0.0)
    duration_seconds: float = 3.0

    def facts(self) -> tuple[str, ...]:
        """One sentence for each thing, in the canonical order of colours, then forms."""
        return tuple(thing.fact() for thing in self.things)
