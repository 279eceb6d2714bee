"""``vidllava bench``: what things cost on this machine; frames and kernels run in files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidllava.bench.kernel_cases import KernelRequest
from vidllava.cli import bench_frames, options
from vidllava.cli.asking import Weights
from vidllava.cli.bench_output import Json, Output, RandomWeights, Repeats, RowOutput, open_measured, show
from vidllava.cli.console import Console
from vidllava.cli.options import option_of, spread
from vidllava.cli.outputs import check_folder
from vidllava.cli.words import named_question, text_option
from vidllava.errors import UsageError
from vidllava.files.cache_folder import CacheFolder
from vidllava.visuals.options import AskOptions, GenerateOptions

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)

_DEFAULT_READERS = "vidllava,vidllava-1-thread,decord,pyav,opencv,torchcodec"


@app.command("decode")
def decode(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CLIP]...",
            help="Video files; seven clips of 60 s are made where none is given.",
            show_default=False,
        ),
    ] = None,
    num_frames: Annotated[
        str, typer.Option(metavar="N,N...", help="Frames of a reading, evenly over the clip.")
    ] = "8,32,64",
    reader: Annotated[
        str, typer.Option(metavar="NAME,NAME...", help="Who reads; those that are not installed are skipped.")
    ] = _DEFAULT_READERS,
    clips_dir: Annotated[
        Path | None, typer.Option(help="Where the clips are made; in the cache folder by default.")
    ] = None,
    repeats: Repeats = 3,
    output: Output = None,
    as_json: Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the time of reading a clip's frames, by our sampler and by others, and whether they are right.

    Each figure is of a fresh process. Its frames are compared with a sequential decode: where one is wrong,
    no time is given. The table shows wall / CPU seconds, and in brackets the share of decord's CPU seconds.

    \b
    vidllava bench decode clip.mp4 --num-frames 8,32
    vidllava bench decode -o rows.jsonl
    """
    from vidllava.bench.decode import CLIPS, LEGEND, READERS, measure, table, write_clip
    from vidllava.media.probe import media_kind

    readers = tuple(dict.fromkeys(reader.split(",")))
    for name in readers:
        if name not in READERS:
            raise UsageError(f"--reader {name}", "no such reader", f"of {', '.join(READERS)}")
    counts = whole_numbers("--num-frames", num_frames)
    console = Console(quiet=quiet, carries_on=output is not None)
    for path in clips or ():
        media_kind(path)
    if clips_dir is not None:
        check_folder(clips_dir, "--clips-dir")
    with RowOutput(
        console,
        output,
        as_json=as_json,
        fields=("clip", "num_frames", "reader", "round"),
        begins=rb'\{"clip": "([^"\\]|\\.)*", "num_frames": \d+, "reader": "',
        inputs=clips or (),
    ) as out:
        paths = list(clips or ())
        if not paths:
            folder = clips_dir or CacheFolder.of_environment().path / "bench"
            for name in CLIPS:
                if not (folder / name).exists():
                    console.note(f"making {folder / name}: up to minutes, once")
                paths.append(write_clip(folder, name))
        try:
            for row in measure(paths, num_frames=counts, readers=readers, repeats=repeats):
                out.append(row)
                told = "no figure"
                if row.get("wrong") == 0:
                    told = f"{row['wall_s']:.2f} s, {row['cpu_s']:.2f} s of CPU"
                console.note(f"{row['clip']}, {row['num_frames']} frames, {row['reader']}: {told}")
        finally:
            if out.rows:
                show(console, table(out.rows), LEGEND)


