"""``vidllava data``: checks a data set before training and shows what it holds.

    vidllava data check train.jsonl --media-root media -o good.jsonl
    vidllava data stats mixture.yaml --model onevision-0.5b

No weights and no torch: rows are parsed, media headers read, and tokens counted as training will count them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vidllava.cli import bounds, options, outputs
from vidllava.cli.console import Console, counted
from vidllava.cli.data_report import CheckProgress, Lister, RowWriter, place_of, show_summary
from vidllava.cli.options import spread
from vidllava.cli.training import Reading
from vidllava.errors import DatasetError, UsageError
from vidllava.files.writing import refuse_inputs

if TYPE_CHECKING:
    from vidllava.data.check import Checker, DataSummary
    from vidllava.data.load import Loading, Part

HELP = """Check data sets before training; say what is in them.

A row is one JSON object: a line of a .jsonl, or an entry of the list in a .json.

\b
%(formats)s

\b
One <image> or <video> stands in the text for each file, in order. A folder
of pictures is a video of as many pictures a second as "fps" says. An answer
with "weight": 0 (or "loss": false) is read and not learned. An "id" may not
come twice. Files are named relative to --media-root and lie within it.
A row may have a "system" line, and pairs of question and answer as its
"history". A key that other formats know and that cannot be followed (tools,
audios, objects, rejected, ...) refuses its row; keys that no format knows are
named once per file.

\b
A mixture .yaml takes parts of several files:
datasets:
  - json_path: pictures.json       # relative to the .yaml
    sampling_strategy: random:30%  # all, first:N, end:N, random:N
    weight: 2                      # drawn twice an epoch
    media_root: coco
"""


class _Group(TyperGroup):
    """Fills the row formats into the help text, whose modules no other command needs."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.help = help_text()
        super().format_help(ctx, formatter)


def help_text() -> str:
    """The help of the command, with an example row of every format."""
    from vidllava.data.formats import examples

    return HELP.replace("%(formats)s", examples())


app = typer.Typer(cls=_Group, no_args_is_help=True, help=HELP)
_CHECK = "Check"

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Rows as .json or .jsonl (also {a,b}.json), or a mixture .yaml.",
        show_default=False,
    ),
]
MediaRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the pictures and clips; the data file's by default.", rich_help_panel=_CHECK
    ),
]
Decode = Annotated[
    bool,
    typer.Option(
        "--decode",
        help="Decode the planned frames and the pictures, instead of reading headers only; "
        "damage that training would go on with is noted.",
        rich_help_panel=_CHECK,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Files looked into at once; default: the cores, at most 4.", rich_help_panel=_CHECK
    ),
]


@app.command("check")
@spread
def check(
    files: Files,
    *,
    media_root: MediaRoot = None,
    decode: Decode = False,
    workers: Workers = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the good rows there, as they are, one a line.",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    model: options.Model = "auto",
    revision: options.Revision = None,
    planning: Reading,
    reading: bounds.FileBounds,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="A JSON line for each bad row, the summary last.", rich_help_panel="Output"
        ),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """List every row that cannot be trained on, by file, row and reason. Exit code 4 if there are any.

    \b
    vidllava data check train.jsonl --media-root media
    vidllava data check mixture.yaml --model onevision-0.5b --num-frames 32 --json
    vidllava data check train.jsonl --decode --workers 8 --decode-timeout 20 -o good.jsonl
    """
    console = Console(quiet=quiet, carries_on=output is not None)
    if output is not None:
        if len(files) > 1:
            raise UsageError(
                "-o", f"takes the good rows of one file, not of {len(files)}", "check one by one"
            )
        outputs.check_file("-o", output, overwrite=overwrite, inputs=files)
    asked = _Asked(files, media_root, decode, workers, output, model, revision, planning, reading)
    summary = _look(asked, console, as_json=as_json, listed=True)
    if as_json:
        console.json({"summary": summary.to_json()})
    else:
        show_summary(summary, console.reply if not quiet else _nothing)
    if summary.num_bad:
        what = f"{summary.num_bad} of {counted(summary.num_rows, 'row')} cannot be used"
        raise DatasetError(
            ", ".join(files), what, f"{output} has the others" if output else "-o FILE writes the others"
        )


