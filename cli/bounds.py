"""The options on how much is read at most, and on many questions at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vidllava.cli.options import Overwrite
from vidllava.media.limits import DEFAULT_LIMITS, Limits, parse_size
from vidllava.media.sources import URL_SECONDS

_LIMITS, _BATCH = "Limits", "Batch"
_QUESTIONS, _SCORES, _OUTPUT = "Questions", "Scores", "Output"
FILE_SIZE = "64G"
BENCHMARKS = "<names>"
"""In the help of `eval`: the data sets that are there."""

# Limits: how much of a file is looked at before it is refused?
MaxPixels = Annotated[
    int, typer.Option(help="Pixels of a frame or a picture.", min=1, rich_help_panel=_LIMITS)
]
MaxFileFrames = Annotated[int, typer.Option(help="Frames in a file.", min=1, rich_help_panel=_LIMITS)]
MaxFileSize = Annotated[
    str, typer.Option(metavar="SIZE", help="Bytes of a file: 500M, 64G.", rich_help_panel=_LIMITS)
]
MaxStreams = Annotated[
    int, typer.Option(help="Streams of any kind in a file.", min=1, rich_help_panel=_LIMITS)
]
DecodeTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Wait so long for a look into a file or for a clip's frames, then kill the decoder: 60; 30 in "
        "a batch.",
        rich_help_panel=_LIMITS,
    ),
]
AllowUrl = Annotated[
    bool,
    typer.Option(
        "--allow-url",
        help="Fetch media that are http(s) URLs; the network is not touched without it.",
        rich_help_panel=_LIMITS,
    ),
]
UrlTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="For one URL, altogether.", rich_help_panel=_LIMITS)
]

# Batch: many questions, one model
Batch = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Answer every row of a JSONL file, several clips at once.",
        rich_help_panel=_BATCH,
    ),
]
BatchOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="One JSON line per answer; a run that was cut off goes on.",
        rich_help_panel=_BATCH,
    ),
]
BatchMediaRoot = Annotated[
    Path | None,
    typer.Option(
        "--media-root",
        help="The folder in which the rows' media lie, / for any; default: beside the rows.",
        rich_help_panel=_BATCH,
    ),
]
BatchWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Clips that are decoded at once; default: the cores, at most 4.",
        rich_help_panel=_BATCH,
    ),
]


@dataclass(frozen=True, kw_only=True)
class FileBounds:
    """How much of a file is read at most."""

    max_pixels: MaxPixels = DEFAULT_LIMITS.max_frame_pixels
    max_file_frames: MaxFileFrames = DEFAULT_LIMITS.max_file_frames
    max_file_size: MaxFileSize = FILE_SIZE
    max_streams: MaxStreams = DEFAULT_LIMITS.max_streams
    decode_timeout: DecodeTimeout = None

    def limits(self, *, default_seconds: float = DEFAULT_LIMITS.decode_seconds) -> Limits:
        """The bounds on files. Raises UsageError."""
        return Limits(
            max_frame_pixels=self.max_pixels,
            max_file_frames=self.max_file_frames,
            max_file_bytes=parse_size(self.max_file_size),
            max_streams=self.max_streams,
            decode_seconds=default_seconds if self.decode_timeout is None else self.decode_timeout,
        )


@dataclass(frozen=True, kw_only=True)
class Bounds(FileBounds):
    """How much is read at most, and from where."""

    allow_url: AllowUrl = False
    url_timeout: UrlTimeout = URL_SECONDS

    def urls(self) -> dict[str, Any]:
        """What ``open_media`` must know of the network."""
        return {"allow_url": self.allow_url, "url_seconds": self.url_timeout}


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Many questions, one model."""

    batch: Batch = None
    output: BatchOutput = None
    media_root: BatchMediaRoot = None
    workers: BatchWorkers = None


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """Which questions, how they are scored, and where the results go."""

    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Our JSONL, or a local copy of a benchmark, file or folder, in its published format.",
            rich_help_panel=_QUESTIONS,
        ),
    ]
    task: Annotated[
        str | None,
        typer.Option(
            help=f"Which data set it is, where content does not tell: {BENCHMARKS}.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None
    media_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the media lie, found by name or id in any folder below; default: beside the data.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many questions.", rich_help_panel=_QUESTIONS)
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Questions answered together; halved where memory runs out. Answers stay the same.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = 1
    workers: BatchWorkers = None
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="Ask every question without its media, too, and score that beside.",
            rich_help_panel=_SCORES,
        ),
    ] = False
    judge_scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What a judge said to FILE.judge.jsonl: JSON lines of request, pred (yes, no) and score.",
            rich_help_panel=_SCORES,
        ),
    ] = None
    max_failed: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Exit code 10 where a larger share of the questions has no answer.",
            rich_help_panel=_SCORES,
        ),
    ] = 0.0
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
    ]
    overwrite: Overwrite = False
