"""``vidllava eval``: the signature; what it does is in ``eval_run``.

vidllava eval --data long.jsonl --output results.jsonl
"""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand, TyperOption

from vidllava import registry
from vidllava.cli import bounds, options
from vidllava.cli.asking import Seeing, Weights
from vidllava.cli.console import Console
from vidllava.cli.options import spread
from vidllava.visuals.options import AskOptions, GenerateOptions


class EvalCommand(TyperCommand):
    """The command; its help names the data sets that are there, and they are looked for only then."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See ``TyperCommand``."""
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "task" and parameter.help:
                parameter.help = parameter.help.replace(bounds.BENCHMARKS, ", ".join(task_names()))
        super().format_help(ctx, formatter)


def task_names() -> list[str]:
    """The benchmarks by name, the general one last, without what their modules import."""
    texts = registry.sources("vidllava.evaluation.benchmarks")
    found = [name for text in texts for name in re.findall(r'\bTask\(\s*"([^"]+)"', text)]
    added = [task.name for each in registry.plugins() for task in getattr(each, "TASKS", ())]
    return sorted([*found, *added], key="own".__eq__)


@spread
def evaluate(
    *,
    evaluating: bounds.Evaluating,
    asked: AskOptions,
    seeing: Seeing,
    weights: Weights,
    chosen: GenerateOptions,
    reading: bounds.FileBounds,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Score a model on labelled questions.

    Each question gets a status: ok, unparsed, decode_error, usage_error, over_budget or oom.
    What could not be read or does not fit is never answered, and is a column of the result. Accuracy has
    a 95 % interval, in all, by category and by duration. Flags on frames are for the rows that they fit.
    Under torchrun or accelerate launch the questions are shared out; the result is the same.

    \b
    vidllava eval --data long.jsonl --output results.jsonl --blind
    vidllava eval --model onevision-7b --data Video-MME --media-root videos --num-frames 32 -o videomme.jsonl
    accelerate launch -m vidllava.cli.main eval --data MVBench/json --media-root MVBench/video -o mv.jsonl
    """
    from vidllava.cli.eval_run import run

    many = {"asked": asked, "seeing": seeing, "weights": weights, "chosen": chosen}
    run(evaluating, Console(quiet=quiet, verbose=verbose), reading=reading, **many)
