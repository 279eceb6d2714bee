"""From what ``--model`` says to a checked folder: before torch is imported, and without a network.

A short name, a hub id or a folder. The network is touched by ``download=True`` alone; everything else looks
at this machine and says in one line what is missing and which command brings it.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from vidllava.backbone.presets import MODELS
from vidllava.backbone.settings import ADAPTER_MODEL_CONFIG, config_path, read_json
from vidllava.errors import ModelError, UsageError
from vidllava.files.identity import files_identity

AUTO_MODEL = "onevision-0.5b"
WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What makes a folder one or the other: both at once would be read as something else.
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_MODEL_CONFIG)
WHOLE_FILES = ("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own limit
_MOST_ADAPTERS = 8
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
        raise UsageError("--model", "is empty", f"one of {', '.join(MODELS)}, a hub id, or a folder")
    if name == "auto":
        name = AUTO_MODEL if download or cached_folder(str(MODELS[AUTO_MODEL].hub_id)) else "nano"
    folder = _folder(name, download=download, revision=revision)
    if is_adapter(folder):
        bases(folder, download=download)
    else:
        check_folder(folder)
    return name, folder


def is_adapter(folder: Path) -> bool:
    """Whether ``folder`` holds LoRA weights that need another model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "model.safetensors").exists()


def bases(folder: Path, *, download: bool = False) -> list[Path]:
    """The folders under an adapter, from the nearest to the whole model; all are checked.

    Raises ModelError for a base that is not here, and for more adapters over one another than anyone means;
    UsageError without peft.
    """
    if importlib.util.find_spec("peft") is None:
        raise UsageError(folder, "is a LoRA adapter, which needs peft", "pip install 'vidllava[lora]'")
    found = [folder]
    while is_adapter(found[-1]):
        here = found[-1]
        read_json(config_path(here))
        _check_safetensors(here / ADAPTER_WEIGHTS)
        name = read_json(here / ADAPTER_CONFIG).get("base_model_name_or_path")
        try:
            found.append(_folder(str(name), download=download, revision=None))
        except ModelError as fault:
            what = f"is an adapter for {name}, which cannot be used: {fault.what}"
            hint = f"put it back, or name it as base_model_name_or_path in {ADAPTER_CONFIG}"
            raise ModelError(here, what, hint) from None
        if len(found) > _MOST_ADAPTERS:
            raise ModelError(folder, f"stands on more than {_MOST_ADAPTERS} adapters", "export one of them")
    check_folder(found[-1])
    return found[1:]


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


def _folder(name: str, *, download: bool, revision: str | None) -> Path:
    if name == "nano":
        return nano_folder()
    path = Path(name).expanduser()
    is_folder = os.path.isdir(path)  # False, not an error, for what cannot be a folder's name
    if name not in MODELS and (is_folder or _looks_like_path(name)):
        if not is_folder:
            raise ModelError(
                name, "no such folder", "a checkpoint folder, a hub id, or: vidllava models list"
            )
        return path
    hub_id = str(MODELS[name].hub_id) if name in MODELS else name
    if hub_id.count("/") != 1:
        raise ModelError(
            name, "unknown model", f"one of {', '.join(MODELS)}, a hub id (owner/name), or a folder"
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


def check_folder(folder: Path) -> None:
    """Refuse a folder whose weights are missing, torn, pickled, or outside it. Reads headers only.

    Raises ModelError naming the file and what was found.
    """
    read_json(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    names = sorted(set(_weight_map(index).values())) if index.exists() else ["model.safetensors"]
    for name in names:
        if Path(name).name != name:
            raise ModelError(
                index, f"names a file outside the folder: {name!r}", "download the model from its own place"
            )
        path = folder / name
        if not path.exists():
            pickled = sorted(p.name for p in folder.glob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"})
            hint = "download the model again"
            if pickled:
                hint = f"{pickled[0]} is a pickle and is not loaded: convert it to safetensors"
            raise ModelError(folder, f"no {name}", hint)
        _check_safetensors(path)


def _weight_map(index: Path) -> dict[str, str]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise ModelError(index, "has no weight_map of tensor names to files", "download it again")
    return table


def _check_safetensors(path: Path) -> None:
    """Header length, header JSON and file size must agree (format: 8-byte length, JSON, then the data)."""
    if not path.is_file():
        raise ModelError(path, "not a regular file" if path.exists() else "no such file", "download it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise ModelError(path, "is a Git LFS pointer, not weights", "run: git lfs pull")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT_BYTES):
            raise ModelError(path, f"is not a safetensors file ({size} bytes)", "download it again")
        try:
            header = json.loads(file.read(length))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
            raise ModelError(path, "has a damaged safetensors header", "download it again") from None
    if 8 + length + end != size:
        raise ModelError(
            path, f"is torn: {size} bytes, its header promises {8 + length + end}", "download it again"
        )
