"""``vidllava finetune``: supervised fine-tuning on pictures and clips mixed within each batch.

    vidllava finetune --model nano --data train.jsonl --media-root media --output-dir out --max-steps 200

Settings, output folder and every row of the data are checked before torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidllava.cli import bounds, options
from vidllava.cli.console import Console
from vidllava.cli.progress import TrainingProgress
from vidllava.errors import UsageError

if TYPE_CHECKING:
    from vidllava.data.source import Source
    from vidllava.media.timeline import SamplingRequest
    from vidllava.training.settings import TrainingSettings

_DATA, _STEPS, _RATES, _OUTPUT, _MACHINE = "Data", "Steps", "Learning", "Output", "Machine"


def finetune(
    context: typer.Context,
    more_data: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More --data.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Rows as .json or .jsonl (LLaVA, M4-Instruct, messages, swift), a mixture .yaml, or "
            "nano-world:SPLIT; several may follow.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    media_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures and clips; the data file's by default.", rich_help_panel=_DATA
        ),
    ] = None,
    data_weights: Annotated[
        str | None,
        typer.Option(
            metavar="W,W...",
            help="How often each data set is drawn per epoch, in order.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    mix: Annotated[
        Literal["in-batch", "separate", "image-only", "video-only", "sequential"],
        typer.Option(help="How batches combine pictures and clips.", rich_help_panel=_DATA),
    ] = "in-batch",
    placement: Annotated[
        Literal["in-place", "front", "mixed"],
        typer.Option(help="Where the visuals stand in the text.", rich_help_panel=_DATA),
    ] = "in-place",
    max_bad_fraction: Annotated[
        float,
        typer.Option(
            help="More unusable samples than this share (of at least 1000) end the run.",
            rich_help_panel=_DATA,
        ),
    ] = 0.01,
    decode_timeout: bounds.DecodeTimeout = None,
    num_frames: options.NumFrames = None,
    fps: options.Fps = None,
    max_frames: options.MaxFrames = None,
    video_backend: options.VideoBackend = None,
    pool_stride: options.PoolStride = None,
    pool_mode: options.PoolMode = None,
    newline_mode: options.NewlineMode = None,
    model_max_length: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of one sample; the model's trained context by default.",
            rich_help_panel="Tokens",
        ),
    ] = None,
    model: options.Model = "auto",
    download: options.Download = False,
    attn_implementation: options.Attention = "sdpa",
    max_steps: Annotated[
        int | None, typer.Option(help="Optimizer steps, instead of epochs.", rich_help_panel=_STEPS)
    ] = None,
    num_train_epochs: Annotated[
        float, typer.Option(help="How often the data is shown.", rich_help_panel=_STEPS)
    ] = 1.0,
    per_device_train_batch_size: Annotated[
        int, typer.Option(help="Samples of one micro-batch.", rich_help_panel=_STEPS)
    ] = 4,
    gradient_accumulation_steps: Annotated[
        int,
        typer.Option(
            help="Micro-batches of one step; sorted by length, they save padding.", rich_help_panel=_STEPS
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the random numbers.", rich_help_panel=_STEPS)] = 42,
    data_seed: Annotated[
        int | None, typer.Option(help="Of the order of samples; --seed by default.", rich_help_panel=_STEPS)
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="Of the language model.", rich_help_panel=_RATES)
    ] = 1e-5,
    vision_lr: Annotated[
        float | None,
        typer.Option(
            help="Of the vision tower; a fifth of --learning-rate by default.", rich_help_panel=_RATES
        ),
    ] = None,
    projector_lr: Annotated[
        float | None, typer.Option(help="--learning-rate by default.", rich_help_panel=_RATES)
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="MODULES", help="Of vision,projector,llm: what does not learn.", rich_help_panel=_RATES
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 0.0,
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the steps in which the rates rise.", rich_help_panel=_RATES)
    ] = 0.03,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Steps of it, instead of the share.", rich_help_panel=_RATES)
    ] = None,
    optim: Annotated[
        Literal["adamw_torch", "muon"],
        typer.Option(help="muon suits models that start from random weights.", rich_help_panel=_RATES),
    ] = "adamw_torch",
    muon_lr_scale: Annotated[
        float, typer.Option(help="Muon's rate as a multiple of the module's.", rich_help_panel=_RATES)
    ] = 4.0,
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant"],
        typer.Option(help="How the rates fall afterwards.", rich_help_panel=_RATES),
    ] = "cosine",
    max_grad_norm: Annotated[
        float, typer.Option(help="Longer gradients are shortened; 0 = never.", rich_help_panel=_RATES)
    ] = 1.0,
    adam_beta1: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 0.9,
    adam_beta2: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 0.999,
    adam_epsilon: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 1e-8,
    max_nonfinite_steps: Annotated[
        int, typer.Option(help="So many NaN or Inf steps in a row end the run.", rich_help_panel=_RATES)
    ] = 5,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for weights, checkpoints and metrics.", rich_help_panel=_OUTPUT),
    ] = None,
    overwrite_output_dir: Annotated[
        bool,
        typer.Option("--overwrite-output-dir", help="Delete an earlier run there.", rich_help_panel=_OUTPUT),
    ] = False,
    resume_from_checkpoint: Annotated[
        str | None, typer.Option(metavar="latest|FOLDER", help="Go on from there.", rich_help_panel=_OUTPUT)
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option("--allow-changes", help="Resume with other settings or data.", rich_help_panel=_OUTPUT),
    ] = False,
    logging_steps: Annotated[
        int, typer.Option(help="Steps between lines of metrics.jsonl.", rich_help_panel=_OUTPUT)
    ] = 10,
    save_steps: Annotated[
        int, typer.Option(help="Steps between checkpoints; 0 = none.", rich_help_panel=_OUTPUT)
    ] = 500,
    save_total_limit: Annotated[
        int | None, typer.Option(help="Keep so many checkpoints.", rich_help_panel=_OUTPUT)
    ] = None,
    device: options.Device = "auto",
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Compute in bfloat16 (GPU).", rich_help_panel=_MACHINE)
    ] = False,
    dataloader_num_workers: Annotated[
        int, typer.Option(help="Processes that decode ahead; 0 = none.", rich_help_panel=_MACHINE)
    ] = 0,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune on pictures and clips, mixed within each batch. Prints the output folder.

    \b
    vidllava finetune --model nano --data train.jsonl --media-root media --output-dir out --max-steps 200
    vidllava finetune --data pictures.json clips.jsonl --data-weights 1,2 --mix in-batch --output-dir out
    vidllava finetune --data captions.json --freeze vision,llm --learning-rate 1e-3 --output-dir stage-1
    vidllava finetune --model stage-1 --data all.jsonl --vision-lr 2e-6 --bf16 --output-dir stage-2
    vidllava finetune --data train.jsonl --output-dir out --resume-from-checkpoint latest
    """
    from vidllava.data.options import EncodeOptions
    from vidllava.training.run import Job, is_first_process
    from vidllava.training.run import finetune as run

    if output_dir is None:
        raise UsageError("--output-dir", "is missing", "name a folder for weights and metrics")
    settings = _settings(context.params, freeze=freeze, max_grad_norm=max_grad_norm)
    job = Job(
        model=model,
        data=(*(data or ()), *(more_data or ())),
        output_dir=output_dir,
        media_root=media_root,
        data_weights=_numbers(data_weights),
        encode=EncodeOptions(
            request=_request(num_frames, fps, max_frames),
            pool_stride=pool_stride,
            pool_mode=pool_mode,
            newline_mode=newline_mode,
            placement=placement,
            max_length=model_max_length,
            video_backend=video_backend,
            seed=seed,
        ),
        limits=bounds.FileBounds(decode_timeout=decode_timeout).limits(),
        device=device,
        attn_implementation=attn_implementation,
        download=download,
        schemes={"nano-world": _nano_world},
        resume=resume_from_checkpoint,
        overwrite=overwrite_output_dir,
        allow_changes=allow_changes,
    )
    console = Console(quiet=quiet)
    outcome = run(job, settings, TrainingProgress(console))
    if outcome.signal is not None:
        console.warn(f"stopped after step {outcome.step}; go on with --resume-from-checkpoint latest")
        raise typer.Exit(128 + outcome.signal)
    if is_first_process():
        console.write(str(output_dir))


def _settings(given: Mapping[str, Any], *, freeze: str | None, max_grad_norm: float) -> TrainingSettings:
    """The options that are settings by the same name, and the two that are spelt otherwise here."""
    from vidllava.training.settings import TrainingSettings

    same = {f.name: given[f.name] for f in fields(TrainingSettings) if f.name in given}
    modules = tuple(word.strip() for word in freeze.split(",")) if freeze else ()
    return TrainingSettings(**(same | {"freeze": modules, "max_grad_norm": max_grad_norm or None}))


def _request(num_frames: int | None, fps: float | None, max_frames: int | None) -> SamplingRequest | None:
    """Which frames; None leaves it to the model's preset."""
    from vidllava.media.timeline import SamplingRequest

    if (num_frames, fps, max_frames) == (None, None, None):
        return None
    return SamplingRequest(num_frames=num_frames, fps=fps, max_frames=max_frames)


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        raise UsageError("--data-weights", f"must be numbers with commas, got {text!r}") from None


def _nano_world(spec: str) -> Source:
    """The generated world, as a data set named `nano-world:SPLIT`."""
    from vidllava.nano import world_source

    return world_source(spec)
