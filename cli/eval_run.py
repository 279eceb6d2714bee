"""What ``vidllava eval`` does: everything checked, then torch, then the questions that have no answer yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli import bounds, outputs
from vidllava.cli.asking import Answering, Asking, Seeing, Weights
from vidllava.cli.batch import DECODE_SECONDS, MAX_WORKERS, settings_key
from vidllava.cli.console import Console
from vidllava.cli.progress import BatchProgress
from vidllava.errors import PartialFailure, UsageError, VidllavaError
from vidllava.evaluation.answer_file import AnswerFile, is_answers, read_answers, standing
from vidllava.evaluation.judge import Verdict, read_scores, requests
from vidllava.evaluation.ranks import Ranks, parts
from vidllava.evaluation.read import EvalSet, read_set
from vidllava.evaluation.summary import ANSWERED, STATUSES, Cell, Share, Summary
from vidllava.files.identity import media_identity
from vidllava.files.json_log import read_log
from vidllava.files.writing import refuse_inputs, write_json, write_text

if TYPE_CHECKING:
    from vidllava.backbone.settings import GenerateOptions
    from vidllava.evaluation.run import Batch
    from vidllava.visuals.question import AskOptions


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line said."""

    data: Path
    task: str | None
    media_root: Path | None
    limit: int | None
    batch_size: int
    workers: int | None
    blind: bool
    judge_scores: Path | None
    max_failed: float
    output: Path
    overwrite: bool
    asking: Asking
    seeing: Seeing
    weights: Weights
    answering: Answering
    reading: bounds.FileBounds


@dataclass(frozen=True)
class Checked:
    """What is known before torch is imported."""

    found: EvalSet
    keys: tuple[str, ...]
    asked: AskOptions
    chosen: GenerateOptions
    shown: str
    checkpoint: Path
    settings: str

    @property
    def stamp(self) -> dict[str, str]:
        """What stands in every record."""
        return {"model": self.shown, "settings": self.settings}

    @property
    def ids(self) -> dict[str, str]:
        """The id of each question by its key."""
        return {key: item.id for key, item in zip(self.keys, self.found.items, strict=True)}


def run(command: Command, console: Console) -> None:
    """Answer, score and report. Raises PartialFailure past ``--max-failed``."""
    verdicts = {} if command.judge_scores is None else read_scores(command.judge_scores)
    ranks = Ranks.of_environment()
    console = console if ranks.is_first else Console(quiet=True)
    checked = _checked(command, console)
    with ranks:
        if not ranks.is_first:
            _other_process(command, checked, ranks, console)
            return
        with AnswerFile(
            command.output,
            model=checked.shown,
            settings=checked.settings,
            asked=checked.ids,
            overwrite=command.overwrite,
            stands=ANSWERED,
            earlier=() if command.overwrite else parts(command.output.absolute()),
            only=True,
        ) as answers:
            try:
                _first_process(command, checked, ranks, answers, console)
            except KeyboardInterrupt:
                console.warn("interrupted: the same command goes on where it stopped")
                raise
            records = [*answers.read(), *_of_parts(command.output, checked)]
            failed = report(command, checked, records, verdicts, answers, console)
            _forget_parts(command.output)
    total = len(checked.found.items)
    if failed > command.max_failed * total:
        what = f"{failed} of {total} questions have no answer"
        hint = "their rows say why; the same command tries them again, --max-failed SHARE allows some"
        raise PartialFailure(command.output, what, hint)


