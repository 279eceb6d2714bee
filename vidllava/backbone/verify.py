"""A checkpoint held against what was published of it: files, tensors, ids, template, first logits.

checks = verify("next-video-7b")              # of a model that is on this machine; nothing is downloaded
[check for check in checks if check.holds is False]

A part that cannot be read is a check that fails: the others are made all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidllava.backbone.completion import token_id
from vidllava.backbone.convert import memory_name
from vidllava.backbone.folders import find_folder, is_adapter
from vidllava.backbone.headers import read_tensors
from vidllava.backbone.load import choose_device, config_object, load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.parts import check_parts
from vidllava.backbone.published import (
    AROUND_PICTURE,
    ENDS,
    FUNNY_IDS,
    OPENINGS,
    PICTURE_IDS,
    PICTURE_SIZE,
    PICTURE_SLICES,
    PICTURE_URL,
    PLACEHOLDERS,
    SLICES,
    SYSTEM,
    TOLERANCES,
    Slice,
)
from vidllava.backbone.settings import named_settings, read_settings, stored_config
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.backbone.tokens import TextCodec, read_codec
from vidllava.errors import ModelError, UsageError
from vidllava.media.pixels import picture_tiles
from vidllava.models import named_models
from vidllava.models.family import tensor_shapes
from vidllava.models.original import hf_name, unused
from vidllava.prompting.conversation import IGNORE, SLOT, Control, TokenizedPrompt, build_prompt, tokenize
from vidllava.visuals.options import AskOptions
from vidllava.visuals.planner import ModelSettings, VisualPlanner
from vidllava.visuals.question import plan_media

# What leaves no trace in the shape of a tensor.
_FIGURES = (
    ("text_config", "num_attention_heads"),
    ("text_config", "num_key_value_heads"),
    ("text_config", "max_position_embeddings"),
    ("text_config", "rms_norm_eps"),
    ("vision_config", "num_attention_heads"),
    ("vision_config", "image_size"),
    ("vision_config", "patch_size"),
    (None, "vision_feature_layer"),
    (None, "vision_feature_select_strategy"),
)


@dataclass(frozen=True)
class Check:
    """One figure: what was found, what was published, whether they agree; None = nothing was published."""

    name: str
    found: str
    expected: str
    holds: bool | None


def verify(
    name: str,
    *,
    logits: bool = False,
    picture: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> list[Check]:
    """Check the model called ``name``: a short name, a hub id or a folder.

    ``logits``: load the weights too, where logits were published; on a GPU in float16, as those were.
    ``picture``: the file of ``PICTURE_URL``, for the one slice that has a picture's row in it. Raises
    ModelError for a model that is not here, UsageError for a picture where none was published.
    """
    folder = find_folder(name)
    if is_adapter(folder):
        raise ModelError(folder, "is an adapter, not a published model", "name its base")
    model = next((one for one in named_models().values() if name in (one.name, one.hub_id)), None)
    known = model.name if model else name
    if picture is not None and (not logits or known not in PICTURE_SLICES):
        what = "is for --logits of " + ", ".join(PICTURE_SLICES)
        raise UsageError("--picture", what, "leave it out")
    published = dict(model.config) if model and model.config else None
    checks = _read("configuration", lambda: _files(folder))
    checks += _read("weights files", lambda: _weights(folder))
    checks += _read("configuration", lambda: _parts(folder))
    checks += _read("tensors", lambda: _tensors(folder, published))
    if published is not None:
        checks += _read("configuration", lambda: _figures(folder, published))
        checks += _read("settings", lambda: _settings(read_settings(folder, name), named_settings(known)))
    checks += _read("tokenizer", lambda: _ids(known, folder, read_codec(folder)))
    checks += _read("prompt", lambda: _prompt(known, read_settings(folder, name), read_codec(folder)))
    if not logits:
        return checks
    if known not in SLICES:
        return [*checks, Check("first logits", "", f"none published for {name}", None)]
    if any(check.holds is False for check in checks):
        return [*checks, Check("first logits", "not compared: see above", "", None)]
    if dtype == "auto":
        dtype = "float16" if choose_device(device)[0].type == "cuda" else "float32"
    backbone = load_backbone(name, device=device, dtype=dtype)
    opening = (*backbone.codec.bos(), *OPENINGS.get(known, SYSTEM))
    checks += _logits(backbone, opening, SLICES[known])
    if known in PICTURE_SLICES:
        checks += _picture_logits(backbone, picture, PICTURE_SLICES[known])
    return checks


def _read(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of one kind; one that failed, where something that they need cannot be read."""
    found = []
    try:
        for check in checks():
            found.append(check)
    except ModelError as fault:
        found.append(Check(name, str(fault), "can be read", False))
    return found


def _weights(folder: Path) -> Iterator[Check]:
    """Headers, and sizes of files against them."""
    tensors = read_tensors(folder)
    files = {tensor.file for tensor in tensors.values()}
    size = sum(tensor.num_bytes for tensor in tensors.values())
    yield Check("weights files", f"{len(files)}, {size:,} bytes of numbers", "as their headers say", True)


def _parts(folder: Path) -> Iterator[Check]:
    """Configuration, weights, tokenizer, processor and template against each other."""
    check_parts(folder, read_tensors(folder))
    yield Check("files of one checkpoint", "agree", "agree", True)


