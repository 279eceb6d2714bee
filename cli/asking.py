"""The model of a question, in groups of options: which weights, on which machine, what is kept; its loading.

Each group turns itself into what the package takes; see ``groups.spread`` for how commands take them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.cli import options
from vidllava.cli.console import Console
from vidllava.cli.startup import collector_paused
from vidllava.errors import UsageError
from vidllava.files.cache_folder import CacheFolder

if TYPE_CHECKING:
    from vidllava.backbone.memory import Workload
    from vidllava.backbone.model import Backbone
    from vidllava.visuals.options import AskOptions

NANO_NOTICE = (
    "nano answers: it knows only its generated world of moving shapes. "
    "For other clips: vidllava models pull onevision-0.5b"
)


@dataclass(frozen=True, kw_only=True)
class Seeing:
    """What need not be computed again."""

    no_reuse_frames: options.NoReuseFrames = False
    no_cache: options.NoCache = False

    def folder(self) -> CacheFolder | None:
        """Where features are remembered, if they are."""
        return None if self.no_cache else CacheFolder.of_environment()


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Which model, on which machine."""

    model: options.Model = "auto"
    revision: options.Revision = None
    download: options.Download = False
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    attn_implementation: options.Attention = "sdpa"
    pool_first: options.PoolFirst = False

    def locate(self, asked: AskOptions) -> tuple[str, Path]:
        """The model's name and folder.

        Raises ModelError, and UsageError where the model cannot run as ``asked``.
        """
        from vidllava.backbone.locate import locate

        if self.pool_first and asked.pool_mode == "max":
            what = "does not go with --pool-mode max, which is not a mean"
            raise UsageError("--pool-first", what, "bilinear or average")

        return locate(self.model, download=self.download, revision=self.revision)

    def tell_stand_in(self, shown: str, console: Console) -> None:
        """Say that nano stands in for a larger model, where it does."""
        if self.model == "auto" and shown == "nano":
            console.note(NANO_NOTICE)

    def load(self, shown: str, workload: Workload | None = None) -> tuple[Backbone, dict[str, float]]:
        """The model named ``shown``, and the wall seconds of importing and loading.

        Media unlike what it was trained on are refused where it was not asked for by name.
        """
        backbone, seconds = load_model(
            name=shown,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            pool_first=self.pool_first,
            workload=workload,
        )
        backbone.asked_by_name = self.model != "auto"
        return backbone, seconds


def load_model(**model: Any) -> tuple[Backbone, dict[str, float]]:
    """The model of ``load_backbone``'s arguments, and the wall seconds of ``import`` and ``load``."""
    start = time.perf_counter()
    with collector_paused():
        import vidllava.backbone.answer  # noqa: F401  all that an answer needs, once
        from vidllava.backbone.load import choose_threads, load_backbone
    imported = time.perf_counter()
    backbone = load_backbone(**model)
    if (threads := choose_threads(backbone)) is not None:
        import torch

        torch.set_num_threads(threads)
    return backbone, {"import": imported - start, "load": time.perf_counter() - imported}
