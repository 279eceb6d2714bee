"""A checkpoint written again in another layout, transformers' or lmms-lab's, or an adapter as a whole model.

    convert(folder, Path("out"), to="hf")                        # or to="original"
    convert(folder, Path("out"), to="hf", legacy_keys=True)      # for transformers 4, vLLM and SGLang

Tensor by tensor, from memory-mapped files into shards: the model is never in memory as a whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidllava.backbone.completion import complete_tokenizer
from vidllava.backbone.folders import is_adapter, read_json
from vidllava.backbone.headers import Tensor, read_tensors, vocabulary
from vidllava.backbone.load import DTYPES, config_object, load_backbone
from vidllava.backbone.locate import bases
from vidllava.backbone.model import COMPANION_FILES
from vidllava.backbone.settings import OWN_FILE, read_config, read_settings, stored_config, write_own_file
from vidllava.errors import ModelError, ResourceError
from vidllava.files.writing import flush_to_disk, flush_tree
from vidllava.models.family import tensor_shapes
from vidllava.models.original import hf_name, legacy_name, original_config, original_name, processor, unused

Layout = Literal["hf", "original"]
SHARD_BYTES = 5_000_000_000
"""As transformers cuts large models."""
_VOCABULARY_MULTIPLE = 64
_EMBEDDINGS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_OLD_TOWER, _TOWER = "vision_tower.vision_model.", "vision_tower."


def convert(
    folder: Path,
    output: Path,
    *,
    to: Layout,
    legacy_keys: bool = False,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, ...]:
    """Write the model in ``folder`` to ``output``, which is not there yet; returns notes for people.

    ``on_progress`` hears of tensors done and in all. Raises ModelError, before anything is written, for a
    missing or unexpected tensor; ResourceError if ``output`` cannot be written: then nothing is left there.
    """
    if is_adapter(folder):
        raise ModelError(folder, "is an adapter, not a whole model", "vidllava models export makes it one")
    config = config_object(folder).to_dict()
    named = _named(folder, config)
    rows = _rows_wanted(folder, config, named) if to == "hf" else None
    notes: tuple[str, ...] = ()
    if rows is not None:
        old = named[_EMBEDDINGS[0]][1].shape[0]
        notes = (f"{rows - old} rows were added to the embeddings, means of the others: nothing reads them",)
    rename = original_name if to == "original" else legacy_name if legacy_keys else _today
    aside = output.with_name(f".{output.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        tensors = _read(folder, named, rows)
        _write_shards(aside, tensors, rename, shard_bytes, lambda done: on_progress(done, len(named)))
        _write_files(folder, aside, config, to=to, rows=rows)
        flush_tree(aside)
        aside.rename(output)
        flush_to_disk(output.absolute().parent)
    except (OSError, SafetensorError) as fault:
        raise ResourceError(output, f"could not be written: {fault}", "make room") from fault
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return notes


def rename_weights(folder: Path, rename: Callable[[str], str]) -> None:
    """Write the weights of a folder in transformers' layout again, under other names."""
    config = config_object(folder).to_dict()
    named = _named(folder, config)
    aside = folder / ".renamed"
    aside.mkdir()
    _write_shards(aside, _read(folder, named, None), rename, SHARD_BYTES, lambda done: None)
    for old in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        old.unlink()
    for new in aside.iterdir():
        new.rename(folder / new.name)
    aside.rmdir()


def memory_name(name: str) -> str | None:
    """The name in memory of transformers 5 for one that any version of it wrote; None for computed tables."""
    if name.endswith(("rotary_emb.inv_freq", "embeddings.position_ids")):
        return None
    plain = name.removeprefix("model.") if not name.startswith("model.model.") else name
    plain = plain.replace("language_model.lm_head.", "lm_head.", 1)
    plain = plain.replace("language_model.model.", "language_model.", 1).replace(_OLD_TOWER, _TOWER, 1)
    return plain if plain.startswith("lm_head.") else f"model.{plain}"


def _today(name: str) -> str:
    """The name that transformers 5 writes for one in memory."""
    return legacy_name(name).replace(_OLD_TOWER, _TOWER, 1)


