"""A loaded model made ready to learn: what it is read as, what learns, what is kept and what is compiled."""

from __future__ import annotations

from vidllava.backbone.load import check_compiler
from vidllava.backbone.locate import locate
from vidllava.backbone.model import Backbone
from vidllava.training import parameters
from vidllava.training.run import Job
from vidllava.training.settings import TrainingSettings
from vidllava.visuals.presets import MODELS


def prepare(backbone: Backbone, job: Job, settings: TrainingSettings, *, fresh: bool) -> None:
    """Tune, freeze and adapt `backbone`; a resumed one (not `fresh`) has its adapter already."""
    backbone.tune(job.tuning)
    if fresh or backbone.adapter is None:
        parameters.freeze(backbone, settings.frozen)
    if settings.lora and backbone.adapter is None:
        from vidllava.backbone.adapter import LoraOptions, add_adapter

        options = LoraOptions(
            modules=settings.lora_modules,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
        )
        add_adapter(backbone, options, base=_base(job.model))
    if settings.gradient_checkpointing:
        backbone.checkpoint_activations()
    if settings.compile:
        check_compiler(backbone.device)
        backbone.compile_layers()


def _base(name: str) -> str:
    """How an adapter's folder calls the model it stands on, from wherever it is read."""
    shown, folder = locate(name)
    if shown in MODELS:
        return MODELS[shown].hub_id or shown
    return str(folder.resolve()) if folder.exists() and name == shown and folder.name in name else shown
