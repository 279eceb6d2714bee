"""The token budget: whether a prompt fits, and at which RoPE factor, before any weight is touched.

Linear RoPE scaling by a factor f divides every position by f, so a model trained on sequences of C tokens
reads C x f of them. The reserve is room for the answer. Text is never cut to make room, nor are frames.

    counted = budget([video_layout(32, ...)], text_tokens=40, reserve_tokens=1000, context_limit=4096)
    counted.require_fit().rope_factor                 # 2
    counted.frames_at_factor                          # {1: 15, 2: 36, 3: 57, 4: 78}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vidllava.errors import UsageError
from vidllava.prompting.layout import NewlineMode, PoolMode, VisualLayout, video_layout

RopeFactor = int | float | Literal["auto", "off"]

# Frames are reported at these factors: those that LLaVA-NeXT-Video was measured with.
REPORTED_FACTORS = (1, 2, 3, 4)
# `auto` goes no further: twice the largest factor that a source system was measured with. Beyond it,
# neighbouring positions are less than an eighth of a trained step apart: that has to be asked for by number.
MAX_AUTO_FACTOR = 8
MOST_FACTOR, MOST_TOKENS = 1_000_000, 10**12


class OverBudget(UsageError):
    """The prompt does not fit the context; the hint says what would."""


@dataclass(frozen=True)
class TokenBudget:
    """What a prompt costs and what it has. Counts are language-model tokens.

    `context_limit` is the trained context, before scaling. `least_factor` is the linear scale that the
    checkpoint stores, which `auto` never goes below. `frames_at_factor` is how many frames each video could
    have at each factor if all had the same number; None without a video. `remedies` are changes each of which
    alone would make it fit; empty if it fits.
    """

    visual_tokens: int
    newline_tokens: int
    text_tokens: int
    reserve_tokens: int
    context_limit: int
    rope_factor: int | float
    is_auto: bool
    frames_at_factor: dict[int | float, int] | None
    remedies: tuple[str, ...] = ()
    least_factor: int | float = 1

    @property
    def total_tokens(self) -> int:
        """Visuals, newlines, text and reserve."""
        return self.visual_tokens + self.newline_tokens + self.text_tokens + self.reserve_tokens

    @property
    def limit(self) -> int:
        """Tokens that the model reads at this RoPE factor."""
        return scaled_limit(self.context_limit, self.rope_factor)

    @property
    def fits(self) -> bool:
        """Whether all of it, reserve included, is within the limit."""
        return self.total_tokens <= self.limit

    @property
    def notice(self) -> str | None:
        """One line for the user where `auto` had to raise the factor."""
        if not self.is_auto or self.rope_factor == self.least_factor or not self.fits:
            return None
        own = "" if self.least_factor == 1 else f" at the model's own factor {self.least_factor:g}"
        what = f"exceed the trained context {self.context_limit}{own}"
        return f"RoPE factor {self.rope_factor:g}: {self._sum()} {what}"

    def require_fit(self) -> TokenBudget:
        """This budget. Raises OverBudget, saying what would fit, if it does not fit."""
        if self.fits:
            return self
        at = f"RoPE factor {self.rope_factor:g}" + (", the most that auto takes" if self.is_auto else "")
        hint = f"would fit: {', or '.join(self.remedies)}"
        raise OverBudget(
            "prompt",
            f"{self._sum()} exceed the limit {self.limit} (context {self.context_limit}, {at})",
            hint,
        )

    def to_json(self) -> dict[str, Any]:
        """The `budget` object of `frames --json`."""
        frames = self.frames_at_factor
        return {
            "visual_tokens": self.visual_tokens,
            "newline_tokens": self.newline_tokens,
            "text_tokens": self.text_tokens,
            "reserve_tokens": self.reserve_tokens,
            "total_tokens": self.total_tokens,
            "context_limit": self.context_limit,
            "rope_factor": self.rope_factor,
            "least_factor": self.least_factor,
            "fits": self.fits,
            "frames_at_factor": None
            if frames is None
            else {f"{factor:g}": n for factor, n in frames.items()},
        }

    def _sum(self) -> str:
        parts = {
            "visual": self.visual_tokens,
            "newline": self.newline_tokens,
            "text": self.text_tokens,
            "reserve": self.reserve_tokens,
        }
        terms = " + ".join(f"{count} {name}" for name, count in parts.items() if count)
        return f"{terms} = {self.total_tokens} tokens"


def parse_rope_factor(text: str) -> RopeFactor:
    """`auto`, `off`, or a number of at least 1, whole where it can be. Raises UsageError."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    try:
        factor = float(text)
    except ValueError:
        raise _bad_factor(text) from None
    if not 1 <= factor <= MOST_FACTOR:
        raise _bad_factor(text)
    return int(factor) if factor.is_integer() else factor


def _bad_factor(value: object) -> UsageError:
    return UsageError(
        f"--rope-factor {value}", "is not a factor", f"auto, off, or a number from 1 to {MOST_FACTOR:,}"
    )


def scaled_limit(context_limit: int, factor: int | float) -> int:
    """Whole tokens within `context_limit` x `factor`."""
    return math.floor(context_limit * factor)


