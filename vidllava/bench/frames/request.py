"""The request to `vidllava bench frames`: its cells, known before torch is imported.

request = FramesRequest(num_frames=(2, 8), pool_strides=(1, 2), rope_factors=("off", "auto"))
[cell.name for cell in request.cells]     # "2 frames, stride 1, bilinear, factor off", ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, TypeVar, cast, get_args

from vidllava.backbone.model import Backbone
from vidllava.errors import UsageError, VidllavaError
from vidllava.evaluation.item import EvalItem
from vidllava.media.sampler import Sampler
from vidllava.media.timeline import parse_rate
from vidllava.prompting.budget import OverBudget, RopeFactor, TokenBudget, parse_rope_factor
from vidllava.prompting.layout import PoolMode
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import Question, plan_question, row_options

MOST_FRAMES, MOST_FPS, MOST_CELLS = 100_000, 1000.0, 10_000
DEFAULT_NUM_FRAMES = (2, 4, 8, 16, 32)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting that is measured: frames by number or by rate, pooling, and the RoPE factor asked for."""

    num_frames: int | None
    fps: float | None
    pool_stride: int
    pool_mode: PoolMode
    rope_factor: RopeFactor

    @property
    def frames(self) -> str:
        """``16 frames``, ``2 fps``."""
        if self.fps is not None:
            return f"{self.fps:g} fps"
        return "1 frame" if self.num_frames == 1 else f"{self.num_frames} frames"

    @property
    def name(self) -> str:
        """All of it in words."""
        factor = factor_word(self.rope_factor)
        return f"{self.frames}, stride {self.pool_stride}, {self.pool_mode}, factor {factor}"

    @property
    def pixels(self) -> tuple[object, ...]:
        """Frames and pooling: all but the factor."""
        return self.num_frames, self.fps, self.pool_stride, self.pool_mode

    @property
    def flags(self) -> str:
        """The same as flags of ``vidllava ask``."""
        frames = f"--num-frames {self.num_frames}" if self.fps is None else f"--fps {self.fps:g}"
        factor = factor_word(self.rope_factor)
        return (
            f"{frames} --pool-stride {self.pool_stride} --pool-mode {self.pool_mode} --rope-factor {factor}"
        )

    def to_json(self) -> dict[str, Any]:
        """Its five fields."""
        return asdict(self)


def factor_word(factor: RopeFactor) -> str:
    """``off``, ``auto``, ``2``."""
    return factor if isinstance(factor, str) else f"{factor:g}"


