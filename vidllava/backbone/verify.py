"""A checkpoint held against what was published of it: files, tensors, ids, template, first logits.

checks = verify("next-video-7b")              # of a model that is on this machine; nothing is downloaded
[check for check in checks if not check.holds]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidllava.backbone.completion import token_id
from vidllava.backbone.convert import memory_name
from vidllava.backbone.folders import is_adapter
from vidllava.backbone.headers import read_tensors
from vidllava.backbone.load import config_object, load_backbone
from vidllava.backbone.locate import locate
from vidllava.backbone.model import Backbone
from vidllava.backbone.settings import named_settings, read_settings, stored_config
from vidllava.backbone.splice import SampleInput, collate
from vidllava.backbone.tokens import TextCodec, read_codec
from vidllava.errors import ModelError
from vidllava.models import named_models
from vidllava.models.family import tensor_shapes
from vidllava.models.original import hf_name, unused
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt, build_prompt, tokenize
from vidllava.visuals.planner import ModelSettings

Slice = tuple[tuple[float, float, float], ...]
# The first three logits of the first three rows, which are words of the prompt alone: transformers'
# convert_llava_onevision_weights_to_hf.py and convert_llava_next_weights_to_hf.py, in half precision.
SLICES: dict[str, Slice] = {
    "onevision-0.5b-si": (
        (-12.1953, -14.6797, -12.7891), (0.5840, -0.8467, 1.3799), (3.6055, 4.5430, 9.9062),
    ),
    "onevision-0.5b": ((-12.0234, -14.3828, -12.7500), (2.3594, 1.0000, 3.9336), (3.6582, 4.7148, 9.1172)),
    "onevision-7b-si": ((1.7656, 3.3418, 1.4033), (0.0757, 0.7427, 3.5098), (6.7109, 5.6797, 9.3828)),
    "onevision-7b": ((1.8496, 3.4219, 1.3135), (3.0996, 3.0117, 3.1484), (4.2422, 4.7109, 9.9688)),
    "onevision-7b-chat": ((1.8662, 3.4316, 1.3174), (2.7109, 2.5488, 3.0117), (4.4648, 4.9648, 10.3359)),
    "onevision-72b-si": ((4.1875, 4.4883, 2.7910), (1.2949, 5.1328, 3.1582), (0.9390, 6.4531, 8.4375)),
    "onevision-72b": ((4.2930, 4.7305, 2.7363), (1.7529, 5.0742, 3.9590), (1.3936, 6.3438, 9.3984)),
    "onevision-72b-chat": ((4.3086, 4.7344, 2.6953), (1.7090, 5.1719, 4.0234), (1.3057, 6.3438, 9.5469)),
    "next-vicuna-7b": ((1.4883, 0.9976, -0.6992), (-9.7031, -5.7031, -1.5557), (-5.1328, -5.5586, 8.8281)),
}  # fmt: skip
TOLERANCE = 0.05
"""Half precision holds 11 bits: a hundredth at a logit of 14, a few of them after all layers."""
# tests/models/llava_next_video: "USER: <video>\nWhy is this video funny? ASSISTANT:", unexpanded.
FUNNY = (1, 3148, 1001, 29901, 29871, 32000, 13, 11008, 338, 445, 4863, 2090, 1460, 29973, 319, 1799, 9047)
FUNNY_IDS = {name: (*FUNNY, 13566, 29901) for name in ("next-video-7b", "next-video-7b-dpo")}


@dataclass(frozen=True)
class Check:
    """One figure: what was found, what was published, whether they agree; None = nothing was published."""

    name: str
    found: str
    expected: str
    holds: bool | None


def verify(name: str, *, logits: bool = False, device: str = "auto", dtype: str = "auto") -> list[Check]:
    """Check the model called ``name``; ``logits``: load the weights too, where their logits were published.

    Raises ModelError for a model that is not here or whose files cannot be read.
    """
    shown, folder = locate(name)
    if is_adapter(folder):
        raise ModelError(folder, "is an adapter, not a published model", "name its base")
    settings, codec = read_settings(folder, shown), read_codec(folder)
    published = named_models().get(shown)
    config = dict(published.config) if published and published.config else config_object(folder).to_dict()
    checks = [*_files(folder), *_tensors(folder, config)]
    checks += [*_ids(folder, codec), *_prompt(shown, settings, codec)]
    if published and published.config:
        checks += _settings(settings, named_settings(shown))
    if not logits:
        return checks
    if shown not in SLICES:
        return [*checks, Check("first logits", "", f"none published for {shown}", None)]
    return [*checks, *_logits(load_backbone(name, device=device, dtype=dtype), SLICES[shown])]


def _files(folder: Path) -> Iterator[Check]:
    """What a folder of its layout holds."""
    original = stored_config(folder) is not None
    wanted: list[tuple[str, ...]] = [("config.json",), ("tokenizer.json", "tokenizer.model")]
    if not original:
        wanted += [("preprocessor_config.json", "processor_config.json"), ("generation_config.json",)]
        wanted += [("chat_template.jinja", "chat_template.json", "tokenizer_config.json")]
    for names in wanted:
        there = [name for name in names if (folder / name).is_file()]
        yield Check("file", ", ".join(there) or "none", " or ".join(names), bool(there))
    yield Check("layout", "lmms-lab's" if original else "transformers'", "", None)


def _tensors(folder: Path, config: Mapping[str, Any]) -> Iterator[Check]:
    """Every name and shape against those that the configuration implies."""
    to_memory = memory_name if stored_config(folder) is None else hf_name
    stored = read_tensors(folder)
    found = {here: one.shape for name, one in stored.items() if (here := to_memory(name)) is not None}
    wanted = dict(tensor_shapes(config))
    missing = sorted(wanted.keys() - found.keys())
    odd = sorted(found.keys() - wanted.keys() - unused(config) - {"lm_head.weight"})
    shared = wanted.keys() & found.keys()
    differ = sorted(name for name in shared if found[name] != wanted[name])
    yield Check("tensors", str(len(found)), str(len(wanted)), not missing and not odd)
    for kind, names in (("missing tensor", missing), ("unexpected tensor", odd)):
        for name in names[:3]:
            yield Check(kind, name, f"{len(names)} in all", False)
    yield Check("shapes that differ", str(len(differ)), "0", not differ)
    for name in differ[:3]:
        yield Check("shape", f"{name} {list(found[name])}", str(list(wanted[name])), False)
    kinds = sorted({tensor.dtype for tensor in stored.values()})
    yield Check("number format", ", ".join(kinds), "", None)


def _ids(folder: Path, codec: TextCodec) -> Iterator[Check]:
    """Placeholders and the tokens at both ends of a text."""
    config = config_object(folder)
    for kind in ("image", "video"):
        expected = token_id(config, kind)
        if expected is None or stored_config(folder) is not None:
            continue
        spelt = f"<{kind}>"
        found = codec.special(spelt) if spelt in codec.controls() else None
        yield Check(f"id of {spelt}", str(found), str(expected), found == expected)
    yield Check("ids before a text", str(list(codec.bos())), "", None)
    yield Check("id that ends an answer", str(codec.eos()), "", None)


def _prompt(name: str, settings: ModelSettings, codec: TextCodec) -> Iterator[Check]:
    """The template, and the ids of a prompt that was published."""
    notes = "; ".join(settings.notes)
    yield Check("chat template", settings.template.name, notes, None if not notes else False)
    turns = build_prompt("Why is this video funny?", ["video"], "", around=settings.template.around_media)
    ids = tokenize(turns, settings.template, codec, add_generation_prompt=True).ids
    wanted = FUNNY_IDS.get(name)
    place = 32_000 if wanted else SLOT
    found = tuple(place if id_ == SLOT else id_ for id_ in ids)
    yield Check(
        "ids of a prompt", str(list(found)), str(list(wanted or ())), found == wanted if wanted else None
    )


def _settings(found: ModelSettings, published: ModelSettings) -> Iterator[Check]:
    """What a checkpoint's own files say against what was published of it."""
    for label, of in (
        ("trained positions", lambda one: one.trained_context),
        ("stored RoPE factor", lambda one: one.least_factor),
        ("frames become", lambda one: one.frame_size),
        ("mean of pixels", lambda one: tuple(round(value, 6) for value in one.image_mean)),
        ("deviation of pixels", lambda one: tuple(round(value, 6) for value in one.image_std)),
        ("grids of tiles", lambda one: len(one.pinpoints)),
        ("pooling", lambda one: (one.preset.pool_mode, one.preset.pool_stride, one.preset.pool_at)),
    ):
        mine, theirs = of(found), of(published)
        yield Check(label, str(mine), str(theirs), mine == theirs)


@torch.inference_mode()
def _logits(backbone: Backbone, expected: Slice) -> Iterator[Check]:
    """The first rows of the published prompt: nothing that comes after them reaches them."""
    codec = backbone.codec
    if backbone.settings.family == "next":
        ids = (*codec.bos(), *codec.encode("A chat"))
    else:
        ids = (codec.special("<|im_start|>"), *codec.encode("system\n", "control"))
    prompt = TokenizedPrompt(ids[:3], (IGNORE,) * 3)
    found = backbone.all_logits(collate([SampleInput(prompt, ())]))[0, :3, :3].float().cpu()
    for number, (row, wanted) in enumerate(zip(found.tolist(), expected, strict=True)):
        error = max(abs(mine - theirs) for mine, theirs in zip(row, wanted, strict=True))
        shown = ", ".join(f"{value:.4f}" for value in row)
        text = ", ".join(f"{value:.4f}" for value in wanted)
        yield Check(f"logits of row {number}", f"{shown} (off by {error:.4f})", text, error <= TOLERANCE)
