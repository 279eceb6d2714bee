"""``vidllava finetune``: supervised fine-tuning on pictures and clips mixed within each batch.

    vidllava finetune --model nano --data train.jsonl --media-root media --output-dir out --max-steps 200

Settings, output folder and every row of the data are checked before torch is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidllava.cli import options, training
from vidllava.cli.config_file import take_config
from vidllava.cli.console import Console
from vidllava.cli.options import spread
from vidllava.cli.progress import TrainingProgress, validation_summary
from vidllava.errors import UsageError
from vidllava.files.writing import refuse_inputs
from vidllava.training.settings import TrainingSettings

if TYPE_CHECKING:
    from vidllava.data.source import Source


@spread
def finetune(
    more_data: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More --data.")] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            is_eager=True,
            callback=take_config,
            help="YAML or JSON with options by their names; the command line wins. DIR/settings.json is one.",
        ),
    ] = None,
    rows: training.DataOptions,
    reading: training.Reading,
    grids: training.Grids,
    start: training.Start,
    settings: TrainingSettings,
    saving: training.Saving,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Fine-tune on pictures and clips, mixed within each batch. Prints the output folder.

    \b
    vidllava finetune --model nano --data train.jsonl --media-root media --output-dir out --max-steps 200
    vidllava finetune --data pictures.json clips.jsonl --data-weights 1,2 --mix in-batch --output-dir out
    vidllava finetune --data captions.json --stage 1 --output-dir stage-1
    vidllava finetune --model stage-1 --data all.jsonl --stage 2-ov --bf16 --output-dir stage-2 -v
    vidllava finetune --data train.jsonl --lora --learning-rate 1e-4 --output-dir adapter
    vidllava finetune --config out/settings.json --output-dir out-2
    vidllava finetune --data train.jsonl --output-dir out --resume-from-checkpoint latest
    """
    from vidllava.training.checkpoint import SETTINGS_FILE
    from vidllava.training.job import Job
    from vidllava.training.report import METRICS_FILE, validations
    from vidllava.training.run import finetune as run
    from vidllava.training.run import is_first_process

    if saving.output_dir is None:
        raise UsageError("--output-dir", "is missing", "name a folder for weights and metrics")
    if config is not None and saving.resume_from_checkpoint is None:
        refuse_inputs("--output-dir", saving.output_dir / SETTINGS_FILE, [config])
    job = Job(
        model=start.model,
        data=(*(rows.data or ()), *(more_data or ())),
        output_dir=saving.output_dir,
        eval_data=tuple(rows.eval_data or ()),
        media_root=rows.media_root,
        data_weights=rows.weights(),
        encode=reading.checked(
            **vars(grids),
            placement=rows.placement,
            formatting_prompts=rows.formatting_prompts,
            labels="upstream" if rows.upstream_labels else "answers",
            seed=settings.seed,
        ),
        limits=rows.limits(),
        device=start.device,
        attn_implementation=start.attn_implementation,
        download=start.download,
        schemes={"nano-world": _nano_world},
        resume=saving.resume_from_checkpoint,
        overwrite=saving.overwrite_output_dir,
        allow_changes=saving.allow_changes,
    )
    console = Console(quiet=quiet, verbose=verbose, carries_on=True)
    outcome = run(job, settings, TrainingProgress(console))
    if outcome.signal is not None:
        console.warn(f"stopped after step {outcome.step}; go on with --resume-from-checkpoint latest")
        raise typer.Exit(128 + outcome.signal)
    if outcome.was_finished and is_first_process():
        console.note(f"finished already, after step {outcome.step}; more --max-steps make the run longer")
    if is_first_process():
        for line in validation_summary(validations(saving.output_dir / METRICS_FILE)):
            console.note(line)
        console.write(str(saving.output_dir))


def _nano_world(spec: str) -> Source:
    """The generated world, as a data set named `nano-world:SPLIT`."""
    from vidllava.nano.source import world_source

    return world_source(spec)