def _figures(folder: Path, published: Mapping[str, Any]) -> Iterator[Check]:
    """What leaves no trace in a shape."""
    own = config_object(folder).to_dict()
    for part, key in _FIGURES:
        mine, theirs = (one if part is None else one[part] for one in (own, published))
        if key in theirs:
            found, expected = mine.get(key), theirs[key]
            name = key if part is None else f"{part}.{key}"
            yield Check(name, str(found), str(expected), found == expected)
    found, expected = (one["text_config"]["rope_parameters"]["rope_theta"] for one in (own, published))
    yield Check("text_config.rope_theta", str(found), str(expected), found == expected)


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


def _tensors(folder: Path, published: Mapping[str, Any] | None) -> Iterator[Check]:
    """Every name and shape against those that the published configuration implies; of another model, its own.

    lmms-lab's embeddings have no rows for placeholders, which a configuration in transformers' layout counts:
    how many there are is what their own says.
    """
    own = config_object(folder).to_dict()
    config = dict(own if published is None else published)
    if stored_config(folder) is not None:
        config["text_config"] = config["text_config"] | {"vocab_size": own["text_config"]["vocab_size"]}
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


def _ids(name: str, folder: Path, codec: TextCodec) -> Iterator[Check]:
    """Placeholders and the tokens at both ends of a text."""
    config, places = config_object(folder), PLACEHOLDERS.get(name, {})
    for kind in ("image", "video"):
        own, spelt = token_id(config, kind), f"<{kind}>"
        if own is None or stored_config(folder) is not None:
            continue
        expected = places.get(spelt, own)
        found = codec.special(spelt) if spelt in codec.controls() else None
        yield Check(f"id of {spelt}", f"{found}, config.json {own}", str(expected), found == own == expected)
    before, end = ENDS.get(name, (None, None))
    found_before, found_end = codec.bos(), codec.eos()
    shown = "" if before is None else str(list(before))
    holds = None if before is None else found_before == before
    yield Check("ids before a text", str(list(found_before)), shown, holds)
    holds = None if end is None else found_end == end
    yield Check("id that ends an answer", str(found_end), "" if end is None else str(end), holds)


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


def _encoded(codec: TextCodec, pieces: Iterable[Control | str | int]) -> list[int]:
    """Ids of a prompt that is given as texts, control tokens and ids."""
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, Control):
            ids.append(codec.special(piece.name))
        elif isinstance(piece, int):
            ids.append(piece)
        else:
            ids += codec.encode(piece, "control" if ids else "nothing")
    return ids


def _logits(backbone: Backbone, opening: Iterable[Control | str | int], expected: Slice) -> Iterator[Check]:
    """The first rows of the published prompt, words alone: nothing that comes after them reaches them."""
    ids = tuple(_encoded(backbone.codec, opening)[:3])
    sample = SampleInput(TokenizedPrompt(ids, (IGNORE,) * len(ids)), ())
    yield from _compared("logits of row", backbone, sample, expected)


def _picture_logits(backbone: Backbone, picture: Path | None, expected: Slice) -> Iterator[Check]:
    """The published prompt with its picture, whose first row is the third."""
    if picture is None:
        yield Check("logits with a picture", "not compared", f"takes --picture, {PICTURE_URL}", None)
        return
    settings, codec = backbone.settings, backbone.codec
    (item,) = plan_media([str(picture)], VisualPlanner.of(settings), AskOptions())
    if item.picture is None:
        raise UsageError("--picture", f"{picture} is no picture", PICTURE_URL)
    size = (item.height, item.width)
    shown, wanted = (f"{height} high, {width} wide" for height, width in (size, PICTURE_SIZE))
    yield Check("size of the picture", shown, wanted, size == PICTURE_SIZE)
    if size != PICTURE_SIZE:
        return
    before, after = AROUND_PICTURE
    ids = (*_encoded(codec, before), SLOT, *_encoded(codec, after))
    length = len(ids) - 1 + item.layout.num_tokens
    yield Check("ids with the picture", str(length), str(PICTURE_IDS), length == PICTURE_IDS)
    tiles = picture_tiles(item.picture, item.pinpoints, settings.image_size)
    sample = SampleInput(TokenizedPrompt(ids, (IGNORE,) * len(ids)), (VisualInput(tiles, item.layout),))
    yield from _compared("logits with a picture, row", backbone, sample, expected)


@torch.inference_mode()
def _compared(name: str, backbone: Backbone, sample: SampleInput, expected: Slice) -> Iterator[Check]:
    """The first three logits of the first rows of a prompt; the head is computed there alone."""
    hidden = backbone.hidden_states(collate([sample]).to(backbone.device), rope_factor=backbone.rope_factor)
    found = backbone.hf.lm_head(hidden[:, : len(expected)])[0, :, :3].float().cpu()
    tolerance = TOLERANCES[str(backbone.dtype).removeprefix("torch.")]
    for number, (row, wanted) in enumerate(zip(found.tolist(), expected, strict=True)):
        error = max(abs(mine - theirs) for mine, theirs in zip(row, wanted, strict=True))
        shown, text = (", ".join(f"{value:.4f}" for value in values) for values in (row, wanted))
        found_text = f"{shown} (off by {error:.4f} of {tolerance:g})"
        yield Check(f"{name} {number}", found_text, text, error <= tolerance)