def _checked(command: Command, console: Console) -> Checked:
    """Everything that can be told without torch. Raises what is wrong with it."""
    asked, chosen = command.asking.checked(), command.answering.checked()
    if command.batch_size > 1 and chosen.temperature > 0:
        what = "with --batch-size above 1: answers would depend on what is asked beside"
        raise UsageError("--temperature", what, "--temperature 0, or --batch-size 1")
    if command.output.is_dir():
        raise UsageError(f"--output {command.output}", "is a folder", "give a file name")
    refuse_inputs("--output", command.output, [command.data], what="is the file of the questions")
    _refuse_inputs(command, [command.data, *([command.judge_scores] if command.judge_scores else [])])
    found = read_set(command.data, task=command.task, media_root=command.media_root, limit=command.limit)
    console.note(f"{command.data}: {len(found.items)} questions of {found.task.name}")
    for note in found.notes:
        console.warn(note)
    asked = replace(asked, sampling=asked.sampling or found.task.sampling)
    # Importing it decides nothing and costs a decoder library: only now, after every row was checked.
    from vidllava.media.decode import choose_backend

    choose_backend(asked.video_backend)
    shown, checkpoint = command.weights.locate(asked)
    command.weights.tell_stand_in(shown, console)
    from vidllava.backbone.locate import weights_files
    from vidllava.backbone.settings import read_settings
    from vidllava.visuals.question import check_options

    check_options(read_settings(checkpoint, shown), asked)
    media = [path for item in found.items for path in (*item.paths, item.subtitles) if path]
    _refuse_inputs(command, [*media, *weights_files(checkpoint)])
    outputs.check_folder(command.output.absolute().parent)
    keys = tuple(item.content_key for item in found.items)
    settings = settings_key(
        command.weights,
        asked,
        chosen,
        checkpoint,
        task=found.task.name,
        blind=command.blind,
        reuse_frames=not command.seeing.no_reuse_frames,
    )
    return Checked(found, keys, asked, chosen, shown, checkpoint, settings)


def _refuse_inputs(command: Command, inputs: Iterable[str | Path]) -> None:
    """Raises UsageError where the answers, or what is written beside them, would replace something else."""
    listed = list(inputs)
    if command.data.is_dir():
        listed += [path for path in command.data.iterdir() if command.overwrite and not is_answers(path)]
    refuse_inputs("--output", command.output, listed)
    for path, is_ours in beside(command.output).items():
        refuse_inputs("--output", path, listed)
        if path.exists() and not command.overwrite and not is_ours(path):
            what = "is there, is not of an evaluation, and would be replaced"
            raise UsageError(f"--output {command.output}: {path.name}", what, "another name, or --overwrite")


def _first_process(
    command: Command, checked: Checked, ranks: Ranks, answers: AnswerFile, console: Console
) -> None:
    """The first process, or the only one: it alone writes the file."""
    for note in answers.notes:
        console.warn(note)
    _forget_parts(command.output)
    if answers.done:
        console.note(f"{len(answers.done)} of {len(checked.keys)} questions are answered already")
    _beside(command.output, "summary.json").unlink(missing_ok=True)  # of an earlier state of the file
    ranks.wait()
    if ranks.world == 1:
        _answer(command, checked, ranks, answers, answers.done, console)
    else:
        with _part(command, checked, ranks) as part:
            _answer(command, checked, ranks, part, answers.done, console)
    ranks.wait()


def _other_process(command: Command, checked: Checked, ranks: Ranks, console: Console) -> None:
    ranks.wait()  # the first one takes over what an earlier run has left
    records = read_answers(command.output, checked.stamp).records
    done = frozenset(str(one["key"]) for one in standing(records, checked.ids, ANSWERED))
    with _part(command, checked, ranks) as part:
        _answer(command, checked, ranks, part, done, console)
    ranks.wait()


def _part(command: Command, checked: Checked, ranks: Ranks) -> AnswerFile:
    path, shown, settings = ranks.part(command.output), checked.shown, checked.settings
    return AnswerFile(path, model=shown, settings=settings, asked=checked.ids, overwrite=True)


def _of_parts(output: Path, checked: Checked) -> Iterable[dict[str, object]]:
    for path in parts(output.absolute()):
        yield from read_answers(path, checked.stamp).records


def _forget_parts(output: Path) -> None:
    for path in parts(output.absolute()):
        path.unlink(missing_ok=True)


def _answer(
    command: Command,
    checked: Checked,
    ranks: Ranks,
    answers: AnswerFile,
    done: frozenset[str],
    console: Console,
) -> None:
    """Ask this process's share of what has no answer yet."""
    from vidllava.evaluation.run import batches_of

    batches = batches_of(checked.keys, command.batch_size, done, rank=ranks.rank, world=ranks.world)
    if batches:
        _ask(command, checked, ranks, answers, done, batches, console)


