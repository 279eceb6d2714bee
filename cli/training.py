"""The options of a training run beside its settings: which data, read how, from which weights, to where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidllava.cli import bounds, options
from vidllava.cli.options import split_words
from vidllava.errors import UsageError
from vidllava.settings import setting
from vidllava.visuals.options import FrameOptions, PoolingOptions

if TYPE_CHECKING:
    from vidllava.data.token_counter import EncodeOptions
    from vidllava.media.limits import Limits
    from vidllava.media.timeline import SamplingRequest

_DATA, _TOKENS, _OUTPUT = "Data", "Tokens", "Output"


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
    decode_timeout: bounds.DecodeTimeout = None

    def weights(self) -> tuple[float, ...]:
        """The numbers of ``--data-weights``. Raises UsageError."""
        try:
            return tuple(float(word) for word in split_words("--data-weights", self.data_weights))
        except ValueError:
            what = f"must be numbers with commas, got {self.data_weights!r}"
            raise UsageError("--data-weights", what, "for example 1,0.5") from None

    def limits(self) -> Limits:
        """The bounds on files. Raises UsageError."""
        return bounds.FileBounds(decode_timeout=self.decode_timeout).limits()


@dataclass(frozen=True, kw_only=True)
class Reading(PoolingOptions, FrameOptions):
    """How samples become tokens; what is trained so is asked so later."""

    model_max_length: int | None = setting(
        None, "Most tokens of one sample; the model's trained context by default.", panel=_TOKENS
    )

    def request(self) -> SamplingRequest | None:
        """Which frames; None leaves it to the recipe or the model's preset."""
        from vidllava.media.timeline import SamplingRequest

        if (self.num_frames, self.fps, self.max_frames) == (None, None, None):
            return None
        return SamplingRequest(num_frames=self.num_frames, fps=self.fps, max_frames=self.max_frames)

    def checked(self, **others: Any) -> EncodeOptions:
        """In the form in which samples are encoded, with ``others`` of its fields. Raises UsageError."""
        from vidllava.data.token_counter import EncodeOptions

        return EncodeOptions(
            request=self.request(),
            sampling=self.sampling,
            pool_stride=self.pool_stride,
            pool_mode=self.pool_mode,
            newline_mode=self.newline_mode,
            max_length=self.model_max_length,
            video_backend=self.video_backend,
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class Grids:
    """The tiles of pictures."""

    anyres_grids: str | None = setting(
        None,
        'Tiles of a picture that is alone: "(1x1),...,(6x6)", "(1x2),(2x2)", or whole for none.',
        panel=_TOKENS,
        metavar="GRIDS",
    )
    anyres_max_tiles: int | None = setting(
        None, "Shrink a picture's token map beyond so many tiles' tokens.", panel=_TOKENS
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """Which weights are trained, and where."""

    model: options.Model = "auto"
    download: options.Download = False
    attn_implementation: options.Attention = "sdpa"
    device: options.Device = "auto"


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
