"""What ``vidllava eval`` does: everything checked, then torch, then the questions that have no answer yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli import bounds
from vidllava.cli.batch import ManyAsker, ManyFlags
from vidllava.cli.console import Console
from vidllava.errors import PartialFailure, UsageError, VidllavaError
from vidllava.evaluation.engine import ANSWERED, Batch, PlannedRow, is_answers
from vidllava.evaluation.item import EvalItem, Record
from vidllava.evaluation.judge import read_scores, requests
from vidllava.evaluation.ranks import Ranks
from vidllava.evaluation.read import EvalSet, read_set
from vidllava.evaluation.summary import (
    COLUMNS,
    Share,
    Summary,
    Tally,
    blind_summarised,
    in_order,
    submission,
    summarised,
    summary_json,
)
from vidllava.files.identity import media_identity
from vidllava.files.json_log import read_log
from vidllava.files.writing import refuse_inputs, write_json, write_text

if TYPE_CHECKING:
    from vidllava.backbone.ahead import Plan
    from vidllava.evaluation.answering import Answerer
    from vidllava.evaluation.asking import Ready


class EvalAsker(ManyAsker[EvalItem]):
    """Labelled questions, several together where ``--batch-size`` says so, and blind too where asked for."""

    blind = False
    answerer: Answerer | None = None
    total = unfamiliar = 0

    def planner(self) -> Plan[EvalItem]:
        """See ``Asker``."""
        from vidllava.backbone.tokens import read_codec
        from vidllava.evaluation.asking import Planner

        self.planning = Planner(self.settings, read_codec(self.checkpoint), self.asked)
        return self.planning.plan

    def begin(self, total: int, ranks: Ranks) -> None:
        """See ``Asker``."""
        super().begin(total, ranks)
        # A set is measured whatever it shows; rows and the end say where the model knows nothing of it.
        self.backbone.asked_by_name = True
        self.total = total
        from vidllava.evaluation.answering import Answerer

        self.answerer = Answerer(self.backbone, self.planning, self.chosen, **self.seeing)

    def answer(self, asked: Sequence[PlannedRow[EvalItem]]) -> list[Record | VidllavaError]:
        """See ``Asker``."""
        from vidllava.evaluation.asking import Ready, Reply, answered, with_blind

        assert self.answerer is not None  # begin comes first
        ready = [Ready(one.row, one.prepared.question, one.prepared) for one in asked]
        replies = self.answerer.answer(ready)
        lines: list[Record | VidllavaError] = [
            answered(one.row, one.number, reply, {"ahead": one.prepared.seconds})
            if isinstance(reply, Reply)
            else reply
            for one, reply in zip(asked, replies, strict=True)
        ]
        if self.blind:  # the only place where a question is asked without its media: its line says so
            seen = [(place, line) for place, line in enumerate(lines) if isinstance(line, dict)]
            words = [self._without_media(ready[place]) for place, _ in seen]
            for (place, line), reply in zip(seen, self.answerer.answer(words), strict=True):
                lines[place] = with_blind(line, ready[place].item, reply)
        return lines

    def _without_media(self, one: Ready) -> Ready:
        return replace(one, question=self.planning.blind(one.item, one.question))

    def failed(self, number: int, item: EvalItem, status: str, fault: Exception) -> Record:
        """See ``Asker``."""
        from vidllava.evaluation.asking import failed

        return failed(item, number, status, fault)

    def done(self, record: Record) -> None:
        """See ``Asker``."""
        from vidllava.backbone.familiarity import UNFAMILIAR

        super().done(record)
        self.unfamiliar += any(UNFAMILIAR in note for note in record.get("notes") or ())

    def tell_end(self) -> None:
        """Say what the answers of this process must be read with."""
        if self.unfamiliar:
            what = f"are about media that look like nothing that {self.shown} was trained on"
            number = f"{self.unfamiliar} of {self.total} questions"
            self.console.warn(f"{number} {what}: do not rely on their answers")
        largest = None if self.answerer is None else self.answerer.largest
        if largest is not None:
            self.console.warn(f"memory ran out: at most {largest} questions were answered together")


def run(evaluating: bounds.Evaluating, console: Console, **many: Any) -> None:
    """Answer, score and report; ``many``: the other fields of ``ManyFlags``.

    Raises PartialFailure past ``--max-failed``.
    """
    output, scores = evaluating.output, evaluating.judge_scores
    verdicts = {} if scores is None else read_scores(scores)
    ranks = Ranks.of_environment()
    console = console if ranks.is_first else Console(quiet=True)
    overwrite, workers = evaluating.overwrite, evaluating.workers
    flags = ManyFlags(output=output, overwrite=overwrite, workers=workers, **many)
    found, asker, batch = _checked(evaluating, flags, console)
    with ranks, batch.answered(asker, ranks, console) as answers:
        if answers is None:
            return
        asker.tell_end()
        final = in_order(answers.records, found.items, batch.keys, verdicts)
        answers.file.replace(final)
        report(final, found, evaluating, asker, batch, console)
    failed = sum(one["status"] not in ANSWERED for one in final)
    if failed > evaluating.max_failed * len(final):
        what = f"{failed} of {len(final)} questions have no answer"
        hint = "their rows say why; the same command tries them again, --max-failed SHARE allows some"
        raise PartialFailure(output, what, hint)


def _checked(
    evaluating: bounds.Evaluating, flags: ManyFlags, console: Console
) -> tuple[EvalSet, EvalAsker, Batch[EvalItem]]:
    """Everything that can be told without torch. Raises what is wrong with it."""
    asked, chosen = flags.asked, flags.chosen
    data, output = evaluating.data, evaluating.output
    if evaluating.batch_size > 1 and chosen.temperature > 0:
        what = "with --batch-size above 1: answers would depend on what is asked beside"
        raise UsageError("--temperature", what, "--temperature 0, or --batch-size 1")
    if output.is_dir():
        raise UsageError(f"--output {output}", "is a folder", "give a file name")
    refuse_inputs("--output", output, [data], what="is the file of the questions")
    scores = evaluating.judge_scores
    _refuse_inputs(evaluating, [data, *([scores] if scores else [])])
    found = read_set(data, task=evaluating.task, media_root=evaluating.media_root, limit=evaluating.limit)
    console.note(f"{data}: {len(found.items)} questions of {found.task.name}")
    for note in found.notes:
        console.warn(note)
    asked = replace(asked, sampling=asked.sampling or found.task.sampling)
    asker = EvalAsker(flags, asked, chosen, console)
    asker.blind = evaluating.blind
    from vidllava.backbone.locate import weights_files

    media = [path for item in found.items for path in (*item.paths, item.subtitles) if path]
    _refuse_inputs(evaluating, [*media, *weights_files(asker.checkpoint)])
    batch = asker.batch(
        found.items,
        [item.id for item in found.items],
        [item.content_key for item in found.items],
        {"task": found.task.name, "blind": evaluating.blind},
        stands=ANSWERED,
        only=True,
        stale=[_beside(output, "summary.json")],
        size=evaluating.batch_size,
    )
    return found, asker, batch


def _refuse_inputs(evaluating: bounds.Evaluating, inputs: Iterable[str | Path]) -> None:
    """Raises UsageError where the answers, or what is written beside them, would replace something else."""
    listed = list(inputs)
    if evaluating.data.is_dir():
        listed += [
            path for path in evaluating.data.iterdir() if evaluating.overwrite and not is_answers(path)
        ]
    refuse_inputs("--output", evaluating.output, listed)
    for path, is_ours in beside(evaluating.output).items():
        refuse_inputs("--output", path, listed)
        if path.exists() and not evaluating.overwrite and not is_ours(path):
            what = "is there, is not of an evaluation, and would be replaced"
            raise UsageError(
                f"--output {evaluating.output}: {path.name}", what, "another name, or --overwrite"
            )


_HEADS = ("", "all", *(status.replace("_", " ") for status in COLUMNS), "of answered", "95 %", "of all")


def report(
    final: Sequence[Record],
    found: EvalSet,
    evaluating: bounds.Evaluating,
    asker: EvalAsker,
    batch: Batch[EvalItem],
    console: Console,
) -> None:
    """Write what stands beside the answers, and show the table."""
    output = evaluating.output
    asked = requests(final, found.items)
    if asked:
        path = _beside(output, "judge.jsonl")
        write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in asked))
        console.note(f"{path}: {len(asked)} requests to a judge; its words come back with --judge-scores")
    if found.task.submission and any(item.answer is None for item in found.items):
        path = _beside(output, "submission.json")
        write_json(path, submission(final))
        console.note(f"{path}: the answers, for the benchmark's server")
    summary = {**summary_json(final, found.task), **_conditions(evaluating, asker, batch.settings)}
    write_json(_beside(output, "summary.json"), summary)
    if console.quiet:
        return
    for line in table(summarised(final), blind_summarised(final)):
        console.reply(line)
    noted = sum(bool(one.get("notes")) for one in final)
    if noted:
        what = "something about their media is noted in their rows"
        console.warn(f"{noted} of {len(final)} questions: {what}")
    for note, number in summary["why_unscored"].items():
        console.note(f"{number} answers have no score: {note}")
    mean = summary.get("mean_over")
    if mean is not None and mean["mean"] is not None:
        console.note(f"mean over {mean['values']} values of {mean['group']}: {mean['mean']:.1%}")


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
        return None if {"request", "messages"} <= set(record) and "pred" not in record else "is not a request"

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


def _conditions(evaluating: bounds.Evaluating, asker: EvalAsker, settings: str) -> dict[str, Any]:
    """What the result hangs on: the data, the settings, the versions, the machine."""
    import torch

    from vidllava.backbone.load import choose_device
    from vidllava.bench.rows import conditions, moment

    weights, data = asker.flags.weights, evaluating.data
    device, _ = choose_device(weights.device)
    files = [data] if data.is_file() else sorted(path for path in data.iterdir() if path.is_file())
    return {
        "model": asker.shown,
        "data": {"path": str(data), "files": {path.name: media_identity(path) for path in files}},
        "settings_key": settings,
        "settings": {
            "planning": asdict(asker.asked),
            "answering": asdict(asker.chosen),
            "weights": asdict(weights),
            **{name: getattr(evaluating, name) for name in ("batch_size", "limit", "blind")},
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


def _cells(cell: Tally) -> tuple[str, ...]:
    answered, counts = cell.answered, (cell.total, *(cell.statuses[status] for status in COLUMNS))
    return (*(str(count) for count in counts), _percent(answered), _interval(answered), _percent(cell.of_all))


def _percent(share: Share) -> str:
    return "-" if share.mean is None else f"{share.mean:.1%}"


def _interval(share: Share) -> str:
    if share.low is None or share.high is None:
        return "-"
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}"