def _named(folder: Path, config: Mapping[str, Any]) -> dict[str, tuple[str, Tensor]]:
    """By its name in memory: (stored name, header) of each tensor that belongs to the model.

    Raises ModelError for a missing or an unexpected one, naming the first three.
    """
    to_memory = memory_name if stored_config(folder) is None else hf_name
    stored = ((to_memory(name), name, tensor) for name, tensor in read_tensors(folder).items())
    found = {here: (name, tensor) for here, name, tensor in stored if here is not None}
    found = {name: one for name, one in found.items() if name not in unused(config)}
    wanted = {name for name, _ in tensor_shapes(config)}
    missing, odd = sorted(wanted - set(found)), sorted(set(found) - wanted - {"lm_head.weight"})
    for kind, names in (("missing", missing), ("unexpected", odd)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            what = f"{kind} weights: {', '.join(names[:3])}{more}"
            raise ModelError(folder, what, "convert a whole checkpoint")
    return dict(sorted(found.items()))


def _rows_wanted(folder: Path, config: dict[str, Any], named: Mapping[str, tuple[str, Tensor]]) -> int | None:
    """Rows that the embeddings need for the placeholders, where that is more than they have.

    Gives ``config`` the ids of placeholders that the tokenizer lacks.
    """
    path = folder / "tokenizer.json"
    if stored_config(folder) is None or not path.is_file():
        return None
    highest, _, added = vocabulary(path)
    free = iter((highest + 1, highest + 2))
    for kind in ("image", "video"):
        for key in (f"{kind}_token_id", f"{kind}_token_index"):
            if key in config:
                config[key] = added[f"<{kind}>"] if f"<{kind}>" in added else next(free)
                break
    ids = [config.get(f"{kind}_{end}") for kind in ("image", "video") for end in ("token_id", "token_index")]
    most = max(one for one in ids if isinstance(one, int)) + 1
    if most <= named[_EMBEDDINGS[0]][1].shape[0]:
        return None
    rows = -(-most // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    config["text_config"]["vocab_size"] = rows
    return rows


def _read(
    folder: Path, named: Mapping[str, tuple[str, Tensor]], rows: int | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in memory, value), file by file; embeddings with so many rows."""
    files = dict.fromkeys(tensor.file for _, tensor in named.values())
    for file in files:
        with safe_open(folder / file, framework="pt") as source:
            for name, (stored, tensor) in named.items():
                if tensor.file != file:
                    continue
                value = source.get_tensor(stored)
                if rows is not None and name in _EMBEDDINGS:
                    mean = value.float().mean(dim=0, keepdim=True).to(value.dtype)
                    value = torch.cat([value, mean.expand(rows - len(value), -1)])
                yield name, value


def _write_shards(
    folder: Path,
    tensors: Iterator[tuple[str, torch.Tensor]],
    rename: Callable[[str], str],
    shard_bytes: int,
    on_done: Callable[[int], None],
) -> None:
    """Files of at most ``shard_bytes``, with an index where there are several."""
    parts: list[Path] = []
    places: dict[str, int] = {}
    held: dict[str, torch.Tensor] = {}
    total = 0

    def close() -> None:
        if held:
            parts.append(folder / f"{len(parts)}.safetensors")
            places.update(dict.fromkeys(held, len(parts) - 1))
            save_file(held, parts[-1], metadata={"format": "pt"})
            held.clear()

    for done, (name, value) in enumerate(tensors, 1):
        size = value.numel() * value.element_size()
        if held and sum(one.numel() * one.element_size() for one in held.values()) + size > shard_bytes:
            close()
        held[rename(name)] = value.contiguous()
        total += size
        on_done(done)
    close()
    if len(parts) == 1:
        parts[0].rename(folder / "model.safetensors")
        return
    names = [f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    for part, name in zip(parts, names, strict=True):
        part.rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {key: names[at] for key, at in places.items()}}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_files(folder: Path, output: Path, config: dict[str, Any], *, to: Layout, rows: int | None) -> None:
    """Configuration, tokenizer, processor and what else belongs to a folder of this layout."""
    from_original = stored_config(folder) is not None
    for name in (*COMPANION_FILES, "generation_config.json", "tokenizer.model"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, output / name)
    if to == "original":
        own = stored_config(folder) or original_config(config)
        _write_json(output / "config.json", own)
        return
    if not from_original and not rows:
        config = read_config(folder)  # as it was written
    _write_json(output / "config.json", config)
    settings = read_settings(folder, folder.name)
    if from_original:
        _write_json(output / "preprocessor_config.json", processor(config))
        clip = config["vision_config"]["model_type"] == "clip_vision_model"
        described = {
            "patch_size": config["vision_config"]["patch_size"],
            "num_additional_image_tokens": int(clip),
            "vision_feature_select_strategy": config["vision_feature_select_strategy"],
            "image_token": "<image>",
            "video_token": "<video>",
        }
        _write_json(output / "processor_config.json", described)
    complete_tokenizer(output, config_object(output), settings.template)
    if not (output / "generation_config.json").is_file():
        ids = {"eos_token_id": config["text_config"].get("eos_token_id")}
        _write_json(
            output / "generation_config.json", {key: id_ for key, id_ in ids.items() if id_ is not None}
        )
    if from_original or (folder / OWN_FILE).is_file():
        write_own_file(output, settings.preset, read_json(output / "config.json"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def export(adapter: Path, output: Path, *, dtype: str = "auto", legacy_keys: bool = False) -> None:
    """Write the merged model to `output`, in the number format of the base or in `dtype`; with `legacy_keys`
    under the names that transformers 4 wrote.

    The sum is made in float32 whatever the format. Raises ModelError for an adapter or base that cannot be
    used, ResourceError if `output` cannot be written: then nothing is left there.
    """
    from vidllava.backbone.adapter import merge_adapter  # peft, for adapters alone

    found = _type_of(bases(adapter)[-1]) if dtype == "auto" else dtype
    backbone = load_backbone(str(adapter), device="cpu", dtype="float32", merge=False)
    merge_adapter(backbone)
    backbone.to(DTYPES[found])
    aside = output.with_name(f".{output.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with torch.no_grad():
            backbone.save(aside)
        if legacy_keys:
            rename_weights(aside, legacy_name)
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
