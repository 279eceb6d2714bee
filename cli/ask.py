"""``vidllava ask``: media and a question in, an answer on stdout.

    vidllava ask clip.mp4 "what happens"

Everything that can be told without weights is told first: torch is imported only for a question that is
known to fit.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidllava.cache_folder import CacheFolder
from vidllava.cli import loading, options, outputs
from vidllava.cli.console import Console
from vidllava.cli.report import answer_json
from vidllava.cli.startup import STARTED
from vidllava.cli.telling import tell_cut, tell_work
from vidllava.errors import UsageError

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer
    from vidllava.backbone.generate_options import GenerateOptions
    from vidllava.backbone.question import AskOptions, Question

NANO_NOTICE = (
    "nano answers: it knows only its generated world of moving shapes. "
    "For other clips: vidllava models pull onevision-0.5b"
)


def ask(
    media: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MEDIA",
            help="Videos and pictures, in the order in which the question speaks of them.",
            show_default=False,
        ),
    ] = None,
    *,
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="The last word; - reads it from standard input.", show_default=False
        ),
    ],
    flagged: Annotated[
        list[str] | None,
        typer.Option(
            "--video",
            "--image",
            metavar="FILE",
            help="Media, repeatable; they come first, in order. What a file is, is read from the file.",
        ),
    ] = None,
    num_frames: options.NumFrames = None,
    fps: options.Fps = None,
    max_frames: options.MaxFrames = None,
    start: options.Start = None,
    end: options.End = None,
    video_backend: options.VideoBackend = None,
    no_reuse_frames: options.NoReuseFrames = False,
    no_cache: options.NoCache = False,
    preset: options.Preset = None,
    pool_stride: options.PoolStride = None,
    pool_mode: options.PoolMode = None,
    newline_mode: options.NewlineMode = None,
    rope_factor: options.RopeFactor = "auto",
    context_limit: options.ContextLimit = None,
    time_instruction: options.TimeInstruction = False,
    system: options.System = None,
    model: options.Model = "auto",
    revision: options.Revision = None,
    download: options.Download = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    attn_implementation: options.Attention = "sdpa",
    max_new_tokens: options.MaxNewTokens = 1024,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    seed: options.Seed = 0,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", help="Draw what the model saw there, labelled.", rich_help_panel="Output"
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    no_stream: options.NoStream = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Ask a question about videos and pictures.

    \b
    vidllava ask clip.mp4 "what happens"
    vidllava ask before.png after.png "what changed?"
    vidllava ask match.mp4 "who scores?" --start 1:10 --end 1:25 --fps 2
    echo "what is written on the sign?" | vidllava ask street.jpg - --json
    """
    console = Console(quiet=quiet, verbose=verbose)
    paths, text = _media_and_question([*(flagged or []), *(media or [])], question)
    if contact_sheet is not None:
        outputs.check_file("--contact-sheet", contact_sheet, overwrite=overwrite)
        outputs.check_folder(contact_sheet.absolute().parent)
    asked = options.ask_options(
        num_frames=num_frames,
        fps=fps,
        max_frames=max_frames,
        start=start,
        end=end,
        video_backend=video_backend,
        preset=preset,
        pool_stride=pool_stride,
        pool_mode=pool_mode,
        newline_mode=newline_mode,
        rope_factor=rope_factor,
        context_limit=context_limit,
        time_instruction=time_instruction,
        system=system,
    )
    chosen = options.generate_options(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    folder = None if no_cache else CacheFolder.of_environment()
    shown, planned = _plan(paths, text, asked, model, console, download=download, revision=revision)
    to_screen = sys.stdout is not None and sys.stdout.isatty() and not as_json and not no_stream
    answer, seconds = _answer(
        planned,
        model={"name": shown, "revision": revision, "device": device, "dtype": dtype}
        | {"attn_implementation": attn_implementation},
        chosen=chosen,
        stream_to=console if to_screen else None,
        folder=folder,
        reuse_frames=not no_reuse_frames,
        keep_pixels=contact_sheet is not None,
    )
    if as_json:
        console.write(json.dumps(answer_json(answer, shown, seconds), indent=2, ensure_ascii=False))
    elif not to_screen:
        console.write(answer.text)
    for note in answer.notes:
        console.warn(note)
    tell_cut(answer, max_new_tokens, console)
    tell_work(answer, seconds, console)
    if contact_sheet is not None:
        _draw(answer, contact_sheet, console)


def _media_and_question(media: list[str], text: str) -> tuple[list[str], str]:
    """All words but the last are media, the last is the question. Raises UsageError where one is missing."""
    if not media:
        what = (
            "is a file, but there is no question" if Path(text).is_file() else "is a question, but no media"
        )
        raise UsageError(text, what, 'the question comes last: vidllava ask clip.mp4 "what happens"')
    if Path(text).is_file():
        raise UsageError(
            text, "is a file, but there is no question", 'for example: vidllava ask clip.mp4 "what happens"'
        )
    if text == "-":
        text = _read_question()
    if not text.strip():
        raise UsageError("question", "is empty", "for example: what happens")
    return media, text.strip()


def _read_question() -> str:
    if sys.stdin is None:
        raise UsageError("question", "- was given, but standard input is closed")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as fault:
        raise UsageError("question", f"standard input is not {fault.encoding} text") from None


def _plan(
    media: Sequence[str],
    text: str,
    asked: AskOptions,
    model: str,
    console: Console,
    *,
    download: bool,
    revision: str | None,
) -> tuple[str, Question]:
    """The model's name and the planned question, which fits; what a reader should know is said."""
    from vidllava.backbone.locate import locate
    from vidllava.backbone.question import plan_question
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.media.probe import media_kind

    for path in media:  # before the model: a wrong path is the likelier slip, and the quicker one to find
        media_kind(path)
    shown, folder = locate(model, download=download, revision=revision)
    if model == "auto" and shown == "nano":
        console.note(NANO_NOTICE)
    question = plan_question(media, text, read_settings(folder, shown), read_codec(folder), asked)
    for note in question.notes:
        console.warn(note)
    for item in question.items:
        if item.plan is not None:
            console.detail(
                f"{item.path}: {len(item.plan)} frames, {item.plan.reason}, read by {item.backend}"
            )
    return shown, question


def _answer(
    question: Question,
    *,
    model: dict[str, Any],
    chosen: GenerateOptions,
    stream_to: Console | None,
    folder: CacheFolder | None,
    reuse_frames: bool,
    keep_pixels: bool,
) -> tuple[Answer, dict[str, float]]:
    """The answer, and the wall seconds of each stage; the words go to ``stream_to`` as they come."""
    backbone, loading_seconds = loading.load(**model)
    from vidllava.backbone.answer import answer_question
    from vidllava.backbone.feature_cache import FeatureCache

    on_text = None if stream_to is None else lambda piece: stream_to.write(piece, end="")
    cache = None if folder is None else FeatureCache(backbone, folder)
    answer = answer_question(
        backbone,
        question,
        chosen,
        on_text=on_text,
        cache=cache,
        reuse_frames=reuse_frames,
        keep_pixels=keep_pixels,
    )
    if stream_to is not None:
        stream_to.write("")
    seconds = {**loading_seconds, **answer.seconds}
    return answer, {**seconds, "total": time.perf_counter() - STARTED}


def _draw(answer: Answer, path: Path, console: Console) -> None:
    """The contact sheet: the very pixels that the vision tower read."""
    from vidllava.cli.sheet import Strip, contact_sheet

    strips = []
    for item, used, visual in zip(answer.question.items, answer.frames, answer.visuals, strict=True):
        assert visual.pixels is not None  # they were asked for
        pixels = visual.pixels.permute(0, 2, 3, 1).cpu().numpy()
        if used is not None:
            pairs = zip(used.indices, used.timestamps_seconds, strict=True)
            labels = [f"frame {index}, {seconds:.2f} s" for index, seconds in pairs]
        else:
            labels = ["whole", *(f"tile {number}" for number in range(1, len(pixels)))]
        strips.append(Strip(item.path, pixels, labels))
    outputs.write_picture(contact_sheet(strips), path)
    console.note(f"what the model saw: {path}")
