"""The options of a training run, in groups: which data, how they are read, what learns, how fast, where to.

A group's fields have the names of the settings they become; see ``groups.spread`` for how commands take them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidllava.cli import bounds, options
from vidllava.errors import UsageError

if TYPE_CHECKING:
    from vidllava.data.options import EncodeOptions
    from vidllava.media.limits import Limits
    from vidllava.media.timeline import SamplingRequest

_DATA, _TOKENS, _RECIPE, _STEPS = "Data", "Tokens", "Recipe", "Steps"
_RATES, _LORA, _OUTPUT, _MACHINE = "Learning", "LoRA", "Output", "Machine"


def words_of(flag: str, text: str | None) -> tuple[str, ...]:
    """The words of a list with commas."""
    words = tuple(word.strip() for word in (text or "").split(","))
    if text is not None and not all(words):
        raise UsageError(flag, f"{text!r} is no list of words with commas")
    return words if text is not None else ()


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is learnt from."""

    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Rows as .json or .jsonl (LLaVA, M4-Instruct, messages, swift), a mixture .yaml, or "
            "nano-world:SPLIT; several may follow.",
            rich_help_panel=_DATA,
        ),
    ] = None
    media_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures and clips; the data file's by default.", rich_help_panel=_DATA
        ),
    ] = None
    data_weights: Annotated[
        str | None,
        typer.Option(
            metavar="W,W...",
            help="How often each data set is drawn per epoch, in order.",
            rich_help_panel=_DATA,
        ),
    ] = None
    mix: Annotated[
        Literal["in-batch", "separate", "image-only", "video-only", "sequential"],
        typer.Option(help="How batches combine pictures and clips.", rich_help_panel=_DATA),
    ] = "in-batch"
    placement: Annotated[
        Literal["in-place", "front", "mixed"] | None,
        typer.Option(
            help="Where the visuals stand in the text; in-place unless a recipe says otherwise.",
            rich_help_panel=_DATA,
        ),
    ] = None
    formatting_prompts: Annotated[
        bool,
        typer.Option(
            "--formatting-prompts",
            help="Ask for the form of answer that a data set wants, in OneVision's words: by a row's "
            "`format` or by the data set's name.",
            rich_help_panel=_DATA,
        ),
    ] = False
    upstream_labels: Annotated[
        bool,
        typer.Option(
            "--upstream-labels",
            help="Learn what LLaVA-NeXT's trainer learns, answers' headers and all turns' ends included.",
            rich_help_panel=_DATA,
        ),
    ] = False
    max_bad_fraction: Annotated[
        float,
        typer.Option(
            help="More unusable samples than this share (of at least 1000) end the run.",
            rich_help_panel=_DATA,
        ),
    ] = 0.01
    decode_timeout: bounds.DecodeTimeout = None

    def weights(self) -> tuple[float, ...]:
        """The numbers of ``--data-weights``. Raises UsageError."""
        try:
            return tuple(float(word) for word in words_of("--data-weights", self.data_weights))
        except ValueError:
            what = f"must be numbers with commas, got {self.data_weights!r}"
            raise UsageError("--data-weights", what) from None

    def limits(self) -> Limits:
        """The bounds on files. Raises UsageError."""
        return bounds.FileBounds(decode_timeout=self.decode_timeout).limits()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How samples become tokens; what is trained so is asked so later."""

    num_frames: options.NumFrames = None
    fps: options.Fps = None
    max_frames: options.MaxFrames = None
    video_backend: options.VideoBackend = None
    pool_stride: options.PoolStride = None
    pool_mode: options.PoolMode = None
    newline_mode: options.NewlineMode = None
    anyres_grids: Annotated[
        str | None,
        typer.Option(
            metavar="GRIDS",
            help='Tiles of a picture that is alone: "(1x1),...,(6x6)", "(1x2),(2x2)", or whole for none.',
            rich_help_panel=_TOKENS,
        ),
    ] = None
    anyres_max_tiles: Annotated[
        int | None,
        typer.Option(
            help="Shrink a picture's token map beyond so many tiles' tokens.", rich_help_panel=_TOKENS
        ),
    ] = None
    rope_factor: Annotated[
        float,
        typer.Option(
            help="Linear RoPE scaling, on top of the model's own; longer samples fit. Saved with the model.",
            rich_help_panel=_TOKENS,
        ),
    ] = 1.0
    model_max_length: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of one sample; the model's trained context by default.",
            rich_help_panel=_TOKENS,
        ),
    ] = None

    def request(self) -> SamplingRequest | None:
        """Which frames; None leaves it to the recipe or the model's preset."""
        from vidllava.media.timeline import SamplingRequest

        if (self.num_frames, self.fps, self.max_frames) == (None, None, None):
            return None
        return SamplingRequest(num_frames=self.num_frames, fps=self.fps, max_frames=self.max_frames)

    def checked(self, rows: DataOptions, *, seed: int) -> EncodeOptions:
        """In the form in which samples are encoded. Raises UsageError."""
        from vidllava.data.options import EncodeOptions

        return EncodeOptions(
            request=self.request(),
            pool_stride=self.pool_stride,
            pool_mode=self.pool_mode,
            newline_mode=self.newline_mode,
            anyres_grids=self.anyres_grids,
            anyres_max_tiles=self.anyres_max_tiles,
            placement=rows.placement,
            formatting_prompts=rows.formatting_prompts,
            labels="upstream" if rows.upstream_labels else "answers",
            max_length=self.model_max_length,
            video_backend=self.video_backend,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """Which weights are trained."""

    model: options.Model = "auto"
    download: options.Download = False
    attn_implementation: options.Attention = "sdpa"
    pool_first: options.PoolFirst = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Published figures for what is not given."""

    stage: Annotated[
        Literal["1", "1.5", "2-si", "2-ov"] | None,
        typer.Option(
            help="What learns, rates, picture grids and length of one stage: 1 = the projector, from "
            "captions; the later ones everything.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    recipe: Annotated[
        Literal["onevision", "next-video", "interleave", "ablations"] | None,
        typer.Option(
            help="Whose figures, and whose way to read clips; -v shows them all with their sources.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="MODULES",
            help="Of vision,projector,llm: what does not learn; none = everything learns.",
            rich_help_panel=_RECIPE,
        ),
    ] = None

    def frozen(self) -> tuple[str, ...] | None:
        """The modules of ``--freeze``; None where it is not given."""
        if self.freeze is None:
            return None
        return () if self.freeze.strip() == "none" else words_of("--freeze", self.freeze)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How much."""

    max_steps: Annotated[
        int | None, typer.Option(help="Optimizer steps, instead of epochs.", rich_help_panel=_STEPS)
    ] = None
    num_train_epochs: Annotated[
        float, typer.Option(help="How often the data is shown.", rich_help_panel=_STEPS)
    ] = 1.0
    per_device_train_batch_size: Annotated[
        int, typer.Option(help="Samples of one micro-batch.", rich_help_panel=_STEPS)
    ] = 4
    gradient_accumulation_steps: Annotated[
        int,
        typer.Option(
            help="Micro-batches of one step; sorted by length, they save padding.", rich_help_panel=_STEPS
        ),
    ] = 1
    seed: Annotated[int, typer.Option(help="Of the random numbers.", rich_help_panel=_STEPS)] = 42
    data_seed: Annotated[
        int | None, typer.Option(help="Of the order of samples; --seed by default.", rich_help_panel=_STEPS)
    ] = None


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How fast."""

    learning_rate: Annotated[
        float | None,
        typer.Option(help="Of the language model; the stage's, or 1e-5.", rich_help_panel=_RATES),
    ] = None
    vision_lr: Annotated[
        float | None,
        typer.Option(
            help="Of the vision tower; a fifth of --learning-rate unless a recipe says otherwise.",
            rich_help_panel=_RATES,
        ),
    ] = None
    projector_lr: Annotated[
        float | None, typer.Option(help="--learning-rate by default.", rich_help_panel=_RATES)
    ] = None
    weight_decay: Annotated[
        float, typer.Option(help="Not of biases, norms and the newline vector.", rich_help_panel=_RATES)
    ] = 0.0
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the steps in which the rates rise.", rich_help_panel=_RATES)
    ] = 0.03
    warmup_steps: Annotated[
        int | None, typer.Option(help="Steps of it, instead of the share.", rich_help_panel=_RATES)
    ] = None
    optim: Annotated[
        Literal["adamw_torch", "muon"],
        typer.Option(help="muon suits models that start from random weights.", rich_help_panel=_RATES),
    ] = "adamw_torch"
    muon_lr_scale: Annotated[
        float, typer.Option(help="Muon's rate as a multiple of the module's.", rich_help_panel=_RATES)
    ] = 4.0
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant"],
        typer.Option(help="How the rates fall afterwards.", rich_help_panel=_RATES),
    ] = "cosine"
    max_grad_norm: Annotated[
        float, typer.Option(help="Longer gradients are shortened; 0 = never.", rich_help_panel=_RATES)
    ] = 1.0
    adam_beta1: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 0.9
    adam_beta2: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 0.999
    adam_epsilon: Annotated[float, typer.Option(rich_help_panel=_RATES)] = 1e-8
    max_nonfinite_steps: Annotated[
        int, typer.Option(help="So many NaN or Inf steps in a row end the run.", rich_help_panel=_RATES)
    ] = 5


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank additions instead of the weights themselves."""

    lora: Annotated[
        bool,
        typer.Option(
            "--lora",
            help="Train low-rank additions and the projector, and save only these (needs peft).",
            rich_help_panel=_LORA,
        ),
    ] = False
    lora_modules: Annotated[
        str,
        typer.Option(
            metavar="MODULES", help="Of vision,projector,llm: what gets additions.", rich_help_panel=_LORA
        ),
    ] = "llm"
    lora_rank: Annotated[int, typer.Option(help="Of the additions.", rich_help_panel=_LORA)] = 128
    lora_alpha: Annotated[
        float, typer.Option(help="Alpha over rank is their scale.", rich_help_panel=_LORA)
    ] = 256.0
    lora_dropout: Annotated[
        float, typer.Option(help="Share of their inputs that is dropped.", rich_help_panel=_LORA)
    ] = 0.05


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where to, and how often."""

    output_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for weights, checkpoints and metrics.", rich_help_panel=_OUTPUT),
    ] = None
    overwrite_output_dir: Annotated[
        bool,
        typer.Option("--overwrite-output-dir", help="Delete an earlier run there.", rich_help_panel=_OUTPUT),
    ] = False
    resume_from_checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="latest|FOLDER",
            help="Go on from there; with more --max-steps also after the end.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    allow_changes: Annotated[
        bool,
        typer.Option("--allow-changes", help="Resume with other settings or data.", rich_help_panel=_OUTPUT),
    ] = False
    logging_steps: Annotated[
        int, typer.Option(help="Steps between lines of metrics.jsonl.", rich_help_panel=_OUTPUT)
    ] = 10
    save_steps: Annotated[
        int,
        typer.Option(
            help="Steps between checkpoints, and one at the end; 0 = none.", rich_help_panel=_OUTPUT
        ),
    ] = 500
    save_total_limit: Annotated[
        int | None, typer.Option(help="Keep so many checkpoints.", rich_help_panel=_OUTPUT)
    ] = None
    report_to: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKERS",
            help="Of tensorboard,wandb: who gets the metrics too.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """On what, and in which numbers."""

    device: options.Device = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            help="Of the weights while they learn. bfloat16 takes half the memory and loses small steps.",
            rich_help_panel=_MACHINE,
        ),
    ] = "float32"
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Compute in bfloat16 (GPU).", rich_help_panel=_MACHINE)
    ] = False
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Compute in float16 with a loss scale (older GPUs).", rich_help_panel=_MACHINE
        ),
    ] = False
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute layers twice instead of keeping what they made.",
            rich_help_panel=_MACHINE,
        ),
    ] = False
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the layers with torch.compile.", rich_help_panel=_MACHINE),
    ] = False
    dataloader_num_workers: Annotated[
        int, typer.Option(help="Processes that decode ahead; 0 = none.", rich_help_panel=_MACHINE)
    ] = 0


def settings_of(*groups: Any, **others: Any) -> dict[str, Any]:
    """The fields of these groups that are training settings by the same name, and the others given."""
    from vidllava.training.settings import TrainingSettings

    known = {field.name for field in fields(TrainingSettings)}
    found = {name: value for group in groups for name, value in vars(group).items() if name in known}
    return found | others
