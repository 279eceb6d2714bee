"""``vidllava chat``: many questions about the same media, each after the first nearly free.

vidllava chat clip.mp4
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from vidllava.cli import bounds, options
from vidllava.cli.asking import Seeing, Weights
from vidllava.cli.console import Console
from vidllava.cli.intake import Intake, open_media
from vidllava.cli.options import spread
from vidllava.cli.session import Session, Telling, read_lines
from vidllava.cli.words import named_question, short
from vidllava.errors import UsageError
from vidllava.media.files import is_url
from vidllava.visuals.options import AskOptions, GenerateOptions

if TYPE_CHECKING:
    from vidllava.files.cache_folder import CacheFolder
    from vidllava.visuals.planner import ModelSettings
    from vidllava.visuals.question import MediaItem


@spread
def chat(
    media: Annotated[
        list[str] | None,
        typer.Argument(metavar="MEDIA", help="Videos and pictures to talk about.", show_default=False),
    ] = None,
    *,
    named: Annotated[
        str | None,
        typer.Option(
            *options.QUESTION_FLAGS,
            metavar=options.QUESTION_METAVAR,
            help="The first question; the others come from standard input. @FILE reads it.",
        ),
    ] = None,
    asked: AskOptions,
    seeing: Seeing,
    weights: Weights,
    chosen: GenerateOptions,
    reading: bounds.Bounds,
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
    vidllava chat clip.mp4 --question "what happens"
    vidllava chat clip.mp4 --json < questions.txt > answers.jsonl
    """
    console = Console(quiet=quiet, verbose=verbose)
    console.check_stdout()
    if not media:
        raise UsageError("MEDIA", "is missing", "for example: vidllava chat clip.mp4")
    if "-" in media:
        raise UsageError("-", "is standard input, where the questions come from", "give a file")
    if " " in media[-1] and not (os.path.exists(media[-1]) or is_url(media[-1])):
        what = "is not a file, and in a chat the questions come from standard input"
        raise UsageError(short(media[-1]), what, "the first one may be named: --question TEXT")
    first = None if named is None else named_question(named)
    folder = seeing.folder()
    with open_media(media, reading.limits(), **reading.urls()) as intake:
        shown, settings, items = _plan(intake, asked, weights, folder)
        backbone, seconds = weights.load(shown)
        console.detail(", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
        from vidllava.backbone.answer import Conversation
        from vidllava.backbone.feature_cache import FeatureCache

        conversation = Conversation(
            backbone,
            items,
            asked,
            chosen,
            sampler=intake.sampler,
            cache=None if folder is None else FeatureCache(backbone, folder),
            reuse_frames=not seeing.no_reuse_frames,
        )
        told = Telling(
            console,
            as_json=as_json,
            streams=not no_stream,
            max_new_tokens=chosen.max_new_tokens,
            before=lambda: weights.tell_stand_in(shown, console),
        )
        session = Session(conversation, intake, settings, asked, told)
        session.run(read_lines(told), first)


def _plan(
    intake: Intake,
    asked: AskOptions,
    weights: Weights,
    folder: CacheFolder | None,
) -> tuple[str, ModelSettings, tuple[MediaItem, ...]]:
    """The model's name, its settings and the planned media, which leave room for a question.

    The worker decodes from then on.
    """
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.media.probe import media_kind
    from vidllava.visuals.question import plan_question

    for path in intake.paths:  # before the model, as in ask
        media_kind(path)
    shown, checkpoint = weights.locate(asked)
    settings = read_settings(checkpoint, shown)
    question = plan_question(
        intake.paths, "?", settings, read_codec(checkpoint), asked, sampler=intake.sampler
    )
    intake.begin(question, settings.frame_size, folder)
    return shown, settings, question.items
