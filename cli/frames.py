"""``vidllava frames``: which frames a model would see, and what they cost. No weights, no torch.

vidllava frames clip.mp4 --fps 2 --json
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidllava.cli import bounds, options, outputs
from vidllava.cli.console import Console, counted
from vidllava.cli.intake import Intake, open_media
from vidllava.cli.options import spread
from vidllava.cli.words import named_question
from vidllava.errors import ModelError
from vidllava.visuals.options import AskOptions

if TYPE_CHECKING:
    from vidllava.media.sampler import Sampler
    from vidllava.prompting.conversation import Encoder
    from vidllava.prompting.template import After
    from vidllava.visuals.planner import ModelSettings
    from vidllava.visuals.question import MediaItem, Question

# Decoded at full size and held together while saving: so many bytes, or so many frames if they are large.
BYTES_AT_ONCE, FRAMES_AT_ONCE = 64 << 20, 8


@spread
def frames(
    media: Annotated[
        str, typer.Argument(metavar="MEDIA", help="A video or a picture; - reads it.", show_default=False)
    ],
    *,
    asked: AskOptions,
    model: options.Model = "auto",
    revision: options.Revision = None,
    question: Annotated[
        str,
        typer.Option(
            *options.QUESTION_FLAGS,
            metavar=options.QUESTION_METAVAR,
            help="The question whose tokens are counted.",
        ),
    ] = "what happens",
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the frames there, at display size: frame_<index>.png, padded with zeros. Where "
            "one is lost, its file shows the last good one before; a warning, and notes in --json, say so.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    reading: bounds.Bounds,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show which frames a model would see, and whether they fit its context.

    \b
    vidllava frames clip.mp4
    vidllava frames clip.mp4 --fps 2 --start 0:10 --end 0:20 --json
    vidllava frames clip.mp4 --num-frames 16 --save pictures
    vidllava frames clip.mp4 --model onevision-0.5b --context-limit 4096 --num-frames 64
    """
    console = Console(quiet=quiet, verbose=verbose)
    question = named_question(question)
    with open_media([media], reading.limits(), **reading.urls()) as intake:
        from vidllava.media.probe import media_kind
        from vidllava.visuals.question import plan_question

        media_kind(intake.paths[0])  # before the model: a wrong path is the likelier slip
        settings, encoder = known_settings(model, revision, console)
        planned = plan_question(
            intake.paths, question, settings, encoder, asked, require_fit=False, sampler=intake.sampler
        )
        for note in planned.notes:
            console.warn(note)
        if save is not None:
            told = _save(planned.items[0], save, intake, overwrite=overwrite, console=console)
            new = [note for note in told if note not in planned.notes]
            for note in new:
                console.warn(note)
            planned = replace(planned, notes=(*planned.notes, *new))
    planned = replace(planned, items=(replace(planned.items[0], path=intake.shown(intake.paths[0])),))
    if as_json:
        console.json(_as_json(planned), indent=2)
    else:
        _show(planned, settings.name, console)


def known_settings(name: str, revision: str | None, console: Console) -> tuple[ModelSettings, Encoder]:
    """A model's sizes and tokenizer; for a named model that is not here, a stand-in that counts bytes."""
    from vidllava.backbone.locate import locate
    from vidllava.backbone.settings import named_settings, read_settings
    from vidllava.backbone.tokens import read_codec
    from vidllava.models import named_models

    try:
        shown, folder = locate(name, revision=revision)
    except ModelError:
        if name not in named_models() or named_models()[name].hub_id is None:
            raise
        console.note(f"{name} is not on this machine: text tokens are counted as bytes, an upper bound")
        return named_settings(name), _ByteCounter()
    return read_settings(folder, shown), read_codec(folder)


class _ByteCounter:
    """A byte-level tokenizer never makes more tokens of a text than it has bytes."""

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        return list(text.encode())

    def bos(self) -> tuple[int, ...]:
        return (0,)

    def eos(self) -> int:
        return 0

    def special(self, name: str) -> int:
        return 0

    def controls(self) -> frozenset[str]:
        return frozenset(("<|im_start|>", "<|im_end|>", "<|endoftext|>"))


