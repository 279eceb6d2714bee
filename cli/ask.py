"""``vidllava ask``: media and a question in, an answer on stdout.

    vidllava ask clip.mp4 "what happens"

Everything that can be told without weights is told first: torch is imported only for a question that is
known to fit.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidllava.cache_folder import CacheFolder
from vidllava.cli import bounds, loading, options, outputs
from vidllava.cli.console import Console
from vidllava.cli.intake import Intake, open_media
from vidllava.cli.report import answer_json
from vidllava.cli.startup import STARTED
from vidllava.cli.telling import tell_cut, tell_work
from vidllava.cli.words import media_and_question, refuse_batch_flags
from vidllava.media.limits import DEFAULT_LIMITS
from vidllava.media.sources import URL_SECONDS

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
            help="Videos and pictures, in the order in which the question speaks of them; - reads one from "
            "standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION", help="The last word; - reads it from standard input.", show_default=False
        ),
    ] = None,
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
    keyframes: options.Keyframes = None,
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
    max_pixels: bounds.MaxPixels = DEFAULT_LIMITS.max_frame_pixels,
    max_file_frames: bounds.MaxFileFrames = DEFAULT_LIMITS.max_file_frames,
    max_file_size: bounds.MaxFileSize = bounds.FILE_SIZE,
    max_streams: bounds.MaxStreams = DEFAULT_LIMITS.max_streams,
    decode_timeout: bounds.DecodeTimeout = None,
    allow_url: bounds.AllowUrl = False,
    url_timeout: bounds.UrlTimeout = URL_SECONDS,
    batch: bounds.Batch = None,
    output: bounds.BatchOutput = None,
    media_root: bounds.BatchMediaRoot = None,
    workers: bounds.BatchWorkers = None,
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
    cat clip.mp4 | vidllava ask - "what happens"
    vidllava ask --batch questions.jsonl -o answers.jsonl
    """
    given = locals()
    console = Console(quiet=quiet, verbose=verbose)
    if batch is not None or output is not None:
        from vidllava.cli.batch import answer_batch

        answer_batch(given, console)
    else:
        _ask_once(given, console)


def _ask_once(given: dict[str, Any], console: Console) -> None:
    """One question, answered on stdout."""
    refuse_batch_flags(given)
    names, text = media_and_question([*(given["flagged"] or []), *(given["media"] or [])], given["question"])
    sheet, as_json = given["contact_sheet"], given["as_json"]
    if sheet is not None:
        outputs.check_file("--contact-sheet", sheet, overwrite=given["overwrite"])
        outputs.check_folder(sheet.absolute().parent)
    asked = options.ask_options(**options.pick(given, options.ASK))
    chosen = options.generate_options(**options.pick(given, options.ANSWER))
    folder = None if given["no_cache"] else CacheFolder.of_environment()
    to_screen = sys.stdout is not None and sys.stdout.isatty() and not as_json and not given["no_stream"]
    limits = bounds.limits(**options.pick(given, bounds.LIMITS))
    urls = {"allow_url": given["allow_url"], "url_seconds": given["url_timeout"]}
    with open_media(names, limits, **urls) as intake:
        shown, planned = _plan(intake, text, asked, given, folder, console)
        answer, seconds = _answer(
            planned,
            model={**options.pick(given, options.WEIGHTS), "name": shown},
            chosen=chosen,
            stream_to=console if to_screen else None,
            folder=folder,
            sampler=intake.sampler,
            reuse_frames=not given["no_reuse_frames"],
            keep_pixels=sheet is not None,
        )
        answer = replace(answer, question=intake.named(planned))
    if as_json:
        console.write(json.dumps(answer_json(answer, shown, seconds), indent=2, ensure_ascii=False))
    elif not to_screen:
        console.write(answer.text)
    for note in answer.notes:
        console.warn(note)
    tell_cut(answer, given["max_new_tokens"], console)
    tell_work(answer, seconds, console)
    if sheet is not None:
        _draw(answer, sheet, console)


def _plan(
    intake: Intake,
    text: str,
    asked: AskOptions,
    given: dict[str, Any],
    folder: CacheFolder | None,
    console: Console,
) -> tuple[str, Question]:
    """The model's name and the planned question, which fits; what a reader should know is said.

    The worker decodes from then on.
    """
    from vidllava.backbone.locate import locate
    from vidllava.backbone.question import plan_question
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.media.probe import media_kind

    for (
        path
    ) in intake.paths:  # before the model: a wrong path is the likelier slip, and the quicker one to find
        media_kind(path)
    model = given["model"]
    shown, checkpoint = locate(model, download=given["download"], revision=given["revision"])
    if model == "auto" and shown == "nano":
        console.note(NANO_NOTICE)
    settings = read_settings(checkpoint, shown)
    question = plan_question(
        intake.paths, text, settings, read_codec(checkpoint), asked, sampler=intake.sampler
    )
    intake.begin(question, settings.image_size, folder)
    for note in question.notes:
        console.warn(note)
    for item in question.items:
        if item.plan is not None:
            shown_plan = f"{len(item.plan)} frames, {item.plan.reason}, read by {item.backend}"
            console.detail(f"{intake.shown(item.path)}: {shown_plan}")
    return shown, question


def _answer(
    question: Question,
    *,
    model: dict[str, Any],
    chosen: GenerateOptions,
    stream_to: Console | None,
    folder: CacheFolder | None,
    **seeing: Any,
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
        **seeing,
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
