"""From a planned question to a loaded model: torch is imported here, and nowhere before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vidllava.cli.startup import collector_paused

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone


def load(**model: Any) -> tuple[Backbone, dict[str, float]]:
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
