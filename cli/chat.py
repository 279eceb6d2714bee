"""``vidllava chat``: many questions about the same media, each after the first nearly free.

vidllava chat clip.mp4
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidllava.cache_folder import CacheFolder
from vidllava.cli import bounds, loading, options
from vidllava.cli.console import Console
from vidllava.cli.intake import Intake, open_media
from vidllava.cli.lines import Telling, read_lines
from vidllava.cli.session import Session
from vidllava.errors import UsageError
from vidllava.media.limits import DEFAULT_LIMITS
from vidllava.media.sources import URL_SECONDS

if TYPE_CHECKING:
    from vidllava.backbone.question import AskOptions, MediaItem
    from vidllava.backbone.settings import ModelSettings


def chat(
    media: Annotated[
        list[str] | None,
        typer.Argument(metavar="MEDIA", help="Videos and pictures to talk about.", show_default=False),
    ] = None,
    *,
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
    max_pixels: bounds.MaxPixels = DEFAULT_LIMITS.max_frame_pixels,
    max_file_frames: bounds.MaxFileFrames = DEFAULT_LIMITS.max_file_frames,
    max_file_size: bounds.MaxFileSize = bounds.FILE_SIZE,
    max_streams: bounds.MaxStreams = DEFAULT_LIMITS.max_streams,
    decode_timeout: bounds.DecodeTimeout = None,
    allow_url: bounds.AllowUrl = False,
    url_timeout: bounds.UrlTimeout = URL_SECONDS,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object per question or command, on a line.", rich_help_panel="Output"
        ),
    ] = False,
    no_stream: options.NoStream = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Talk about videos and pictures, one question a line; /help lists the commands.

    From a pipe, each line is a question and each answer is a line. What was read is kept from turn to turn;
    the answers are those of a conversation that is read anew for every question.

    \b
    vidllava chat clip.mp4
    vidllava chat clip.mp4 --json < questions.txt > answers.jsonl
    """
    given = locals()
    console = Console(quiet=quiet, verbose=verbose)
    if not media:
        raise UsageError("MEDIA", "is missing", "for example: vidllava chat clip.mp4")
    if "-" in media:
        raise UsageError("-", "is standard input, where the questions come from", "give a file")
    asked = options.ask_options(**options.pick(given, options.ASK))
    chosen = options.generate_options(**options.pick(given, options.ANSWER))
    folder = None if no_cache else CacheFolder.of_environment()
    limits = bounds.limits(**options.pick(given, bounds.LIMITS))
    with open_media(media, limits, allow_url=allow_url, url_seconds=url_timeout) as intake:
        shown, settings, items = _plan(intake, asked, given, folder, console)
        backbone, seconds = loading.load(name=shown, **options.pick(given, options.WEIGHTS))
        console.detail(", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
        from vidllava.backbone.chat import Conversation
        from vidllava.backbone.feature_cache import FeatureCache

        conversation = Conversation(
            backbone,
            items,
            asked,
            chosen,
            sampler=intake.sampler,
            cache=None if no_cache else FeatureCache(backbone, folder),
            reuse_frames=not no_reuse_frames,
        )
        told = Telling(console, as_json=as_json, streams=not no_stream, max_new_tokens=max_new_tokens)
        session = Session(conversation, intake, settings, asked, told)
        session.run(read_lines(told))


def _plan(
    intake: Intake,
    asked: AskOptions,
    given: dict[str, Any],
    folder: CacheFolder | None,
    console: Console,
) -> tuple[str, ModelSettings, tuple[MediaItem, ...]]:
    """The model's name, its settings and the planned media, which leave room for a question.

    The worker decodes from then on.
    """
    from vidllava.backbone.locate import locate
    from vidllava.backbone.question import plan_question
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.cli.ask import NANO_NOTICE
    from vidllava.media.probe import media_kind

    for path in intake.paths:  # before the model, as in ask
        media_kind(path)
    shown, checkpoint = locate(given["model"], download=given["download"], revision=given["revision"])
    if given["model"] == "auto" and shown == "nano":
        console.note(NANO_NOTICE)
    settings = read_settings(checkpoint, shown)
    question = plan_question(
        intake.paths, "?", settings, read_codec(checkpoint), asked, sampler=intake.sampler
    )
    intake.begin(question, settings.image_size, folder)
    return shown, settings, question.items
