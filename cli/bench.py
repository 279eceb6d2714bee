"""``vidllava bench``: what things cost on this machine. Signatures; each command has its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidllava.cli import bench_ask, bench_decode, bench_frames, options

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)
app.command("decode")(bench_decode.decode)
app.command("ask")(bench_ask.ask)
app.command("frames")(bench_frames.frames)

_SHAPES, _SAMPLES = "Shapes", "Samples"

Models = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="LIST",
        help="nano, 0.5b, 7b: whose sizes. nano,0.5b on a CPU, 0.5b,7b on CUDA.",
        rich_help_panel=_SHAPES,
    ),
]
FrameCounts = Annotated[
    str | None,
    typer.Option(
        "--num-frames",
        metavar="LIST",
        help="Frames of a clip. 8,32 on a CPU, 8,32,128 on CUDA.",
        rich_help_panel=_SHAPES,
    ),
]
NewlineModes = Annotated[
    str | None,
    typer.Option(
        "--newline-mode",
        metavar="LIST",
        help="one_token, grid, frame, no_token. one_token on a CPU, one_token,grid on CUDA.",
        rich_help_panel=_SHAPES,
    ),
]
Kernels = Annotated[
    str | None, typer.Option("--kernel", metavar="LIST", help="splice, rotate.", rich_help_panel=_SHAPES)
]
Directions = Annotated[
    str | None,
    typer.Option("--direction", metavar="LIST", help="forward, backward, both.", rich_help_panel=_SHAPES),
]
Dtypes = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="LIST",
        help="float32, bfloat16, float16. float32 on a CPU, bfloat16 on CUDA.",
        rich_help_panel=_SHAPES,
    ),
]
Odd = Annotated[
    bool,
    typer.Option(
        "--odd/--no-odd",
        help="Also a decode step, a training batch, and sizes that kernels were found wrong at.",
        rich_help_panel=_SHAPES,
    ),
]
Share = Annotated[
    bool,
    typer.Option(
        "--share/--no-share",
        help="Also the time of a whole prefill with random weights, and the kernels' share of it.",
        rich_help_panel=_SAMPLES,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Also transformers' operations under torch.compile: a minute of compiling.",
        rich_help_panel=_SAMPLES,
    ),
]
Threads = Annotated[int, typer.Option(help="CPU threads.", rich_help_panel=_SAMPLES)]
Samples = Annotated[
    int,
    typer.Option("--samples", help="Samples of a row; on a CPU at most so many.", rich_help_panel=_SAMPLES),
]
RowSeconds = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="On a CPU: after 5 samples of a row, no more than fit in so long.",
        rich_help_panel=_SAMPLES,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Measure in so many fresh processes, one after the other. 1 on a CPU, 3 on CUDA.",
        rich_help_panel=_SAMPLES,
    ),
]
Process = Annotated[int | None, typer.Option(hidden=True)]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="One JSON line per row; rows that stand there already are not measured again.",
        rich_help_panel="Output",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="The rows on stdout, a JSON line each.", rich_help_panel="Output")
]


@app.command("kernels")
def kernels(
    model: Models = None,
    num_frames: FrameCounts = None,
    newline_mode: NewlineModes = None,
    kernel: Kernels = None,
    direction: Directions = None,
    dtype: Dtypes = None,
    odd: Odd = True,
    device: options.Device = "auto",
    share: Share = True,
    compiled: Compile = False,
    threads: Threads = 1,
    samples: Samples = 100,
    row_seconds: RowSeconds = 1.5,
    processes: Processes = None,
    process: Process = None,
    output: Output = None,
    overwrite: options.Overwrite = False,
    as_json: Json = False,
    quiet: options.Quiet = False,
) -> None:
    """How fast are splice and rotate here, and how fast are transformers' own operations?

    Every result is compared with float64 before its time is taken; a wrong one has no time, and the exit code
    is 1. The table goes to stderr. Lists are comma-separated.

    \b
    vidllava bench kernels
    vidllava bench kernels --device cuda -o rows.jsonl
    vidllava bench kernels --model 0.5b --num-frames 32 --kernel rotate --no-odd
    """
    from vidllava.bench.kernel_request import parse_request
    from vidllava.cli import bench_kernels

    request = parse_request(
        model=model,
        num_frames=num_frames,
        newline_mode=newline_mode,
        kernel=kernel,
        direction=direction,
        dtype=dtype,
        odd=odd,
        share=share,
        compile=compiled,
        threads=threads,
        num_samples=samples,
        row_seconds=row_seconds,
        process=process or 0,
    )
    bench_kernels.run(
        request,
        device=device,
        processes=1 if process is not None else processes,
        is_child=process is not None,
        output=output,
        overwrite=overwrite,
        as_json=as_json,
        quiet=quiet,
    )