@app.command("stats")
@spread
def stats(
    files: Files,
    *,
    media_root: MediaRoot = None,
    workers: Workers = None,
    model: options.Model = "auto",
    revision: options.Revision = None,
    planning: Reading,
    reading: bounds.FileBounds,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rows of each modality, a histogram of their tokens, and how many do not fit. Bad rows are only counted.

    \b
    vidllava data stats train.jsonl --media-root media
    vidllava data stats mixture.yaml --model onevision-0.5b --fps 1 --json
    """
    console = Console(quiet=quiet)
    asked = _Asked(files, media_root, False, workers, None, model, revision, planning, reading)
    summary = _look(asked, console, as_json=as_json, listed=False)
    if as_json:
        console.json(summary.to_json(), indent=2)
    else:
        show_summary(summary, console.write)


@dataclass(frozen=True)
class _Asked:
    """What the command line said."""

    files: list[str]
    media_root: Path | None
    decode: bool
    workers: int | None
    output: Path | None
    model: str
    revision: str | None
    planning: Reading
    reading: bounds.FileBounds


def _look(asked: _Asked, console: Console, *, as_json: bool, listed: bool) -> DataSummary:
    """Look at every row; bad ones go to stdout where they shall be ``listed``."""
    limits, planned = asked.reading.limits(), asked.planning.checked()
    from vidllava.cli.frames import known_settings
    from vidllava.data.check import Checker, DataSummary
    from vidllava.data.load import Loading
    from vidllava.data.media_index import Headers, MediaIndex
    from vidllava.data.own_sampler import SamplerPool
    from vidllava.data.token_counter import TokenCounter
    from vidllava.files.cache_folder import CacheFolder

    loading = Loading(media_root=asked.media_root)
    parts = list(_parts(asked.files, loading))  # before the model: a wrong path is the likelier slip
    if asked.output is not None and len(parts) > 1:
        raise UsageError("-o", f"takes the good rows of one file, not of {len(parts)}", "check one by one")
    if asked.output is not None:
        refuse_inputs("-o", asked.output, [part.path for part in parts])
    if any(part.strategy != "all" or part.weight != 1.0 for part in parts):
        console.note("files are looked at as a whole: sampling_strategy and weight are for training")
    counter = TokenCounter(*known_settings(asked.model, asked.revision, console), planned)
    summary = DataSummary(limit_tokens=counter.max_length)
    tell = Lister(console, as_json=as_json) if listed else None
    with (
        MediaIndex(CacheFolder.of_environment(), console.warn) as index,
        SamplerPool(limits, asked.workers) as pool,
    ):
        checker = Checker(counter, Headers(index), pool, decode=asked.decode)
        for part in parts:
            _look_at(part, asked, checker, summary, tell, console)
    return summary


def _parts(files: list[str], loading: Loading) -> Iterator[Part]:
    """Every file of rows once, whichever mixtures name it."""
    from vidllava.data.load import parts_of

    seen = set()
    for name in files:
        for part in parts_of(name, loading):
            root = part.media_root or loading.media_root
            if (part.path.resolve(), root) not in seen:
                seen.add((part.path.resolve(), root))
                yield part


def _look_at(
    part: Part, asked: _Asked, checker: Checker, summary: DataSummary, tell: Lister | None, console: Console
) -> None:
    """Look at the rows of one file."""
    from vidllava.data.records import RecordSource

    name = str(part.path)

    def faulty(row: int, identity: str | None, reason: str) -> None:
        summary.add(None, None, bad=True)
        if tell is not None:
            tell.bad(name, row, identity, reason)

    root = part.media_root or asked.media_root
    source = RecordSource(part.path, root, on_fault=faulty)
    if source.unknown_keys:
        summary.unknown_keys[name] = dict(sorted(source.unknown_keys.items()))
        console.note(str(source.key_note()))
    progress = CheckProgress(console, name, len(source))
    with RowWriter(asked.output) as good:
        for row in checker.rows(source):
            if asked.output is not None:
                refuse_inputs("-o", asked.output, row.files)
            bad = row.reason is not None
            noted = bool(row.notes) and not bad
            summary.add(row.modality, row.num_tokens, bad=bad, too_long=row.too_long, noted=noted)
            if row.reason is None:
                good.write(source.raw(row.index))
                if noted:
                    progress.clear()
                    console.note(f"{place_of(name, row.number, row.id)}: {'; '.join(row.notes)}")
            elif tell is not None:
                progress.clear()
                tell.bad(name, row.number, row.id, row.reason)
            progress.done("ok" if not bad else "bad")
        progress.finish()
    if asked.output is not None:
        note = (
            ""
            if part.path.parent.resolve() == asked.output.parent.resolve()
            else f"; media: {source.root.path}"
        )
        console.note(f"{counted(good.num_rows, 'good row')} written to {asked.output}{note}")


def _nothing(_line: str) -> None:
    """Where nobody wants to hear."""
