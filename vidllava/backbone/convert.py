"""A checkpoint written again in another layout, transformers' or lmms-lab's, or an adapter as a whole model.

    convert(folder, Path("out"), to="hf")                        # or to="original"
    convert(folder, Path("out"), to="hf", legacy_keys=True)      # for transformers 4, vLLM and SGLang

Tensor by tensor, from memory-mapped files into shards: the model is never in memory as a whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidllava.backbone.completion import complete_processor, complete_tokenizer, rows_wanted
from vidllava.backbone.familiarity import WEIGHTS_FILE, read_world
from vidllava.backbone.folders import is_adapter
from vidllava.backbone.headers import Tensor, read_tensors
from vidllava.backbone.load import DTYPES, config_object, load_backbone
from vidllava.backbone.locate import bases
from vidllava.backbone.model import COMPANION_FILES
from vidllava.backbone.settings import OWN_FILE, read_config, read_settings, stored_config, write_own_file
from vidllava.backbone.tokenizer_model import tokenizer_json
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError, ResourceError, UsageError
from vidllava.files.writing import flush_to_disk, flush_tree, write_json
from vidllava.models.family import Preset, tensor_shapes
from vidllava.models.original import hf_name, legacy_name, original_config, original_name, unused

Layout = Literal["hf", "original"]
SHARD_BYTES = 5_000_000_000
"""As transformers cuts large models."""
_EMBEDDINGS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_OLD_TOWER, _TOWER = "vision_tower.vision_model.", "vision_tower."


def convert(
    folder: Path,
    output: Path,
    *,
    to: Layout,
    legacy_keys: bool = False,
    dtype: str = "auto",
    shard_bytes: int = SHARD_BYTES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, ...]:
    """Write the model in ``folder`` to ``output``, which is not there yet; returns notes for people.

    ``dtype``: number format of the weights; auto keeps each as it is, bit for bit. ``on_progress`` hears of
    tensors done and in all. Raises ModelError, before anything is written, for a tensor that is missing,
    unexpected or of another shape; UsageError where ``output`` is there; ResourceError if it cannot be
    written: then nothing is left there.
    """
    if output.exists() or output.is_symlink():
        raise UsageError(output, "exists", "name a folder that is not there yet")
    if is_adapter(folder):
        raise ModelError(folder, "is an adapter, not a whole model", "vidllava models export makes it one")
    config = config_object(folder).to_dict()
    named = _named(folder, config)
    rows = None
    if to == "hf" and stored_config(folder) is not None:
        rows = rows_wanted(config, named[_EMBEDDINGS[0]][1].shape[0])
    if rows is not None:
        config["text_config"]["vocab_size"] = rows
    notes: tuple[str, ...] = ()
    if rows is not None:
        old = named[_EMBEDDINGS[0]][1].shape[0]
        notes = (f"{rows - old} rows were added to the embeddings, means of the others: nothing reads them",)
    if dtype != "auto":
        _say_dtype(config, dtype)
    rename = original_name if to == "original" else legacy_name if legacy_keys else _today
    with _written(output) as aside:
        tensors = _read(folder, named, rows, dtype)
        _write_files(folder, aside, config, to=to, is_changed=rows is not None or dtype != "auto")
        _write_shards(aside, tensors, rename, shard_bytes, lambda done: on_progress(done, len(named)))
        world = read_world(folder)
        if world is not None and to == "hf" and dtype == "auto" and (aside / WEIGHTS_FILE).is_file():
            world.save(aside)  # the same numbers in another file
        for part in aside.glob("*.safetensors"):
            shutil.copymode(aside / "config.json", part)  # safetensors writes for the owner alone
    return notes


@contextmanager
def _written(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its place when all is in it and on disk; else nothing is left.

    Raises ResourceError where it cannot be written.
    """
    aside = output.with_name(f".{output.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        flush_tree(aside)
        aside.rename(output)
        flush_to_disk(output.absolute().parent)
    except (OSError, SafetensorError) as fault:
        raise ResourceError(output, f"could not be written: {fault}", "make room") from fault
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def rename_weights(folder: Path, rename: Callable[[str], str]) -> None:
    """Write the weights of a folder in transformers' layout again, under other names."""
    config = config_object(folder).to_dict()
    named = _named(folder, config)
    aside = folder / ".renamed"
    aside.mkdir()
    _write_shards(aside, _read(folder, named, None, "auto"), rename, SHARD_BYTES, lambda done: None)
    for old in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        old.unlink()
    for new in aside.iterdir():
        shutil.copymode(folder / "config.json", new)
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

    Raises ModelError for a missing or an unexpected one, naming the first three, and for one whose shape is
    not what the configuration says.
    """
    to_memory = memory_name if stored_config(folder) is None else hf_name
    stored = ((to_memory(name), name, tensor) for name, tensor in read_tensors(folder).items())
    found = {here: (name, tensor) for here, name, tensor in stored if here is not None}
    found = {name: one for name, one in found.items() if name not in unused(config)}
    wanted = dict(tensor_shapes(config))
    missing, odd = sorted(wanted.keys() - found), sorted(found.keys() - wanted - {"lm_head.weight"})
    for kind, names in (("missing", missing), ("unexpected", odd)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            what = f"{kind} weights: {', '.join(names[:3])}{more}"
            raise ModelError(folder, what, "convert a whole checkpoint")
    head = wanted[_EMBEDDINGS[0]]  # of a tied head, too, where one is stored
    for name, (stored_name, tensor) in found.items():
        shape = wanted.get(name, head)
        if tensor.shape != shape:
            what = f"{stored_name} is {list(tensor.shape)}, the configuration asks for {list(shape)}"
            raise ModelError(folder, what, "use the files of one checkpoint")
    return dict(sorted(found.items()))


def _say_dtype(config: dict[str, Any], dtype: str) -> None:
    """Every place of a configuration in transformers' layout that names the number format."""
    for part in (config, config["text_config"], config["vision_config"]):
        for key in ("dtype", "torch_dtype"):
            if part is config or part.get(key) is not None:
                part.pop(key, None)
                part["dtype"] = dtype


def _read(
    folder: Path, named: Mapping[str, tuple[str, Tensor]], rows: int | None, dtype: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in memory, value), file by file, in ``dtype``; embeddings with so many rows."""
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
                yield name, value if dtype == "auto" else value.to(DTYPES[dtype])


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
        size = value.nbytes
        if held and sum(one.nbytes for one in held.values()) + size > shard_bytes:
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
    write_json(folder / "model.safetensors.index.json", index)


_COPIED = (*COMPANION_FILES, "generation_config.json", "tokenizer.model")


def _write_files(folder: Path, output: Path, config: dict[str, Any], *, to: Layout, is_changed: bool) -> None:
    """Configuration, tokenizer, processor and what else belongs to a folder of this layout."""
    from_original = stored_config(folder) is not None
    for name in _COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, output / name)
    if to == "hf" and (made := tokenizer_json(folder)).is_file():
        shutil.copyfile(made, output / "tokenizer.json")  # its own, or that of its tokenizer.model
    settings = read_settings(folder, folder.name)
    if to == "original":
        write_json(output / "config.json", _in_their_layout(folder, config, settings.preset, is_changed))
        if (folder / OWN_FILE).is_file():
            shutil.copyfile(folder / OWN_FILE, output / OWN_FILE)
        return
    if not from_original and not is_changed:
        config = read_config(folder)  # as it was written
    write_json(output / "config.json", config)
    complete_processor(output, config)
    complete_tokenizer(output, config_object(output), settings.template)
    if not (output / "generation_config.json").is_file():
        write_json(output / "generation_config.json", {"eos_token_id": read_codec(output).eos()})
    if from_original or (folder / OWN_FILE).is_file():
        write_own_file(output, settings.preset, config)


def _in_their_layout(
    folder: Path, config: Mapping[str, Any], preset: Preset, is_changed: bool
) -> dict[str, Any]:
    """lmms-lab's config.json: their own where there is one, with how clips are read by the preset."""
    own = stored_config(folder)
    if own is None:
        own = original_config(config)
        if config["model_type"] == "llava_onevision":
            own |= {"mm_newline_position": preset.newline_mode, "mm_spatial_pool_mode": preset.pool_mode}
            if preset.time_instruction:
                own["add_time_instruction"] = True
    if is_changed:
        own["torch_dtype"] = config["dtype"]
    return own


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
    with _written(output) as aside, torch.no_grad():
        backbone.save(aside)
        if legacy_keys:
            rename_weights(aside, legacy_name)


def _type_of(base: Path) -> str:
    """The number format of most of a model's weights."""
    counts: dict[str, int] = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                piece = file.get_slice(name)
                counts[piece.get_dtype()] = counts.get(piece.get_dtype(), 0) + 1
    return _TYPES.get(max(counts, key=lambda kind: counts[kind], default="F32"), "float32")
