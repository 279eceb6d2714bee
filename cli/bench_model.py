"""The model that a benchmark measures, and what its rows say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from vidllava.cli.asking import Weights

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone


def open_measured(
    shown: str, weights: Weights, kind: Literal["checkpoint", "random"]
) -> tuple[Backbone, dict[str, Any]]:
    """The model named ``shown``, on as many threads as suit it; names, number format and conditions."""
    import torch

    from vidllava.backbone.load import choose_threads
    from vidllava.bench.conditions import conditions
    from vidllava.bench.models import open_model
    from vidllava.kernels.dispatch import choose

    backbone = open_model(
        shown,
        weights=kind,
        device=weights.device,
        dtype=weights.dtype,
        attn_implementation=weights.attn_implementation,
        revision=weights.revision,
        pool_first=weights.pool_first,
    )
    torch.set_num_threads(choose_threads(backbone) or torch.get_num_threads())
    told = {
        "model": shown,
        "weights": kind,
        "pool_first": weights.pool_first,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attn_implementation": weights.attn_implementation,
        "kernels": choose(backbone.device)[0],
    }
    return backbone, told | conditions(backbone.device, threads=torch.get_num_threads())
