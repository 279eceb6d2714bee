"""``vidllava ask``: media and a question in, an answer on stdout.

    vidllava ask clip.mp4 "what happens"

Everything that can be told without weights is told first: torch is imported only for a question that is
known to fit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidllava.cli import bounds, options, outputs
from vidllava.cli.asking import Seeing, Weights
from vidllava.cli.console import Console, counted
from vidllava.cli.intake import Intake, open_media
from vidllava.cli.options import spread
from vidllava.cli.report import answer_json, tell_cut, tell_work
from vidllava.cli.startup import STARTED
from vidllava.cli.words import media_and_question, refuse_batch_flags
from vidllava.files.cache_folder import CacheFolder
from vidllava.visuals.options import AskOptions, GenerateOptions

if TYPE_CHECKING:
    from vidllava.backbone.answer import Answer
    from vidllava.backbone.model import Backbone
    from vidllava.visuals.question import Question


@spread
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
            metavar="QUESTION",
            help="The last argument, however long; - reads it from standard input.",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            *options.QUESTION_FLAGS,
            metavar=options.QUESTION_METAVAR,
            help="The question by name: all arguments are media then. @FILE or @- reads it.",
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
    asked: AskOptions,
    seeing: Seeing,
    weights: Weights,
    chosen: GenerateOptions,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw what the model saw there, labelled; its ending is the format: .png, .jpg, .webp, ...",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    reading: bounds.Bounds,
    batches: bounds.Batches,
    as_json: options.Json = False,
    no_stream: options.NoStream = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Ask a question about videos and pictures.

    \b
    vidllava ask clip.mp4 "what happens"
    vidllava ask before.png after.png "what changed?"
    vidllava ask before.png after.png --question @question.txt
    vidllava ask match.mp4 "who scores?" --start 1:10 --end 1:25 --fps 2
    echo "what is written on the sign?" | vidllava ask street.jpg - --json
    cat clip.mp4 | vidllava ask - "what happens"
    vidllava ask --batch questions.jsonl -o answers.jsonl
    """
    console = Console(quiet=quiet, verbose=verbose)
    if batches.batch is not None or batches.output is not None:
        from vidllava.cli.batch import answer_batch

        single: dict[str, object] = {
            "QUESTION": question,
            "--question": named,
            "MEDIA": media,
            "--video": flagged,
            "--contact-sheet": contact_sheet,
        }
        single |= {"--json": as_json, "--no-stream": no_stream}
        given = [flag for flag, value in single.items() if value not in (None, False, [])]
        many = {"asked": asked, "seeing": seeing, "weights": weights, "chosen": chosen}
        many |= {"reading": reading, "overwrite": overwrite}
        answer_batch(batches, many, given, console)
        return
    refuse_batch_flags(vars(batches))
    console.check_stdout()
    words = [*(media or []), *([] if question is None else [question])]
    names, text = media_and_question(words, named, console, flagged=flagged or [])
    if contact_sheet is not None:
        inputs = [*names, *([named[1:]] if named is not None and named.startswith("@") else [])]
        outputs.check_file("--contact-sheet", contact_sheet, overwrite=overwrite, inputs=inputs)
        outputs.picture_format("--contact-sheet", contact_sheet)
        outputs.check_folder(contact_sheet.absolute().parent)
    folder = seeing.folder()
    to_screen = sys.stdout is not None and sys.stdout.isatty() and not as_json and not no_stream
    with open_media(names, reading.limits(), **reading.urls()) as intake:
        shown, planned = _plan(intake, text, asked, weights, folder, console)
        from vidllava.backbone.memory import Workload

        answer, seconds = _answer(
            planned,
            weights.load(shown, Workload.of(planned, chosen.max_new_tokens)),
            chosen=chosen,
            before=lambda: weights.tell_stand_in(shown, console),
            stream_to=console if to_screen else None,
            folder=folder,
            sampler=intake.sampler,
            reuse_frames=not seeing.no_reuse_frames,
            keep_pixels=contact_sheet is not None,
        )
        answer = replace(answer, question=intake.named(planned))
    if contact_sheet is not None:  # first: a reader of the answer that goes away ends the command
        _draw(answer, contact_sheet, console)
    if as_json:
        console.json(answer_json(answer, shown, seconds), indent=2, is_answer=True)
    elif not to_screen:
        console.answer(answer.text)
    for note in answer.notes:
        console.warn(note)
    tell_cut(answer, chosen.max_new_tokens, console)
    tell_work(answer, seconds, console)


def _plan(
    intake: Intake,
    text: str,
    asked: AskOptions,
    weights: Weights,
    folder: CacheFolder | None,
    console: Console,
) -> tuple[str, Question]:
    """The model's name and the planned question, which fits; what a reader should know is said.

    The worker decodes from then on.
    """
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.media.probe import media_kind
    from vidllava.visuals.question import plan_question

    for (
        path
    ) in intake.paths:  # before the model: a wrong path is the likelier slip, and the quicker one to find
        media_kind(path)
    shown, checkpoint = weights.locate(asked)
    settings = read_settings(checkpoint, shown)
    question = plan_question(
        intake.paths, text, settings, read_codec(checkpoint), asked, sampler=intake.sampler
    )
    intake.begin(question, settings.frame_size, folder)
    for note in question.notes:
        console.warn(note)
    for item in question.items:
        if item.plan is not None:
            shown_plan = f"{counted(len(item.plan), 'frame')}, {item.plan.reason}, read by {item.backend}"
            console.detail(f"{intake.shown(item.path)}: {shown_plan}")
    return shown, question


def _answer(
    question: Question,
    loaded: tuple[Backbone, dict[str, float]],
    *,
    chosen: GenerateOptions,
    before: Callable[[], None],
    stream_to: Console | None,
    folder: CacheFolder | None,
    **seeing: Any,
) -> tuple[Answer, dict[str, float]]:
    """The answer, and the wall seconds of each stage; the words go to ``stream_to`` as they come.

    ``before`` is called once it is certain that there will be an answer: before the first word, if any.
    """
    backbone, loading_seconds = loaded
    from vidllava.backbone.answer import answer_question
    from vidllava.backbone.feature_cache import FeatureCache

    begun = False

    def hear(piece: str) -> None:
        nonlocal begun
        if not begun:
            begun = True
            before()
        if stream_to is not None:
            stream_to.write(piece, end="")

    cache = None if folder is None else FeatureCache(backbone, folder)
    answer = answer_question(
        backbone,
        question,
        chosen,
        on_text=hear,
        cache=cache,
        **seeing,
    )
    if not begun:
        before()
    if stream_to is not None:
        stream_to.write("")
    seconds = {**loading_seconds, **answer.seconds}
    return answer, {**seconds, "total": time.perf_counter() - STARTED}


def _draw(answer: Answer, path: Path, console: Console) -> None:
    """The contact sheet: the very pixels that the vision tower read."""
    from vidllava.cli.outputs import Strip, contact_sheet

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