def frames_that_fit(limit: int, other_tokens: int, tokens_per_frame: int, per_video_newlines: int = 0) -> int:
    """The most frames for which other + newlines + frames x tokens_per_frame <= limit; at least 0."""
    return max(0, (limit - other_tokens - per_video_newlines) // tokens_per_frame)


def budget(
    layouts: Sequence[VisualLayout],
    text_tokens: int,
    *,
    reserve_tokens: int,
    context_limit: int,
    rope_factor: RopeFactor = "auto",
    least_factor: int | float = 1,
) -> TokenBudget:
    """Count a prompt of these visuals and `text_tokens`, and choose its RoPE factor.

    The factor is absolute: positions are divided by it, whatever the checkpoint stores. auto: `least_factor`
    (what it stores) where visuals, text and reserve fit context_limit x factor, else the smallest whole
    factor at which they do, up to `MAX_AUTO_FACTOR`. off: 1. A number: that number. Never refuses: a prompt
    that does not fit has `fits` False and `require_fit()` raises. Raises UsageError for values that cannot be
    meant.
    """
    for name, value, least in (("--context-limit", context_limit, 1), ("reserve tokens", reserve_tokens, 0)):
        if not least <= value <= MOST_TOKENS:
            what = f"must be at least {least} and at most {MOST_TOKENS:,}"
            raise UsageError(f"{name} {value}", what, "leave it out for the model's own")
    visual_tokens = sum(layout.num_visual_tokens for layout in layouts)
    newline_tokens = sum(layout.num_newline_tokens for layout in layouts)
    total = visual_tokens + newline_tokens + text_tokens + reserve_tokens
    least_factor = int(least_factor) if float(least_factor).is_integer() else least_factor
    factor = _choose_factor(rope_factor, total, context_limit, least_factor)
    cost = _Cost(layouts, fixed_tokens=text_tokens + reserve_tokens)
    fits = total <= scaled_limit(context_limit, factor)
    return TokenBudget(
        visual_tokens=visual_tokens,
        newline_tokens=newline_tokens,
        text_tokens=text_tokens,
        reserve_tokens=reserve_tokens,
        context_limit=context_limit,
        rope_factor=factor,
        is_auto=rope_factor == "auto",
        frames_at_factor=cost.frames_at_factor(context_limit, least_factor),
        remedies=() if fits else cost.remedies(context_limit, factor),
        least_factor=least_factor,
    )


def _choose_factor(
    rope_factor: RopeFactor, total_tokens: int, context_limit: int, least_factor: int | float
) -> int | float:
    if rope_factor == "off":
        return 1
    if rope_factor == "auto":
        if total_tokens <= scaled_limit(context_limit, least_factor):
            return least_factor
        return max(least_factor, min(math.ceil(total_tokens / context_limit), MAX_AUTO_FACTOR))
    if isinstance(rope_factor, str) or not 1 <= rope_factor <= MOST_FACTOR:
        raise _bad_factor(rope_factor)
    return rope_factor


class _Cost:
    """What the same prompt would cost with other frame counts or strides."""

    def __init__(self, layouts: Sequence[VisualLayout], *, fixed_tokens: int) -> None:
        self.videos = [layout for layout in layouts if layout.kind == "video"]
        pictures = (layout.num_tokens for layout in layouts if layout.kind != "video")
        self.fixed_tokens = fixed_tokens
        self.other_tokens = fixed_tokens + sum(pictures)

    def frames(self, limit: int) -> int:
        """Frames per video within the limit, the same number for each."""
        per_frame = sum(video.blocks[0].num_tokens for video in self.videos)
        newlines = sum(video.trailing_newline for video in self.videos)
        return frames_that_fit(limit, self.other_tokens, per_frame, newlines)

    def frames_at_factor(self, context_limit: int, least: int | float) -> dict[int | float, int] | None:
        if not self.videos:
            return None
        factors = sorted({*REPORTED_FACTORS, least})
        return {factor: self.frames(scaled_limit(context_limit, factor)) for factor in factors}

    def stride(self, limit: int) -> int | None:
        """The smallest larger pool stride at which all frames fit the limit."""
        # A learned convolution has the one stride that it was trained with.
        if not self.videos or any(video.blocks[0].mode == "conv" for video in self.videos):
            return None
        first = max(video.blocks[0].stride for video in self.videos) + 1
        last = min(video.blocks[0].tile_h for video in self.videos)
        for stride in range(first, last + 1):
            if self.other_tokens + sum(_tokens_at(video, stride) for video in self.videos) <= limit:
                return stride
        return None

    def remedies(self, context_limit: int, factor: int | float) -> tuple[str, ...]:
        """Each change that alone would make the prompt fit, as the flag to give."""
        limit = scaled_limit(context_limit, factor)
        total = self.other_tokens + sum(video.num_tokens for video in self.videos)
        found = []
        if self.videos and (frames := self.frames(limit)) > 0:
            # The cap works beside a count and a rate alike.
            found.append(f"--max-frames {frames}" + (" for each video" if len(self.videos) > 1 else ""))
        if (stride := self.stride(limit)) is not None:
            found.append(f"--pool-stride {stride}")
        needed = math.ceil(total / context_limit)
        if needed <= MAX_AUTO_FACTOR:
            found.append(f"--rope-factor {needed}")
        if not found and self.fixed_tokens >= limit:
            found.append("less text")
        elif not found:
            found.append("fewer or smaller media")
        return tuple(found)


def _tokens_at(video: VisualLayout, stride: int) -> int:
    """Tokens of a video at another pool stride. Unpooled, it has no mode: bilinear has the largest count."""
    frame = video.blocks[0]
    mode: PoolMode = "bilinear" if frame.mode == "copy" else frame.mode
    newlines: dict[str, NewlineMode] = {"row": "grid", "end": "frame", "none": "no_token"}
    one = video_layout(1, side=frame.tile_h, stride=stride, mode=mode, newline=newlines[frame.newline])
    return video.num_grids * one.num_tokens + video.trailing_newline
