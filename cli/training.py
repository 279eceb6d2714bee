"""The options of a training run that say what goes in and what comes out, in groups; on which machine.

A group's fields have the names of the settings they become; see ``groups.spread`` for how commands take them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vidllava.cli import bounds, options
from vidllava.cli.learning import words_of
from vidllava.errors import UsageError

if TYPE_CHECKING:
    from vidllava.data.token_counter import EncodeOptions
    from vidllava.media.limits import Limits
    from vidllava.media.timeline import SamplingRequest

_DATA, _TOKENS, _OUTPUT, _MACHINE = "Data", "Tokens", "Output", "Machine"


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
    eval_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Held-out rows, repeatable: their loss is measured every --eval-steps; no weight changes.",
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
            raise UsageError("--data-weights", what, "for example 1,0.5") from None

    def limits(self) -> Limits:
        """The bounds on files. Raises UsageError."""
        return bounds.FileBounds(decode_timeout=self.decode_timeout).limits()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How samples become tokens; what is trained so is asked so later."""

    num_frames: options.NumFrames = None
    fps: options.Fps = None
    max_frames: options.MaxFrames = None
    sampling: options.Sampling = None
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
        from vidllava.data.token_counter import EncodeOptions

        return EncodeOptions(
            request=self.request(),
            sampling=self.sampling,
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
            help="Go on from there; with more --max-steps also after the end. latest starts from the "
            "beginning where there is no checkpoint yet.",
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
