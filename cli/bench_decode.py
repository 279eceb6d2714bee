"""``vidllava bench decode``: the sampler against the readers that people use, on clips of theirs or of ours.

vidllava bench decode clip.mp4 --num-frames 8,32
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidllava.cli import options
from vidllava.cli.bench_output import Json, Output, Repeats, RowOutput, show
from vidllava.cli.console import Console
from vidllava.cli.outputs import check_folder
from vidllava.errors import UsageError
from vidllava.files.cache_folder import CacheFolder

_DEFAULT_READERS = "vidllava,vidllava-1-thread,decord,pyav,opencv,torchcodec"


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
    """How long do a clip's frames take, by our sampler and by others, and are they the right ones?

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


def whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    """``8,32`` -> (8, 32), each once. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 20 and int(word) > 0 for word in words):
        raise UsageError(f"{flag} {text}", "must be whole numbers above 0 with commas", "for example 8,32")
    return tuple(dict.fromkeys(int(word) for word in words))