def _ask(
    command: Command,
    checked: Checked,
    ranks: Ranks,
    answers: AnswerFile,
    done: frozenset[str],
    batches: list[Batch],
    console: Console,
) -> None:
    from vidllava.backbone.ahead import Ahead
    from vidllava.backbone.settings import read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.evaluation.plan import Planner
    from vidllava.media.container import num_threads

    items = checked.found.items
    rows = [items[number] for batch in batches for number in batch]
    settings = read_settings(checked.checkpoint, checked.shown)
    planner = Planner(settings, read_codec(checked.checkpoint), checked.asked)
    folder = command.seeing.folder()
    num_missing = sum(checked.keys[number] not in done for batch in batches for number in batch)
    with Ahead(
        rows,
        planner.plan,
        size=settings.image_size,
        num_workers=min(command.workers or min(num_threads(), MAX_WORKERS), len(rows)),
        limits=command.reading.limits(default_seconds=DECODE_SECONDS),
        repeats=folder is None,
    ) as ahead:
        weights = replace(command.weights, device=ranks.device(command.weights.device))
        backbone, _ = weights.load(checked.shown)
        # A set is measured whatever it shows; rows and the end say where the model knows nothing of it.
        backbone.asked_by_name = True
        from vidllava.backbone.feature_cache import FeatureCache
        from vidllava.evaluation.answering import Answerer
        from vidllava.evaluation.run import evaluate

        ahead.torch_is_here.set()
        answerer = Answerer(
            backbone,
            planner,
            checked.chosen,
            cache=None if folder is None else FeatureCache(backbone, folder),
            reuse_frames=not command.seeing.no_reuse_frames,
        )

        unfamiliar: list[str] = []
        evaluate(
            items,
            batches,
            ahead,
            answerer=answerer,
            answers=answers,
            done=done,
            planner=planner if command.blind else None,
            on_done=_telling(BatchProgress(console, num_missing), console, unfamiliar),
        )
        if unfamiliar:
            what = f"are about media that look like nothing that {checked.shown} was trained on"
            console.warn(f"{len(unfamiliar)} of {num_missing} questions {what}: do not rely on their answers")
        if answerer.largest is not None:
            console.warn(f"memory ran out: at most {answerer.largest} questions were answered together")


def _telling(
    progress: BatchProgress, console: Console, unfamiliar: list[str]
) -> Callable[[dict[str, Any]], None]:
    """Says of each line that it is on disk; ids of those about unfamiliar media go into ``unfamiliar``."""
    from vidllava.backbone.familiarity import UNFAMILIAR

    def told(record: dict[str, Any]) -> None:
        progress.done("ok" if record["status"] in ANSWERED else "failed")
        if record["error"] is not None:
            console.detail(f"{record['id']}: {record['error']}")
        if any(UNFAMILIAR in note for note in record.get("notes") or ()):
            unfamiliar.append(record["id"])

    return told


Record = dict[str, Any]
_HEADS = ("", "all", *(status.replace("_", " ") for status in STATUSES), "of answered", "95 %", "of all")


