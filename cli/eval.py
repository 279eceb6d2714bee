"""``vidllava eval``: the signature; what it does is in ``eval_run``.

vidllava eval --data long.jsonl --output results.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidllava.cli import bounds, options
from vidllava.cli.asking import Answering, Asking, Seeing, Weights
from vidllava.cli.console import Console
from vidllava.cli.options import spread

_QUESTIONS, _SCORES, _OUTPUT = "Questions", "Scores", "Output"


@spread
def evaluate(
    *,
    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Our JSONL, or a local copy of a benchmark, file or folder, in its published format.",
            rich_help_panel=_QUESTIONS,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="Which data set it is, where content does not tell: own, nextqa-mc, nextqa-oe, videomme, "
            "videomme-subtitles, mvbench, egoschema, egoschema-subset, perceptiontest, activitynetqa, mlvu, "
            "longvideobench, interleave-bench.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None,
    media_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the media lie, found by name or id in any folder below; default: beside the data.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many questions.", rich_help_panel=_QUESTIONS)
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Questions answered together; halved where memory runs out. Answers stay the same.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = 1,
    workers: bounds.BatchWorkers = None,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="Ask every question without its media, too, and score that beside.",
            rich_help_panel=_SCORES,
        ),
    ] = False,
    judge_scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What a judge said to FILE.judge.jsonl: JSON lines of request, pred (yes, no) and score.",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    max_failed: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Exit code 10 where a larger share of the questions has no answer.",
            rich_help_panel=_SCORES,
        ),
    ] = 0.0,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="One JSON line per question, on disk before the next; a run that was cut off goes on. The "
            "results go to FILE.summary.json.",
            rich_help_panel=_OUTPUT,
        ),
    ],
    overwrite: options.Overwrite = False,
    asking: Asking,
    seeing: Seeing,
    weights: Weights,
    answering: Answering,
    reading: bounds.FileBounds,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Score a model on labelled questions.

    Each question gets a status: ok, unparsed, decode_error, usage_error, over_budget or oom.
    What could not be read or does not fit is never answered, and is a column of the result. Accuracy has
    a 95 % interval, in all, by category and by duration. Flags on frames are for the rows that they fit.
    Under torchrun or accelerate launch the questions are shared out; the result is the same.

    \b
    vidllava eval --data long.jsonl --output results.jsonl --blind
    vidllava eval --model onevision-7b --data Video-MME --media-root videos --num-frames 32 -o videomme.jsonl
    accelerate launch -m vidllava.cli.main eval --data MVBench/json --media-root MVBench/video -o mv.jsonl
    """
    from vidllava.cli.eval_run import Command, run

    command = Command(
        data=data,
        task=task,
        media_root=media_root,
        limit=limit,
        batch_size=batch_size,
        workers=workers,
        blind=blind,
        judge_scores=judge_scores,
        max_failed=max_failed,
        output=output,
        overwrite=overwrite,
        asking=asking,
        seeing=seeing,
        weights=weights,
        answering=answering,
        reading=reading,
    )
    run(command, Console(quiet=quiet, verbose=verbose))