@dataclass(frozen=True, kw_only=True)
class FramesRequest:
    """Which cells, on how many questions, and on how many of them alone."""

    num_frames: tuple[int, ...] = ()
    fps: tuple[float, ...] = ()
    max_frames: int | None = None
    pool_strides: tuple[int, ...] = ()
    """Empty: the preset's own (``completed``)."""
    pool_modes: tuple[PoolMode, ...] = ()
    """Empty: the preset's own."""
    rope_factors: tuple[RopeFactor, ...] = ("auto",)
    max_new_tokens: int = 64
    num_timed: int = 8
    """Questions whose every cell is answered from the file on, with nothing shared: these give the times of
    decoding and of the tower, and the memory."""
    blind: bool = True
    """Also ask every question without its video."""

    def __post_init__(self) -> None:
        if not self.num_frames and not self.fps:
            raise UsageError("bench frames", "no number of frames", "give --num-frames or --fps")
        for flag, value, least in (
            ("--timing-clips", self.num_timed, 0),
            ("--max-new-tokens", self.max_new_tokens, 1),
            ("--max-frames", 1 if self.max_frames is None else self.max_frames, 1),
        ):
            if value < least:
                raise UsageError(f"{flag} {value}", f"must be at least {least}", f"for example {least}")
        if len(self.cells) > MOST_CELLS:
            raise UsageError(
                "bench frames",
                f"{len(self.cells)} cells, over the limit of {MOST_CELLS}",
                "fewer values of one of the options",
            )

    def completed(self, *, pool_stride: int, pool_mode: PoolMode) -> FramesRequest:
        """With a preset's own values where none was asked for."""
        strides, modes = self.pool_strides or (pool_stride,), self.pool_modes or (pool_mode,)
        return replace(self, pool_strides=strides, pool_modes=modes)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every combination, each once: frames, then stride, mode and factor. Stride 1 has no mode."""
        frames: list[tuple[int | None, float | None]] = [(number, None) for number in self.num_frames]
        frames += [(None, rate) for rate in self.fps]
        found: dict[tuple[object, ...], Cell] = {}
        for (number, rate), stride, mode, factor in product(
            frames, self.pool_strides, self.pool_modes, self.rope_factors
        ):
            same = (number, rate, stride, mode if stride > 1 else None, factor)
            cell = Cell(num_frames=number, fps=rate, pool_stride=stride, pool_mode=mode, rope_factor=factor)
            found.setdefault(same, cell)
        return tuple(found.values())


def parse_frames(num_frames: str | None, fps: str | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """(numbers, rates) of --num-frames and --fps; ``DEFAULT_NUM_FRAMES`` where neither is given."""
    numbers = DEFAULT_NUM_FRAMES if num_frames is None and fps is None else ()
    return parse_numbers("--num-frames", num_frames) or numbers, parse_rates("--fps", fps)


def parse_numbers(flag: str, text: str | None, most: int = MOST_FRAMES) -> tuple[int, ...]:
    """``2,4,8`` -> (2, 4, 8), each once and in order of size. None gives none. Raises UsageError."""

    def one(word: str) -> int:
        if not (word.isascii() and word.isdigit() and len(word) < 20 and 1 <= int(word) <= most):
            raise UsageError(f"{flag} {word!r}", f"must be whole numbers from 1 to {most}", "2,4,8")
        return int(word)

    return tuple(sorted(_listed(text, one)))


def parse_rates(flag: str, text: str | None) -> tuple[float, ...]:
    """``0.5,30000/1001`` -> (0.5, 29.97...), sorted. None gives none. Raises UsageError."""

    def one(word: str) -> float:
        rate = parse_rate(word, flag)
        if rate > MOST_FPS:
            raise UsageError(f"{flag} {word!r}", f"must be rates above 0, up to {MOST_FPS:g}", "0.5,1,2")
        return rate

    return tuple(sorted(_listed(text, one)))


def parse_factors(text: str) -> tuple[RopeFactor, ...]:
    """``off,auto,2`` -> ("off", "auto", 2). Raises UsageError."""
    return _listed(text, parse_rope_factor)


def parse_modes(text: str | None) -> tuple[PoolMode, ...]:
    """``bilinear,max`` -> ("bilinear", "max"). None gives none. Raises UsageError."""

    def one(word: str) -> PoolMode:
        if word not in get_args(PoolMode):
            raise UsageError(f"--pool-mode {word!r}", "no such mode", ", ".join(get_args(PoolMode)))
        return cast(PoolMode, word)

    return _listed(text, one)


def _listed(text: str | None, one: Callable[[str], T]) -> tuple[T, ...]:
    return () if text is None else tuple(dict.fromkeys(one(word.strip()) for word in text.split(",")))


# What a cell decides, whatever a row of the data says of itself.
DECIDED = frozenset({"num_frames", "fps", "max_frames", "pool_stride", "pool_mode", "rope_factor"})


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: a status of ``evaluation.summary``, and the words."""

    status: str
    words: str


@dataclass(frozen=True, eq=False)
class Planned:
    """A question that can be asked. ``question.budget`` is wide enough for it; ``budget`` is the true one."""

    question: Question
    budget: TokenBudget

    @property
    def is_beyond(self) -> bool:
        """Whether prompt and reserve exceed trained context x factor."""
        return not self.budget.fits

    @property
    def subject(self) -> Hashable:
        """What decides the result: cells of one subject are measured once."""
        frames = tuple(item.plan.indices if item.plan is not None else None for item in self.question.items)
        layouts = tuple(item.layout for item in self.question.items)
        return frames, layouts, float(self.budget.rope_factor)


def plan_cell(
    item: EvalItem,
    cell: Cell | None,
    backbone: Backbone,
    base: AskOptions,
    request: FramesRequest,
    sampler: Sampler,
) -> Planned | Failure:
    """``item`` in ``cell``; None asks without the video."""
    own = {name: value for name, value in item.own if name not in DECIDED}
    try:
        if cell is None:
            blind = AskOptions(preset=base.preset, context_limit=base.context_limit, system=base.system)
            return _fitting(plan_question([], item.prompt, backbone.settings, backbone.codec, blind))
        asked = replace(base, **cell.to_json(), max_frames=request.max_frames)
        options = row_options(asked, own, item.paths)
        question = plan_question(
            item.paths,
            item.prompt,
            backbone.settings,
            backbone.codec,
            options,
            require_fit=False,
            sampler=sampler,
        )
        if cell.rope_factor == "auto":
            question.budget.require_fit()
        return _fitting(question)
    except OverBudget as fault:
        return Failure("over_budget", str(fault))
    except UsageError as fault:  # a range outside of the clip, frames of a picture
        return Failure("usage_error", str(fault))
    except VidllavaError as fault:  # a file that cannot be used
        return Failure("decode_error", str(fault))


def _fitting(question: Question) -> Planned:
    """The question with a context in which it may be answered, whatever was trained."""
    budget = question.budget
    if budget.fits:
        return Planned(question, budget)
    needed = math.ceil(budget.total_tokens / budget.rope_factor)
    return Planned(replace(question, budget=replace(budget, context_limit=needed)), budget)
