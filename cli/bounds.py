"""The options on how much is read at most, and on many questions at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vidllava.media.limits import DEFAULT_LIMITS, Limits, parse_size
from vidllava.media.sources import URL_SECONDS

_LIMITS, _BATCH = "Limits", "Batch"
FILE_SIZE = "64G"

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