def _as_json(planned: Question) -> dict[str, Any]:
    from vidllava.cli.report import media_json

    return {**media_json(planned.items[0]), "budget": planned.budget.to_json(), "notes": list(planned.notes)}


def _show(planned: Question, model: str, console: Console) -> None:
    from vidllava.cli.report import frames_json

    item, budget = planned.items[0], planned.budget
    size = f"{item.width} x {item.height}"
    if item.info is not None and item.plan is not None:
        facts = f"{item.info.duration_seconds:.2f} s, {counted(item.info.num_frames, 'frame')}"
        console.write(f"{item.path}: {size}, {facts}, {item.info.codec}, read by {item.backend}")
        console.write(f"{counted(len(item.plan), 'frame')}: {item.plan.reason}")
    else:
        console.write(f"{item.path}: picture, {size}")
    rows = [(frame["index"], f"{frame['timestamp_seconds']:.3f}") for frame in frames_json(item.plan)]
    console.table(("frame", "seconds"), rows)
    parts = f"{budget.visual_tokens} visual + {budget.newline_tokens} newline + {budget.text_tokens} text"
    verdict = "fits" if budget.fits else "does not fit"
    console.write(f"{model}: {parts} + {budget.reserve_tokens} reserve = {budget.total_tokens} tokens")
    factor = f"{budget.limit} (context {budget.context_limit}, RoPE factor {budget.rope_factor})"
    console.write(f"{verdict}: the limit is {factor}")
    if budget.frames_at_factor is not None:
        most = ", ".join(f"{count} at {factor}" for factor, count in budget.frames_at_factor.items())
        console.write(f"most frames at RoPE factor: {most}")
    if budget.remedies:
        console.write(f"would fit: {', or '.join(budget.remedies)}")


def _save(
    item: MediaItem, folder: Path, intake: Intake, *, overwrite: bool, console: Console
) -> tuple[str, ...]:
    """Write each frame as a PNG at its display size, whole or not at all; all names are checked first.

    Returns what a reader of the pictures must know, and which of them show another frame than they are
    named for.
    """
    from PIL import Image

    indices = item.plan.indices if item.plan is not None else (0,)
    # As many digits as the clip's last frame needs: by name the files stand in order, whatever the plan.
    digits = len(str(item.info.num_frames - 1)) if item.info is not None else 1
    names = [folder / f"frame_{index:0{digits}}.png" for index in indices]
    outputs.check_folder(folder)
    for name in names:
        outputs.check_file("--save", name, overwrite=overwrite, inputs=intake.paths)
    notes: dict[str, None] = {}
    stand_ins: dict[str, None] = {}
    saved = _full_size(item, intake.sampler, notes)
    for name, index, (shown, pixels) in zip(names, indices, saved, strict=True):
        outputs.write_picture(Image.fromarray(pixels), name, durable=False)
        if shown != index:
            stand_ins[f"{name.name} shows frame {shown}"] = None
    console.note(f"{counted(len(names), 'frame')} written to {folder}")
    return (*notes, *([f"stand-ins for lost frames: {', '.join(stand_ins)}"] if stand_ins else []))


def _full_size(item: MediaItem, sampler: Sampler, notes: dict[str, None]) -> Iterator[tuple[int, Any]]:
    """(index of the frame really shown, uint8 [H, W, 3]) for each planned frame; ``notes`` gathers the rest.

    A few at a time: a long plan at 4K must not fill the memory.
    """
    if item.info is None or item.plan is None:
        yield 0, item.picture
        return
    plan = item.plan
    at_once = max(FRAMES_AT_ONCE, BYTES_AT_ONCE // (3 * item.width * item.height))
    for first in range(0, len(plan), at_once):
        part = slice(first, first + at_once)
        batch = sampler.decode(item.info, plan.part(part), backend=item.backend or "pyav")
        notes.update(dict.fromkeys(batch.notes))
        yield from zip(batch.plan.indices, batch.pixels, strict=True)
