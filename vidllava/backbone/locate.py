"""The checked folder of a model, from what ``--model`` says: before torch is imported, without a network.

A short name, a hub id or a folder. The network is touched by ``download=True`` alone; everything else looks
at this machine and says in one line what is missing and which command brings it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from vidllava.backbone.folders import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL_CONFIG,
    ADAPTER_WEIGHTS,
    MOST_ADAPTERS,
    base_of,
    cached_folder,
    find_folder,
    is_adapter,
    part_of,
    read_json,
)
from vidllava.backbone.headers import Tensor, read_header, read_tensors
from vidllava.backbone.parts import check_parts
from vidllava.errors import ModelError, UsageError
from vidllava.files.identity import files_identity
from vidllava.models import named_models

AUTO_MODEL = "onevision-0.5b"
# What makes a folder one or the other: both at once would be read as something else.
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_MODEL_CONFIG)
WHOLE_FILES = ("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_PICKLED_ADAPTER = "adapter_model.bin"
# Settings of LoRA that change more than the two factors and their scale, with the value that does not.
_PLAIN = {
    "bias": "none",
    "trainable_token_indices": None,
    "target_parameters": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "monteclora_config": None,
    "kasa_config": None,
    "velora_config": None,
    "use_qalora": False,
    "use_bdlora": None,
    "lora_bias": False,
    "megatron_config": None,
}
_ENDINGS = (".safetensors", ".json", ".txt", ".jinja", ".model")
# Of a run: they lie beside its weights and decide no answer.
_OF_TRAINING = (
    "optimizer.safetensors",
    "random.safetensors",
    "trainer_state.json",
    "settings.json",
    "finished.json",
)


def locate(name: str, *, download: bool = False, revision: str | None = None) -> tuple[str, Path]:
    """Resolve ``name`` to (the name to show, a folder whose files were checked).

    ``auto`` is OneVision 0.5B where it is in the hub cache or may be downloaded, else nano.
    Raises ModelError if there is no such model here or its files are damaged.
    """
    if not name:
        raise UsageError("--model", "is empty", f"one of {', '.join(named_models())}, a hub id, or a folder")
    if name == "auto":
        name = AUTO_MODEL if download or cached_folder(str(named_models()[AUTO_MODEL].hub_id)) else "nano"
    folder = find_folder(name, download=download, revision=revision)
    whole = bases(folder, download=download)[-1] if is_adapter(folder) else folder
    check_parts(folder, check_folder(whole))
    return name, folder


def bases(folder: Path, *, download: bool = False) -> list[Path]:
    """The folders under an adapter, from the nearest to the whole model, whose weights are not looked at.

    Raises ModelError for a base that is not here, and for more adapters over one another than anyone means;
    UsageError without peft.
    """
    if importlib.util.find_spec("peft") is None:
        raise UsageError(folder, "is a LoRA adapter, which needs peft", "pip install 'vidllava[lora]'")
    found = [folder]
    while is_adapter(found[-1]):
        here = found[-1]
        _check_adapter(here)
        found.append(base_of(here, download=download))
        if len(found) > MOST_ADAPTERS:
            raise ModelError(folder, f"stands on more than {MOST_ADAPTERS} adapters", "export one of them")
    part_of(folder, ADAPTER_MODEL_CONFIG, "config.json")
    return found[1:]


def _check_adapter(folder: Path) -> None:
    """Refuse what cannot be served: another kind than LoRA, LoRA that changes more than its two factors."""
    content = read_json(folder / ADAPTER_CONFIG)
    if content.get("peft_type") != "LORA":
        raise ModelError(folder, f"is a {content.get('peft_type')} adapter", "only LoRA is read")
    for key, plain in _PLAIN.items():
        value = content.get(key)
        if value and value != plain:
            what = f"is a LoRA adapter with {key} {json.dumps(value)[:60]}, which is not supported"
            raise ModelError(folder, what, "merge it into its base with peft's merge_and_unload")
    if not (folder / ADAPTER_WEIGHTS).exists() and (folder / _PICKLED_ADAPTER).exists():
        what = f"is a pickle and is not loaded; there is no {ADAPTER_WEIGHTS}"
        raise ModelError(folder / _PICKLED_ADAPTER, what, "convert it to safetensors")
    read_header(folder / ADAPTER_WEIGHTS)


def weights_identity(folder: Path) -> str:
    """The identity of a model by the whole content of every file that decides an answer.

    Weights, configuration, tokenizer and template; of an adapter its own files and those of every model under
    it. Where the folders lie changes nothing. Remembered, see ``vidllava.files.identity``.
    """
    return files_identity(weights_files(folder))


def weights_files(folder: Path) -> list[Path]:
    """The files that ``weights_identity`` reads, folder by folder from the nearest."""
    places = [folder, *bases(folder)] if is_adapter(folder) else [folder]
    return [path for place in places for path in sorted(place.iterdir()) if _decides(path)]


def _decides(path: Path) -> bool:
    return path.suffix in _ENDINGS and path.name not in _OF_TRAINING and path.is_file()


def check_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a whole model's folder. Reads headers only.

    Raises ModelError for weights that are missing, torn, pickled, or outside it, naming what was found.
    """
    read_json(folder / "config.json")
    return read_tensors(folder)
