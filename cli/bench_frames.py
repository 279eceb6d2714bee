"""``vidllava bench frames``: a sweep over frames, pooling and RoPE factors. The signature.

vidllava bench frames --data long.jsonl --num-frames 2,4,8 --pool-stride 1,2 --output-dir out
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidllava.cli import options
from vidllava.cli.asking import Weights
from vidllava.cli.bench_output import RandomWeights
from vidllava.cli.options import option_of, spread
from vidllava.cli.words import named_question
from vidllava.prompting.layout import NewlineMode
from vidllava.visuals.options import AskOptions, GenerateOptions, Sampling

_QUESTIONS, _CELLS, _ROUNDS, _OUTPUT = "Questions", "Cells", "Rounds", "Output"


@spread
def frames(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labelled questions, as vidllava eval reads them.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The format of --data, where content does not tell.", rich_help_panel=_QUESTIONS),
    ] = None,
    media_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the rows' media lie.", rich_help_panel=_QUESTIONS),
    ] = None,
    media: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLIP",
            help="Instead of --data: clips without labels, repeatable; --question is asked of each.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None,
    question: Annotated[
        str,
        typer.Option(
            *options.QUESTION_FLAGS,
            metavar=options.QUESTION_METAVAR,
            help="For --media.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = "what happens",
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many questions.", rich_help_panel=_QUESTIONS)
    ] = None,
    num_frames: Annotated[
        str | None,
        typer.Option(
            metavar="N,N...",
            help="Frames of a clip; 2,4,8,16,32 where --fps is not given either.",
            rich_help_panel=_CELLS,
        ),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            metavar="R,R...", help="Frames for each second, beside --num-frames.", rich_help_panel=_CELLS
        ),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="At most so many, in every cell.", rich_help_panel=_CELLS)
    ] = None,
    sampling: Annotated[Sampling | None, option_of(AskOptions, "sampling")] = None,
    pool_stride: Annotated[
        str | None,
        typer.Option(metavar="N,N...", help="The model's own by default.", rich_help_panel=_CELLS),
    ] = None,
    pool_mode: Annotated[
        str | None,
        typer.Option(metavar="MODE,MODE...", help="The model's own by default.", rich_help_panel=_CELLS),
    ] = None,
    rope_factor: Annotated[
        str,
        typer.Option(
            metavar="F,F...",
            help="off, auto, or numbers. off is run beyond the trained context too, and marked.",
            rich_help_panel=_CELLS,
        ),
    ] = "auto",
    preset: Annotated[str | None, option_of(AskOptions, "preset")] = None,
    newline_mode: Annotated[NewlineMode | None, option_of(AskOptions, "newline_mode")] = None,
    context_limit: Annotated[int | None, option_of(AskOptions, "context_limit")] = None,
    weights: Weights,
    kind: RandomWeights = "checkpoint",
    max_new_tokens: Annotated[int, option_of(GenerateOptions, "max_new_tokens")] = 64,
    timing_clips: Annotated[
        int,
        typer.Option(
            help="Questions whose every cell is answered from the file on, sharing nothing: the times of "
            "decoding and of the tower, and the memory, are theirs.",
            rich_help_panel=_ROUNDS,
        ),
    ] = 8,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind/--no-blind", help="Also ask without the video, for comparison.", rich_help_panel=_ROUNDS
        ),
    ] = True,
    output_dir: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="rows.jsonl, cells.jsonl, rows.csv, report.html and PNGs; rows that stand there already are "
            "not measured again.",
            rich_help_panel=_OUTPUT,
        ),
    ],
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """How many frames, how much pooling, and which RoPE factor does a question need?

    A cell is frames x stride x mode x factor. Every question is asked in every cell: accuracy (without
    labels: agreement with the richest cell), seconds by stage, tokens, memory. A clip is decoded once for all
    cells. The table goes to stderr, with the cheapest cell that is not worse than the best beyond chance.

    \b
    vidllava bench frames --data long.jsonl --num-frames 2,4,8 --pool-stride 1,2 --output-dir out
    vidllava bench frames --data long.jsonl --num-frames 8,32 --rope-factor off,auto,2 --output-dir out
    vidllava bench frames --media a.mp4 --num-frames 8 --weights random --model onevision-7b --output-dir out
    """
    from vidllava.bench.frames import request as asked
    from vidllava.cli import bench_frames_run

    numbers, rates = asked.parse_frames(num_frames, fps)
    bench_frames_run.run(
        asked.FramesRequest(
            num_frames=numbers,
            fps=rates,
            max_frames=max_frames,
            pool_strides=asked.parse_numbers("--pool-stride", pool_stride),
            pool_modes=asked.parse_modes(pool_mode),
            rope_factors=asked.parse_factors(rope_factor),
            max_new_tokens=max_new_tokens,
            num_timed=timing_clips,
            blind=blind,
        ),
        bench_frames_run.SweepSource(
            data, task, media_root, tuple(media or ()), named_question(question), limit
        ),
        bench_frames_run.Planning(preset, newline_mode, context_limit, sampling),
        weights,
        kind,
        output_dir,
        overwrite=overwrite,
        quiet=quiet,
    )
