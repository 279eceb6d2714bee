"""``vidllava bench frames`` at work: questions, model, rows on disk at once, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidllava.bench.frames.request import FramesRequest
from vidllava.bench.rows import Row, RowLog
from vidllava.cli.asking import Weights
from vidllava.cli.bench_output import open_measured, show
from vidllava.cli.console import Console, counted
from vidllava.cli.outputs import check_folder
from vidllava.cli.progress import BatchProgress
from vidllava.errors import PartialFailure, UsageError
from vidllava.files.writing import refuse_inputs
from vidllava.prompting.layout import NewlineMode, pooled_side

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone
    from vidllava.bench.frames.measure import Sweep
    from vidllava.evaluation.item import EvalItem
    from vidllava.media.timeline import Sampling
    from vidllava.visuals.options import AskOptions
    from vidllava.visuals.planner import ModelSettings

ROWS = "rows.jsonl"
_STANDING = ("ok", "unparsed", "over_budget")  # a file that could not be read is tried again


@dataclass(frozen=True)
class SweepSource:
    """Where the questions come from."""

    data: Path | None
    task: str | None
    media_root: Path | None
    media: tuple[str, ...]
    question: str
    limit: int | None

    @property
    def name(self) -> str:
        """For people."""
        return (
            self.data.name if self.data is not None else counted(len(self.media), "clip") + " without labels"
        )

    def read(self, console: Console) -> tuple[EvalItem, ...]:
        """Raises UsageError, DatasetError."""
        from vidllava.evaluation.item import EvalItem
        from vidllava.evaluation.read import read_set
        from vidllava.media.probe import media_kind

        if (self.data is None) == (not self.media):
            raise UsageError("bench frames", "needs either --data or --media", "--data long.jsonl")
        if self.data is None:
            for flag, value in (("--task", self.task), ("--media-root", self.media_root)):
                if value is not None:
                    raise UsageError(flag, "is for --data", f"leave out {flag}")
            for path in self.media:
                media_kind(path)
            made = [
                EvalItem(
                    id=str(row),
                    row=row,
                    media=(path,),
                    paths=(path,),
                    question=self.question,
                    prompt=self.question,
                    scoring="exact",
                )
                for row, path in enumerate(self.media, start=1)
            ]
            return tuple(made[: self.limit])
        found = read_set(self.data, task=self.task, media_root=self.media_root, limit=self.limit)
        for note in found.notes:
            console.warn(note)
        _refuse(found.items, self.data)
        return found.items


def _refuse(items: Sequence[EvalItem], data: Path) -> None:
    for item in items:
        if item.earlier or item.subtitles is not None:
            what = f"question {item.id} has " + ("earlier questions" if item.earlier else "subtitles")
            raise UsageError(str(data), f"{what}, which a sweep does not ask", "another set")


@dataclass(frozen=True)
class Planning:
    """What holds for every cell."""

    preset: str | None
    newline_mode: NewlineMode | None
    context_limit: int | None
    sampling: Sampling | None = None

    def options(self) -> AskOptions:
        """As a question takes them."""
        from vidllava.visuals.options import AskOptions

        return AskOptions(**vars(self))


def run(
    request: FramesRequest,
    source: SweepSource,
    planning: Planning,
    weights: Weights,
    kind: Literal["checkpoint", "random"],
    output_dir: Path,
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Measure what is missing and write the report; Ctrl-C leaves what is finished, and a report of it."""
    console = Console(quiet=quiet)
    base = planning.options()
    shown, settings = _settings(weights, kind, base, console)
    request = _checked(request, settings, base)
    items = source.read(console)
    check_folder(output_dir, "--output-dir")
    _check_outputs(source, items, output_dir, overwrite=overwrite)
    with ExitStack() as stack:
        file = stack.enter_context(
            RowLog(
                output_dir / ROWS,
                overwrite=overwrite,
                fields=("key", "cell", "status"),
                stands=lambda row: row["status"] in _STANDING,
            )
        )
        from vidllava.bench.frames.measure import Sweep
        from vidllava.media.worker import WorkerSampler

        sampler = stack.enter_context(WorkerSampler())
        backbone, told = _open(shown, weights, kind)
        sweep = Sweep(backbone, request, items, base=base, told={**told, "set": source.name}, sampler=sampler)
        _measure(sweep, file, output_dir, console)


