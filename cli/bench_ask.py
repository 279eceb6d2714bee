"""``vidllava bench ask``: what an answer costs, first and again, and with transformers' own model.

vidllava bench ask clip.mp4 --num-frames 16
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidllava.cli import options
from vidllava.cli.asking import Weights
from vidllava.cli.bench_output import Json, Output, Repeats, RowOutput, show
from vidllava.cli.console import Console
from vidllava.cli.options import option_of, spread
from vidllava.cli.words import named_question, text_option
from vidllava.errors import UsageError
from vidllava.visuals.options import AskOptions, GenerateOptions

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone

RandomWeights = Annotated[
    Literal["checkpoint", "random"],
    typer.Option(
        "--weights",
        help="random: measure a model's cost without its checkpoint. Its answers mean nothing.",
        rich_help_panel="Model",
    ),
]


@spread
def ask(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video file.", show_default=False)],
    *,
    asked_first: Annotated[
        str | None,
        typer.Argument(metavar="[QUESTION]", help="The first question.", show_default=False),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            *options.QUESTION_FLAGS,
            metavar=options.QUESTION_METAVAR,
            help="The first question by name; what happens by default.",
        ),
    ] = None,
    second: Annotated[
        str,
        typer.Option(metavar=options.QUESTION_METAVAR, help="The second question, in the same conversation."),
    ] = "how many things are there",
    asked: AskOptions,
    weights: Weights,
    kind: RandomWeights = "checkpoint",
    max_new_tokens: Annotated[int, option_of(GenerateOptions, "max_new_tokens")] = 64,
    transformers: Annotated[
        bool,
        typer.Option(
            "--transformers/--no-transformers",
            help="Also with transformers' own classes, on the same weights.",
        ),
    ] = True,
    repeats: Repeats = 5,
    output: Output = None,
    as_json: Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What does an answer cost: the first, the same again, a second one, and with transformers' own model?

    Wall milliseconds by stage, medians. Decoding overlaps the tower, so a total may be less than its stages.
    transformers is given our frames and prompts; whether its answers are the same is told.

    \b
    vidllava bench ask clip.mp4
    vidllava bench ask clip.mp4 "what happens" --second "how many?"
    vidllava bench ask clip.mp4 --model onevision-0.5b --weights random --num-frames 32 -o rows.jsonl
    """
    from vidllava.backbone.locate import weights_files

    console = Console(quiet=quiet, carries_on=output is not None)
    if asked_first is not None and named is not None:
        raise UsageError("--question", "is given beside a question as the last argument", "give one of them")
    question = named_question(named or "what happens") if asked_first is None else asked_first
    second = text_option("--second", second)
    from vidllava.media.probe import media_kind

    media_kind(clip)
    shown, inputs = weights.model, [clip]
    if kind == "checkpoint":
        shown, checkpoint = weights.locate(asked)
        weights.tell_stand_in(shown, console)
        inputs += map(str, weights_files(checkpoint))
    with RowOutput(
        console,
        output,
        as_json=as_json,
        fields=("path", "question", "round", "seconds"),
        begins=rb'\{"path": "(vidllava|transformers)", "question": "',
        inputs=inputs,
    ) as out:
        from vidllava.bench.ask import LEGEND, measure, table

        backbone, told = open_measured(shown, weights, kind)
        told["clip"] = clip
        rows = measure(
            backbone,
            clip,
            (question, second),
            options=asked,
            max_new_tokens=max_new_tokens,
            repeats=repeats,
            against=transformers,
        )
        try:
            for row in rows:
                out.append({**row, **told})
        finally:
            if out.rows:
                show(console, table(out.rows), LEGEND)


def open_measured(
    shown: str, weights: Weights, kind: Literal["checkpoint", "random"]
) -> tuple[Backbone, dict[str, Any]]:
    """The model named ``shown``, on as many threads as suit it; names, number format and conditions."""
    import torch

    from vidllava.backbone.load import choose_threads
    from vidllava.bench.conditions import conditions
    from vidllava.bench.models import open_model
    from vidllava.kernels.dispatch import choose

    backbone = open_model(
        shown,
        weights=kind,
        device=weights.device,
        dtype=weights.dtype,
        attn_implementation=weights.attn_implementation,
        revision=weights.revision,
        pool_first=weights.pool_first,
    )
    torch.set_num_threads(choose_threads(backbone) or torch.get_num_threads())
    told = {
        "model": shown,
        "weights": kind,
        "pool_first": weights.pool_first,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attn_implementation": weights.attn_implementation,
        "kernels": choose(backbone.device)[0],
    }
    return backbone, told | conditions(backbone.device, threads=torch.get_num_threads())
