"""The options of a question, each stated once: which frames, how they become tokens, how it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidllava import registry
from vidllava.errors import UsageError
from vidllava.prompting.budget import RopeFactor, parse_rope_factor
from vidllava.prompting.layout import NewlineMode, PoolMode
from vidllava.settings import TEXT, setting

# The decoders by name, PyAV first; their modules bring av, which --help does not need.
_NAMES = registry.names("vidllava.media.decoders", "decode", "PACKAGE")
_DECODERS = ("auto", *sorted(_NAMES, key="pyav".__ne__))
Sampling = Literal["time", "index"]
# Below the least, single precision has no probabilities left to draw from.
LEAST_TEMPERATURE, LEAST_TOP_P = 1e-4, 1e-6
FRAMES, TOKENS, ANSWER = "Frames", "Tokens", "Answer"


def _rate(text: str) -> float:
    # Not at the top: the arithmetic of times brings numpy, which --help does not need.
    from vidllava.media.timeline import parse_rate

    return parse_rate(text)


def _frame_rate(text: str) -> float:
    from vidllava.media.timeline import parse_rate

    return parse_rate(text, "--frame-rate")


def _time(text: str) -> float:
    from vidllava.media.timeline import parse_time

    return parse_time(text)


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """The frames of a clip that asks for none itself; None takes the preset's value."""

    num_frames: int | None = setting(
        None, "So many frames, evenly over the clip; all of them where it has fewer.", panel=FRAMES
    )
    fps: float | None = setting(
        None,
        "So many frames for each second of the clip: 2, 0.5, 30000/1001. Excludes --num-frames.",
        panel=FRAMES,
        metavar="RATE",
        parse=_rate,
    )
    max_frames: int | None = setting(None, "At most so many, however they were asked for.", panel=FRAMES)
    sampling: Sampling | None = setting(
        None,
        "Spread a number of frames evenly in time (the default), or by index as LLaVA and published "
        "benchmarks do. The same on a clip of constant rate.",
        panel=FRAMES,
    )
    video_backend: str | None = setting(
        None,
        "Decoder. Also VIDLLAVA_VIDEO_BACKEND.",
        panel=FRAMES,
        choices=_DECODERS,
    )


@dataclass(frozen=True, kw_only=True)
class PoolingOptions:
    """The pooling that was asked for; None takes the preset's value."""

    pool_stride: int | None = setting(
        None,
        "Shrink each frame's token map by this on both sides; 1 = not at all.",
        panel=TOKENS,
        flags=("--pool-stride", "--mm-spatial-pool-stride"),
    )
    pool_mode: PoolMode | None = setting(
        None, "How it shrinks.", panel=TOKENS, flags=("--pool-mode", "--mm-spatial-pool-mode")
    )
    newline_mode: NewlineMode | None = setting(
        None, "Where the learned newline vector stands in a clip.", panel=TOKENS
    )


@dataclass(frozen=True, kw_only=True)
class AskOptions(PoolingOptions, FrameOptions):
    """How media and question become tokens; None takes the preset's value."""

    keyframes: Literal["nearest"] | None = setting(
        None,
        "nearest: the key frame next to each instant instead of the frame itself. Much less decoding; how "
        "far off is said.",
        panel=FRAMES,
    )
    start_seconds: float | None = setting(
        None,
        "First instant: seconds or mm:ss.",
        panel=FRAMES,
        flags=("--start", "--from"),
        metavar="TIME",
        parse=_time,
    )
    end_seconds: float | None = setting(
        None,
        "End, itself outside: seconds or mm:ss.",
        panel=FRAMES,
        flags=("--end", "--to"),
        metavar="TIME",
        parse=_time,
    )
    frame_rate: float | None = setting(
        None,
        "Of a folder of pictures: so many of them make a second.",
        panel=FRAMES,
        metavar="RATE",
        parse=_frame_rate,
    )
    preset: str | None = setting(
        None, "Settings of another family: its frames, pooling, template and context.", panel=TOKENS
    )
    rope_factor: RopeFactor = setting(
        "auto",
        "Linear RoPE scaling: positions are divided by it; auto = the model's own, or the smallest whole "
        "factor that fits.",
        panel=TOKENS,
        metavar="auto|N|off",
        parse=parse_rope_factor,
    )
    context_limit: int | None = setting(
        None, "Tokens that count as the trained context, instead of the model's own.", panel=TOKENS
    )
    time_instruction: bool | None = setting(
        None,
        "Tell the model the length and the frames' times.",
        panel=TOKENS,
        flags=("--time-instruction/--no-time-instruction",),
    )
    system: str | None = setting(
        None,
        "System line, instead of the template's own; @FILE reads it.",
        panel=TOKENS,
        flags=("--system", "-s"),
        metavar=TEXT,
    )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How tokens are chosen. Temperature 0 is greedy."""

    max_new_tokens: int = setting(
        1024, "Longest answer, in tokens.", panel=ANSWER, flags=("--max-new-tokens", "--max-tokens")
    )
    temperature: float = setting(0.0, "0 = always the likeliest word.", panel=ANSWER)
    top_p: float = setting(1.0, "Draw from the likeliest words of this total probability.", panel=ANSWER)
    seed: int = setting(0, "Of the random draw, with --temperature.", panel=ANSWER)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError("--max-new-tokens", f"{self.max_new_tokens} is below 1", "for example 64")
        if self.temperature != 0.0 and not LEAST_TEMPERATURE <= self.temperature <= 100.0:
            what = f"{self.temperature} is outside 0 to 100"
            if 0.0 < self.temperature < LEAST_TEMPERATURE:
                what = f"{self.temperature} is neither 0 nor at least {LEAST_TEMPERATURE:g}"
            raise UsageError("--temperature", what, "0 is greedy")
        if not LEAST_TOP_P <= self.top_p <= 1.0:
            what = f"{self.top_p} is outside {LEAST_TOP_P:g} to 1"
            raise UsageError("--top-p", what, "1 keeps every token")
        if not 0 <= self.seed < 2**63:
            raise UsageError("--seed", f"{self.seed} is outside 0 to 2^63 - 1", "for example 0")
