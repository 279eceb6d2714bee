"""Export of an adapter and its base as one whole model, in a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vidllava.backbone.adapter import merge_adapter
from vidllava.backbone.load import DTYPES, load_backbone
from vidllava.backbone.locate import bases
from vidllava.errors import ResourceError
from vidllava.files.writing import flush_to_disk, flush_tree

_TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def export(adapter: Path, output: Path, *, dtype: str = "auto") -> None:
    """Write the merged model to `output`, in the number format of the base or in `dtype`.

    The sum is made in float32 whatever the format. Raises ModelError for an adapter or base that cannot be
    used, ResourceError if `output` cannot be written: then nothing is left there.
    """
    found = _type_of(bases(adapter)[-1]) if dtype == "auto" else dtype
    backbone = load_backbone(str(adapter), device="cpu", dtype="float32", merge=False)
    merge_adapter(backbone)
    backbone.to(DTYPES[found])
    aside = output.with_name(f".{output.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with torch.no_grad():
            backbone.save(aside)
        flush_tree(aside)
        aside.rename(output)
        flush_to_disk(output.absolute().parent)
    except (OSError, SafetensorError) as fault:
        raise ResourceError(output, f"could not be written: {fault}", "make room") from fault
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _type_of(base: Path) -> str:
    """The number format of most of a model's weights."""
    counts: dict[str, int] = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                piece = file.get_slice(name)
                counts[piece.get_dtype()] = counts.get(piece.get_dtype(), 0) + 1
    return _TYPES.get(max(counts, key=lambda kind: counts[kind], default="F32"), "float32")
