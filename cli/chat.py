"""``vidllava chat``: many questions about the same media, each after the first nearly free.

vidllava chat clip.mp4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vidllava.cache_folder import CacheFolder
from vidllava.cli import loading, options
from vidllava.cli.console import Console
from vidllava.cli.session import Session, read_lines
from vidllava.errors import UsageError

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
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object per question, on a line.", rich_help_panel="Output"),
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
    console = Console(quiet=quiet, verbose=verbose)
    if not media:
        raise UsageError("MEDIA", "is missing", "for example: vidllava chat clip.mp4")
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
    shown, settings, items = _plan(media, asked, model, console, download=download, revision=revision)
    backbone, seconds = loading.load(
        name=shown, revision=revision, device=device, dtype=dtype, attn_implementation=attn_implementation
    )
    console.detail(", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
    from vidllava.backbone.chat import Conversation
    from vidllava.backbone.feature_cache import FeatureCache

    cache = None if no_cache else FeatureCache(backbone, folder)
    conversation = Conversation(backbone, items, asked, chosen, cache=cache, reuse_frames=not no_reuse_frames)
    session = Session(
        conversation, console, media, settings, asked, max_new_tokens, as_json=as_json, streams=not no_stream
    )
    session.run(read_lines(session))


def _plan(
    media: Sequence[str],
    asked: AskOptions,
    model: str,
    console: Console,
    *,
    download: bool,
    revision: str | None,
) -> tuple[str, ModelSettings, tuple[MediaItem, ...]]:
    """The model's name, its settings and the planned media, which leave room for a question."""
    from vidllava.backbone.locate import locate
    from vidllava.backbone.question import plan_media, plan_turn, visual_rules
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.cli.ask import NANO_NOTICE
    from vidllava.media.probe import media_kind

    for path in media:  # before the model, as in ask
        media_kind(path)
    shown, folder = locate(model, download=download, revision=revision)
    if model == "auto" and shown == "nano":
        console.note(NANO_NOTICE)
    settings = read_settings(folder, shown)
    items = plan_media(media, visual_rules(settings, asked), asked)
    plan_turn(items, "?", settings, read_codec(folder), asked)
    return shown, settings, items