def report(
    command: Command,
    checked: Checked,
    records: Sequence[Record],
    verdicts: Mapping[str, Verdict],
    answers: AnswerFile,
    console: Console,
) -> int:
    """Write everything; how many questions have no answer."""
    from vidllava.evaluation import summary as results

    items, output = checked.found.items, command.output
    final = results.in_order(records, items, checked.keys, verdicts)
    answers.replace(final)
    asked = requests(final, items)
    if asked:
        path = _beside(output, "judge.jsonl")
        write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in asked))
        console.note(f"{path}: {len(asked)} requests to a judge; its words come back with --judge-scores")
    if checked.found.task.submission and any(item.answer is None for item in items):
        path = _beside(output, "submission.json")
        write_json(path, results.submission(final))
        console.note(f"{path}: the answers, for the benchmark's server")
    found = {**results.summary_json(final, checked.found.task), **_conditions(command, checked)}
    write_json(_beside(output, "summary.json"), found)
    seen = results.summarised(final)
    if not console.quiet:
        for line in table(seen, results.blind_summarised(final)):
            console.reply(line)
        noted = sum(bool(one.get("notes")) for one in final)
        if noted:
            console.warn(
                f"{noted} of {len(final)} questions: something about their media is noted in their rows"
            )
        for note, number in found["why_unscored"].items():
            console.note(f"{number} answers have no score: {note}")
        if "mean_over" in found and found["mean_over"]["mean"] is not None:
            mean = found["mean_over"]
            console.note(f"mean over {mean['values']} values of {mean['group']}: {mean['mean']:.1%}")
    return sum(one["status"] not in ANSWERED for one in final)


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.name}.{ending}")


def beside(output: Path) -> dict[Path, Callable[[Path], bool]]:
    """The files that may be written beside the answers, each with a test whether it is of an evaluation."""
    return {
        _beside(output, "judge.jsonl"): _are_requests,
        _beside(output, "submission.json"): _is_submission,
        _beside(output, "summary.json"): _is_summary,
    }


def _are_requests(path: Path) -> bool:
    def check(record: Record) -> str | None:
        return None if {"request", "messages"} <= set(record) and "pred" not in record else "is no request"

    try:
        return read_log(path, check).end == "whole"
    except VidllavaError:
        return False


def _is_submission(path: Path) -> bool:
    found = _object(path)
    return found is not None and all(isinstance(value, int) for value in found.values())


def _is_summary(path: Path) -> bool:
    return {"task", "settings_key", "conditions"} <= set(_object(path) or ())


def _object(path: Path) -> Record | None:
    """The JSON object that a file holds; None where it holds something else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _conditions(command: Command, checked: Checked) -> dict[str, Any]:
    """What the result hangs on: the data, the settings, the versions, the machine."""
    import torch

    from vidllava.backbone.load import choose_device
    from vidllava.bench.conditions import conditions, moment

    device, _ = choose_device(command.weights.device)
    data = command.data
    files = [data] if data.is_file() else sorted(path for path in data.iterdir() if path.is_file())
    return {
        "model": checked.shown,
        "data": {"path": str(data), "files": {path.name: media_identity(path) for path in files}},
        "settings_key": checked.settings,
        "settings": {
            "planning": asdict(checked.asked),
            "answering": asdict(checked.chosen),
            "weights": asdict(command.weights),
            "batch_size": command.batch_size,
            "limit": command.limit,
            "blind": command.blind,
        },
        "conditions": {**conditions(device, threads=torch.get_num_threads()), **moment(device)},
    }


def table(seen: Summary, blind: Summary | None) -> list[str]:
    """Lines of text that read without colour: all questions, then each group of them."""
    rows: list[tuple[str, ...]] = [_HEADS, ("questions", *_cells(seen.overall))]
    if blind is not None:
        rows.append(("  without media", *_cells(blind.overall)))
    for name, cells in seen.groups.items():
        if len(cells) < 2:
            continue
        rows.append((name, *[""] * (len(_HEADS) - 1)))
        for value, cell in cells.items():
            rows.append((f"  {value}", *_cells(cell)))
            beside = None if blind is None else blind.groups.get(name, {}).get(value)
            if beside is not None:
                rows.append(("    without media", *_cells(beside)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    name, *numbers = row
    return [
        name.ljust(widths[0]),
        *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)),
    ]


def _cells(cell: Cell) -> tuple[str, ...]:
    answered, counts = cell.answered, (cell.total, *(cell.statuses[status] for status in STATUSES))
    return (*(str(count) for count in counts), _percent(answered), _interval(answered), _percent(cell.of_all))


def _percent(share: Share) -> str:
    return "-" if share.mean is None else f"{share.mean:.1%}"


def _interval(share: Share) -> str:
    if share.low is None or share.high is None:
        return "-"
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}"