@app.command("ask")
@spread
def ask(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video file.", show_default=False)],
    *,
    asked_first: Annotated[
        str | None,
        typer.Argument(metavar="[QUESTION]", help="The first question.", show_default=False),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            *options.QUESTION_FLAGS,
            metavar=options.QUESTION_METAVAR,
            help="The first question by name; what happens by default.",
        ),
    ] = None,
    second: Annotated[
        str,
        typer.Option(metavar=options.QUESTION_METAVAR, help="The second question, in the same conversation."),
    ] = "how many things are there",
    asked: AskOptions,
    weights: Weights,
    kind: RandomWeights = "checkpoint",
    max_new_tokens: Annotated[int, option_of(GenerateOptions, "max_new_tokens")] = 64,
    transformers: Annotated[
        bool,
        typer.Option(
            "--transformers/--no-transformers",
            help="Also with transformers' own classes, on the same weights.",
        ),
    ] = True,
    repeats: Repeats = 5,
    output: Output = None,
    as_json: Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the time of an answer: the first, the same again, a second one, and with transformers' model.

    Wall milliseconds by stage, medians. Decoding overlaps the tower, so a total may be less than its stages.
    transformers is given our frames and prompts; whether its answers are the same is told.

    \b
    vidllava bench ask clip.mp4
    vidllava bench ask clip.mp4 "what happens" --second "how many?"
    vidllava bench ask clip.mp4 --model onevision-0.5b --weights random --num-frames 32 -o rows.jsonl
    """
    from vidllava.backbone.locate import weights_files

    console = Console(quiet=quiet, carries_on=output is not None)
    if asked_first is not None and named is not None:
        raise UsageError("--question", "is given beside a question as the last argument", "give one of them")
    question = named_question(named or "what happens") if asked_first is None else asked_first
    second = text_option("--second", second)
    from vidllava.media.probe import media_kind

    media_kind(clip)
    shown, inputs = weights.model, [clip]
    if kind == "checkpoint":
        shown, checkpoint = weights.locate(asked)
        weights.tell_stand_in(shown, console)
        inputs += map(str, weights_files(checkpoint))
    with RowOutput(
        console,
        output,
        as_json=as_json,
        fields=("path", "question", "round", "seconds"),
        begins=rb'\{"path": "(vidllava|transformers)", "question": "',
        inputs=inputs,
    ) as out:
        from vidllava.bench.ask import LEGEND, measure, table

        backbone, told = open_measured(shown, weights, kind)
        told["clip"] = clip
        rows = measure(
            backbone,
            clip,
            (question, second),
            options=asked,
            max_new_tokens=max_new_tokens,
            repeats=repeats,
            against=transformers,
        )
        try:
            for row in rows:
                out.append({**row, **told})
        finally:
            if out.rows:
                show(console, table(out.rows), LEGEND)


app.command("frames")(bench_frames.frames)

Processes = Annotated[
    int | None,
    typer.Option(
        help="Measure in so many fresh processes, one after the other. 1 on a CPU, 3 on CUDA.",
        rich_help_panel="Samples",
    ),
]
Process = Annotated[int | None, typer.Option(hidden=True)]
KernelOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="One JSON line per row; rows that stand there already are not measured again.",
        rich_help_panel="Output",
    ),
]


@app.command("kernels")
@spread
def kernels(
    request: KernelRequest,
    device: options.Device = "auto",
    processes: Processes = None,
    process: Process = None,
    output: KernelOutput = None,
    overwrite: options.Overwrite = False,
    as_json: Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the speed of splice and rotate on this machine, beside transformers' own operations.

    Every result is compared with float64 before its time is taken; a wrong one has no time, and the exit code
    is 1. The table goes to stderr. Lists are comma-separated.

    \b
    vidllava bench kernels
    vidllava bench kernels --device cuda -o rows.jsonl
    vidllava bench kernels --model 0.5b --num-frames 32 --kernel rotate --no-odd
    """
    from vidllava.cli import bench_kernels

    bench_kernels.run(
        request,
        device=device,
        processes=1 if process is not None else processes,
        process=process,
        output=output,
        overwrite=overwrite,
        as_json=as_json,
        quiet=quiet,
    )


def whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    """``8,32`` -> (8, 32), each once. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 20 and int(word) > 0 for word in words):
        raise UsageError(f"{flag} {text}", "must be whole numbers above 0 with commas", "for example 8,32")
    return tuple(dict.fromkeys(int(word) for word in words))
