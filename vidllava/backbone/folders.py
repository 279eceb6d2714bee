"""The files of a model: its folder by name, and each file in that folder or in the base of an adapter.

    folder = find_folder("onevision-0.5b")
    part_of(folder, "tokenizer.json")

A short name, a hub id or a folder. The network is touched by ``download=True`` alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vidllava.errors import ModelError
from vidllava.models import named_models

WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_MODEL_CONFIG = "model_config.json"
"""The whole model's configuration in an adapter's folder. Of the usual name, plain ``from_pretrained`` would
take the folder for a whole model and not look for its base."""

MOST_ADAPTERS = 8
"""Adapters over one another that anyone means."""


def is_adapter(folder: Path) -> bool:
    """Whether ``folder`` holds LoRA weights that need another model."""
    return (folder / ADAPTER_CONFIG).is_file() and not any(
        (folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")
    )


def base_of(folder: Path, *, download: bool = False) -> Path:
    """The folder of the model that the adapter in ``folder`` stands on. Raises ModelError."""
    name = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    hint = f"put it back, or name it as base_model_name_or_path in {ADAPTER_CONFIG}"
    if not isinstance(name, str) or not name:
        raise ModelError(folder, "is an adapter that does not name its base", hint)
    try:
        return find_folder(name, download=download)
    except ModelError as fault:
        what = f"is an adapter for {name}, which cannot be used: {fault.what}"
        raise ModelError(folder, what, hint) from None


def part_of(folder: Path, *names: str) -> Path:
    """Where a file of the model in ``folder`` stands, called by the first of ``names`` that is there.

    An adapter as peft, trl, LLaMA-Factory or swift save it has the rest of its model in its base. Where there
    is no such file, it is the last name in the last folder. Raises ModelError for a base that is not here.
    """
    for _ in range(MOST_ADAPTERS + 1):
        for name in names:
            if (folder / name).is_file():
                return folder / name
        if not is_adapter(folder):
            break
        folder = base_of(folder)
    return folder / names[-1]


def find_folder(name: str, *, download: bool = False, revision: str | None = None) -> Path:
    """The folder of a short name, a hub id or a path. Raises ModelError where there is none here."""
    if name == "nano":
        return nano_folder()
    path = Path(name).expanduser()
    is_folder = os.path.isdir(path)  # False, not an error, for what cannot be a folder's name
    if name not in named_models() and (is_folder or _looks_like_path(name)):
        if not is_folder:
            raise ModelError(
                name, "no such folder", "a checkpoint folder, a hub id, or: vidllava models list"
            )
        return path
    hub_id = str(named_models()[name].hub_id) if name in named_models() else name
    if hub_id.count("/") != 1:
        raise ModelError(
            name, "unknown model", f"one of {', '.join(named_models())}, a hub id (owner/name), or a folder"
        )
    if download:
        return pull(hub_id, revision=revision)
    found = cached_folder(hub_id, revision=revision)
    if found is None:
        raise ModelError(name, "not on this machine", f"get it with: vidllava models pull {name}")
    return found


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or name.endswith("/")


def nano_folder() -> Path:
    """Where the embedded model's files lie."""
    return Path(__file__).parents[1] / "nano" / "weights"


def cached_folder(hub_id: str, revision: str | None = None) -> Path | None:
    """The newest snapshot of ``hub_id`` in the hub cache, or None. Reads folders only."""
    home = Path(os.environ.get("HF_HOME") or Path(_cache_home()) / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = cache / ("models--" + hub_id.replace("/", "--"))
    reference = repository / "refs" / (revision or "main")
    try:
        commit = reference.read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision or ""
    snapshot = repository / "snapshots" / commit
    return snapshot if commit and (snapshot / "config.json").is_file() else None


def _cache_home() -> str:
    return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


def pull(hub_id: str, revision: str | None = None) -> Path:
    """Download ``hub_id`` (safetensors and text files) into the hub cache. Touches the network."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=list(WEIGHT_FILES))
    except RepositoryNotFoundError:
        raise ModelError(
            hub_id,
            "no such repository on the hub, or no access to it",
            "check the name, and HF_TOKEN for a private one",
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as fault:
        raise ModelError(hub_id, f"download failed: {type(fault).__name__}", "is there a network?") from None
    return Path(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``, or ModelError naming the file and the place."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            path.parent, f"no {path.name}", "a checkpoint folder in transformers' format"
        ) from None
    except json.JSONDecodeError as fault:
        what = f"not JSON: {fault.msg} at line {fault.lineno}"
        raise ModelError(path, what, "download or save it again") from None
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(path, f"cannot be read: {fault}", "download or save it again") from None
    if not isinstance(data, dict):
        what = f"holds a {type(data).__name__}, not an object"
        raise ModelError(path, what, "download or save it again")
    return data
