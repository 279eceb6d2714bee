"""The end of ``vidllava eval``: the file in order, its summary, what a judge or a server gets, a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli.console import Console
from vidllava.errors import VidllavaError
from vidllava.evaluation.answer_file import AnswerFile
from vidllava.evaluation.judge import Verdict, requests
from vidllava.evaluation.summary import ANSWERED, STATUSES, Cell, Share, Summary
from vidllava.files.identity import media_identity
from vidllava.files.json_log import read_log
from vidllava.files.writing import write_json, write_text

if TYPE_CHECKING:
    from vidllava.cli.eval_run import Checked, Command

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
    from vidllava.evaluation import results

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
