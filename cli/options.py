"""The options that several commands share, spelt and explained once.

Values are checked where they are used, by the module that knows their bounds; here stand only names and help.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, get_type_hints

import typer

from vidllava import registry
from vidllava.errors import UsageError

# The decoders by name, PyAV first; their modules bring av, which --help does not need.
_DECODERS = (
    "auto",
    *sorted(registry.names("vidllava.media.decoders", "decode", "PACKAGE"), key="pyav".__ne__),
)
_FRAMES, _TOKENS, _MODEL, _ANSWER, _OUTPUT = "Frames", "Tokens", "Model", "Answer", "Output"


def _rate(text: str) -> float:
    # Not at the top: the arithmetic of times brings numpy, which --help does not need.
    from vidllava.media.timeline import parse_rate

    return parse_rate(text)


def _frame_rate(text: str) -> float:
    from vidllava.media.timeline import parse_rate

    return parse_rate(text, "--frame-rate")


# Frames: which of them does the model see?
NumFrames = Annotated[
    int | None,
    typer.Option(
        help="So many frames, evenly over the clip; all of them where it has fewer.", rich_help_panel=_FRAMES
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        parser=_rate,
        help="So many frames for each second of the clip: 2, 0.5, 30000/1001. Excludes --num-frames.",
        rich_help_panel=_FRAMES,
    ),
]
FrameRate = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        parser=_frame_rate,
        help="Of a folder of pictures: so many of them make a second.",
        rich_help_panel=_FRAMES,
    ),
]
MaxFrames = Annotated[
    int | None, typer.Option(help="At most so many, however they were asked for.", rich_help_panel=_FRAMES)
]
Sampling = Annotated[
    Literal["time", "index"] | None,
    typer.Option(
        help="Spread a number of frames evenly in time (the default), or by index as LLaVA and published "
        "benchmarks do. The same on a clip of constant rate.",
        rich_help_panel=_FRAMES,
    ),
]
Keyframes = Annotated[
    Literal["nearest"] | None,
    typer.Option(
        help="nearest: the key frame next to each instant instead of the frame itself. Much less decoding; "
        "how far off is said.",
        rich_help_panel=_FRAMES,
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start", "--from", metavar="TIME", help="First instant: seconds or mm:ss.", rich_help_panel=_FRAMES
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        "--end",
        "--to",
        metavar="TIME",
        help="End, itself outside: seconds or mm:ss.",
        rich_help_panel=_FRAMES,
    ),
]
VideoBackend = Annotated[
    Literal[_DECODERS] | None,  # type: ignore[valid-type]
    typer.Option(help="Decoder. Also VIDLLAVA_VIDEO_BACKEND.", rich_help_panel=_FRAMES),
]
NoReuseFrames = Annotated[
    bool,
    typer.Option(
        "--no-reuse-frames",
        help="Encode every frame, also one with the very pixels of an earlier one.",
        rich_help_panel=_FRAMES,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Neither use nor keep what the vision tower made of a clip (see vidllava cache).",
        rich_help_panel=_FRAMES,
    ),
]

# The question by name: every argument is a medium then.
QUESTION_FLAGS, QUESTION_METAVAR = ("--question", "-p"), "TEXT|@FILE"

# Tokens: what do frames cost, and how far does the context reach?
PoolStride = Annotated[
    int | None,
    typer.Option(
        "--pool-stride",
        "--mm-spatial-pool-stride",
        help="Shrink each frame's token map by this on both sides; 1 = not at all.",
        rich_help_panel=_TOKENS,
    ),
]
PoolMode = Annotated[
    Literal["bilinear", "average", "max"] | None,
    typer.Option("--pool-mode", "--mm-spatial-pool-mode", help="How it shrinks.", rich_help_panel=_TOKENS),
]
NewlineMode = Annotated[
    Literal["one_token", "grid", "frame", "no_token"] | None,
    typer.Option(help="Where the learned newline vector stands in a clip.", rich_help_panel=_TOKENS),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Settings of a source system: onevision, next-video, interleave, nano.", rich_help_panel=_TOKENS
    ),
]
RopeFactor = Annotated[
    str,
    typer.Option(
        metavar="auto|N|off",
        help="Linear RoPE scaling: auto = the smallest whole factor that fits.",
        rich_help_panel=_TOKENS,
    ),
]
ContextLimit = Annotated[
    int | None,
    typer.Option(
        help="Tokens that count as the trained context, instead of the model's own.", rich_help_panel=_TOKENS
    ),
]
TimeInstruction = Annotated[
    bool,
    typer.Option(
        "--time-instruction", help="Tell the model the length and the frames' times.", rich_help_panel=_TOKENS
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system",
        "-s",
        metavar="TEXT|@FILE",
        help="System line, instead of the template's own; @FILE reads it.",
        rich_help_panel=_TOKENS,
    ),
]

# Model: which weights, on which machine?
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="VIDLLAVA_MODEL",
        help="A name (see models list), a hub id or a folder. auto: OneVision 0.5B if here, else nano.",
        rich_help_panel=_MODEL,
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download", help="Fetch the model if it is not here; auto: OneVision 0.5B.", rich_help_panel=_MODEL
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub model.", rich_help_panel=_MODEL)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_MODEL)]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Number format of the weights.", rich_help_panel=_MODEL),
]
Attention = Annotated[
    str,
    typer.Option(
        "--attn-implementation", help="sdpa, eager, or what transformers offers.", rich_help_panel=_MODEL
    ),
]
PoolFirst = Annotated[
    bool,
    typer.Option(
        "--pool-first",
        help="Pool before the projector's last layer: less work, the same answer to rounding.",
        rich_help_panel=_MODEL,
    ),
]

# Answer: how is it generated?
MaxNewTokens = Annotated[
    int,
    typer.Option(
        "--max-new-tokens", "--max-tokens", help="Longest answer, in tokens.", rich_help_panel=_ANSWER
    ),
]
Temperature = Annotated[float, typer.Option(help="0 = always the likeliest word.", rich_help_panel=_ANSWER)]
TopP = Annotated[
    float,
    typer.Option(help="Draw from the likeliest words of this total probability.", rich_help_panel=_ANSWER),
]
Seed = Annotated[int, typer.Option(help="Of the random draw, with --temperature.", rich_help_panel=_ANSWER)]

# Output: where does what go?
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_OUTPUT)]
NoStream = Annotated[
    bool,
    typer.Option(
        "--no-stream", help="Print the answer at once, also on a terminal.", rich_help_panel=_OUTPUT
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.", rich_help_panel=_OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Also the plan, the decisions and the seconds.", rich_help_panel=_OUTPUT
    ),
]


def refuse_before(context: typer.Context, as_json: bool) -> None:
    """Raises UsageError where ``--json`` stands before the name of a command, which would not see it."""
    if as_json:
        name = context.invoked_subcommand
        raise UsageError("--json", f"stands before {name}", f"vidllava {context.info_name} {name} --json")


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with a parameter for each field of the dataclasses that it takes."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += _fields(groups[name]) if name in groups else [parameter.replace(annotation=hints[name])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    # Resolved: typer would look their names up in this file.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=keyword) for parameter in parameters]
    )
    del run.__wrapped__  # or its signature would be read
    return run


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