def _settings(weights: Weights, kind: str, base: AskOptions, console: Console) -> tuple[str, ModelSettings]:
    """The model's name and sizes, without its weights. Raises ModelError, UsageError."""
    from vidllava.backbone.settings import named_settings, read_settings
    from vidllava.errors import ModelError

    try:
        shown, folder = weights.locate(base)
        weights.tell_stand_in(shown, console)
    except ModelError:
        from vidllava.models import named_models

        if kind == "random" and weights.model in named_models():
            return weights.model, named_settings(weights.model)
        raise
    return shown, read_settings(folder, shown)


def _checked(request: FramesRequest, settings: ModelSettings, base: AskOptions) -> FramesRequest:
    """The request, with the model's own pooling where none is named. Raises UsageError."""
    from vidllava.visuals.question import visual_planner

    pooling = visual_planner(settings, base).pooling
    request = request.completed(pool_stride=pooling.stride, pool_mode=pooling.mode)
    for cell in request.cells:
        pooled_side(settings.side, stride=cell.pool_stride, mode=cell.pool_mode)
    return request


def _check_outputs(source: SweepSource, items: Sequence[EvalItem], folder: Path, *, overwrite: bool) -> None:
    """Raises UsageError where a file would replace an input, or, without rows of a sweep, somebody else's."""
    from vidllava.bench.frames.output import CELLS, REPORT, TABLE

    inputs = [path for item in items for path in item.paths] + ([str(source.data)] if source.data else [])
    rows = folder / ROWS
    is_new = not rows.exists() or rows.stat().st_size == 0
    written = [folder / name for name in (CELLS, TABLE, REPORT)]
    for path in (rows, *written, *folder.glob("*.png")):
        refuse_inputs("--output-dir", path, inputs)
    for path in written:
        if is_new and path.exists() and not overwrite:
            what = f"exists, and {ROWS}, which it would be made of, does not"
            raise UsageError(f"--output-dir {path}", what, "another folder, or --overwrite")


def _open(
    shown: str, weights: Weights, kind: Literal["checkpoint", "random"]
) -> tuple[Backbone, dict[str, Any]]:
    """The model, and what stands in every row."""
    from vidllava.cli import startup

    with startup.collector_paused():
        from vidllava.evaluation.memory import method
    backbone, told = open_measured(shown, weights, kind)
    return backbone, told | {
        "weights_stamp": _stamp(backbone, kind),
        "memory_method": method(backbone.device),
    }


def _stamp(backbone: Backbone, kind: str) -> str | None:
    """The identity of the weights: of their whole content, an adapter's bases included."""
    from vidllava.backbone.locate import weights_identity

    folder = backbone.settings.folder
    return None if kind == "random" or folder is None else weights_identity(folder)


def _measure(sweep: Sweep, file: RowLog, output_dir: Path, console: Console) -> None:
    keys = sweep.keys
    standing: dict[str, Row] = {row["key"]: row for row in file.rows if row["key"] in file.done}
    cells = counted(len(sweep.request.cells), "cell")
    console.note(f"{counted(len(sweep.items), 'question')} in {cells}, {counted(len(keys), 'row')}")
    if stand := sum(key in standing for key in keys):
        console.note(f"{stand} of them stand in {file.path} and are not measured again")
    if others := len({str(row["key"]) for row in file.rows} - set(keys)):
        what = "of other settings, media or weights, or of an earlier version"
        console.note(f"{counted(others, 'row')} there are {what}: they stay, and the report is without them")
    progress = BatchProgress(console, len(keys) - stand)
    found = dict(standing)
    try:
        for row in sweep.rows(standing):
            if row is None:
                continue
            file.append(row)
            found[row["key"]] = row
            progress.done("ok" if row["status"] in _STANDING else row["status"])
    finally:
        wanted = [found[key] for key in keys if key in found]
        _tell(sweep, wanted, output_dir, console)
    unread = {row["id"] for row in wanted if row["status"] in ("decode_error", "usage_error")}
    if unread:
        what = f"{counted(len(unread), 'question')} of {len(sweep.items)} could not be asked in some cell"
        raise PartialFailure(
            output_dir, what, f"their rows in {ROWS} say why; the same command tries them again"
        )


def _tell(sweep: Sweep, rows: list[Row], output_dir: Path, console: Console) -> None:
    saved = sweep.saved
    if saved.asked:
        console.note(
            f"{saved.asked} frames in cells that share: {saved.decoded} decoded, {saved.encoded} encoded"
        )
    if not rows:
        return
    from vidllava.bench.frames.output import write_all

    written = write_all(rows, sweep.request, output_dir)
    show(console, written.table, written.legend)
    for line in written.advice:
        console.note(line)
    console.note(f"report: {output_dir / 'report.html'}")
