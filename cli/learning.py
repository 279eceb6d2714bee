"""The options of a training run that say how it learns, in groups: whose figures, how much, how fast, what.

A group's fields have the names of the settings they become; see ``groups.spread`` for how commands take them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import typer

from vidllava.errors import UsageError

_RECIPE, _STEPS, _RATES, _LORA = "Recipe", "Steps", "Learning", "LoRA"


def words_of(flag: str, text: str | None) -> tuple[str, ...]:
    """The words of a list with commas."""
    words = tuple(word.strip() for word in (text or "").split(","))
    if text is not None and not all(words):
        raise UsageError(flag, f"{text!r} is no list of words with commas", "for example a,b")
    return words if text is not None else ()


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
    eval_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps between losses of --eval-data, and one at the end; --save-steps by default, 0 = "
            "only at the end.",
            rich_help_panel=_STEPS,
        ),
    ] = None
    per_device_eval_batch_size: Annotated[
        int | None,
        typer.Option(
            help="Samples of one batch of --eval-data; as many as in training by default.",
            rich_help_panel=_STEPS,
        ),
    ] = None
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


def settings_of(*groups: Any, **others: Any) -> dict[str, Any]:
    """The fields of these groups that are training settings by the same name, and the others given."""
    from vidllava.training.settings import TrainingSettings

    known = {field.name for field in fields(TrainingSettings)}
    found = {name: value for group in groups for name, value in vars(group).items() if name in known}
    return found | others
