"""The cache of features: what the tower made of media before, by content, plan, model and machine.

    cache = FeatureCache(backbone, CacheFolder.of_environment())
    key = cache.key(item, reuse_frames=True)
    entry = cache.find(key)

A key names everything that can change a bit of the result: the file's content (a hash of all its bytes; of
a picture, of its pixels), the frames, the decoder and the libraries under it, the model (a hash of all its
files), the number format, and how this machine computes. So a hit is what would have been computed. Entries
are safetensors with a check sum; one that is not whole does not count.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from safetensors.torch import load, save

import vidllava
from vidllava.backbone.locate import weights_identity
from vidllava.backbone.model import Backbone
from vidllava.backbone.tower import vision_tower
from vidllava.errors import MediaError
from vidllava.files.cache_folder import CacheFolder
from vidllava.files.identity import FileStamp, content_hash, media_identity
from vidllava.media.container import decoder_versions
from vidllava.media.decoders import decoder_version
from vidllava.media.picture_folder import CONTAINER
from vidllava.visuals.question import MediaItem

# Raise it with every change of ours to what the tower sees or does.
FORMAT = 2
MEMORY_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class Entry:
    """One visual: features [num_distinct * cells, hidden]; ``source`` says which of them each grid has."""

    features: torch.Tensor
    source: tuple[int, ...]
    indices: tuple[int, ...] | None
    """The frames really decoded; None for a picture."""
    timestamps_seconds: tuple[float, ...] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """Names one entry. ``text`` is what it stands for, as JSON; ``stamp`` the state of its file."""

    text: str
    path: str
    stamp: FileStamp | None

    @property
    def name(self) -> str:
        digest = hashlib.blake2b(self.text.encode(), digest_size=20).hexdigest()
        return f"features/{digest}.safetensors"


class FeatureCache:
    """A small memory before a folder on disk. ``folder`` None keeps nothing on disk."""

    def __init__(
        self, backbone: Backbone, folder: CacheFolder | None, *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._backbone = backbone
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._unwritten: list[tuple[Key, Entry]] = []
        self._notes: list[str] = []

    @cached_property
    def _model(self) -> list[Any] | None:
        """Read with the first key: a prompt without media reads no weights for it."""
        return _model_identity(self._backbone)

    def key(self, item: MediaItem, *, reuse_frames: bool) -> Key | None:
        """The key of one planned item; None where it cannot be named surely. Raises MediaError."""
        if self._model is None:
            return None
        stamp = None
        if item.picture is not None:
            content: str | None = hashlib.blake2b(item.picture.tobytes(), digest_size=32).hexdigest()
            # Sizes too: the same bytes may be another picture.
            read: dict[str, Any] = {"shape": item.picture.shape, "pinpoints": item.pinpoints}
        else:
            if item.info is not None and item.info.container == CONTAINER:
                content = media_identity(item.path, self._folder)
            else:
                stamp = FileStamp.of(item.path)
                content = content_hash(item.path, self._folder)
            read = _reading(item)
        if content is None:
            return None
        described = {
            "format": FORMAT,
            "vidllava": vidllava.__version__,
            "content": content,
            "kind": item.layout.kind,
            "read": read,
            "reuse_frames": reuse_frames,
            "at": self._backbone.pools_at(item.layout),
            "model": self._model,
            "machine": _machine(self._backbone),
        }
        return Key(json.dumps(described, sort_keys=True), item.path, stamp)

    def find(self, key: Key) -> tuple[Entry, str] | None:
        """(entry, ``memory`` or ``disk``), or None."""
        if key.text in self._memory:
            self._memory.move_to_end(key.text)
            return self._memory[key.text], "memory"
        data = self._folder.read(key.name) if self._folder is not None else None
        entry = None if data is None else unpack(data, key)
        if entry is None:
            return None
        self._remember(key, entry)
        return entry, "disk"

    def keep(self, key: Key, entry: Entry) -> None:
        """Remember an entry, unless its file changed meanwhile; ``flush`` writes it to disk."""
        try:
            if key.stamp is not None and FileStamp.of(key.path) != key.stamp:
                return
        except MediaError:
            return
        self._remember(key, entry)
        self._unwritten.append((key, entry))

    def flush(self) -> None:
        """Write what is new; a folder that cannot be written is noted once, and the answer goes on."""
        unwritten, self._unwritten = self._unwritten, []
        for key, entry in unwritten:
            if self._folder is None:
                return
            try:
                self._folder.write(key.name, pack(entry, key))
            except OSError as fault:
                self._notes.append(f"features were not cached: {self._folder.path}: {fault.strerror}")
                self._folder = None

    def take_notes(self) -> tuple[str, ...]:
        """What went wrong with the folder since the last call, for people; it never changes an answer."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def _remember(self, key: Key, entry: Entry) -> None:
        entry = _on(entry, self._backbone.device)
        if entry.features.nbytes > self._memory_bytes:
            return
        self._memory[key.text] = entry
        self._memory.move_to_end(key.text)
        while sum(kept.features.nbytes for kept in self._memory.values()) > self._memory_bytes:
            self._memory.popitem(last=False)


def pack(entry: Entry, key: Key) -> bytes:
    """The bytes of an entry's file."""
    about = {name: value for name, value in vars(entry).items() if name != "features"}
    features = entry.features.detach().cpu().contiguous()
    head = {"key": key.text, "entry": json.dumps(about), "checksum": _checksum(features)}
    return save({"features": features}, metadata=head)


def unpack(data: bytes, key: Key) -> Entry | None:
    """The entry that ``pack`` wrote for ``key``; None for anything else."""
    try:
        length = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + length])["__metadata__"]
        features = load(data)["features"]
        about = json.loads(head["entry"])
        if head["key"] != key.text or head["checksum"] != _checksum(features):
            return None
        indices, times = about["indices"], about["timestamps_seconds"]
        return Entry(
            features=features,
            source=tuple(about["source"]),
            indices=None if indices is None else tuple(indices),
            timestamps_seconds=None if times is None else tuple(times),
            notes=tuple(about["notes"]),
        )
    except Exception:  # whatever damaged bytes make a parser stumble over
        return None


def _checksum(features: torch.Tensor) -> str:
    raw = features.reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(raw.data, digest_size=16).hexdigest()


def _on(entry: Entry, device: torch.device) -> Entry:
    return Entry(**{**vars(entry), "features": entry.features.to(device)})


def _reading(item: MediaItem) -> dict[str, Any]:
    """Which frames of a file, and how they become pixels."""
    info, plan = item.info, item.plan
    assert info is not None  # a planned item is a clip or a picture
    assert plan is not None
    ticks = None if info.frame_ticks is None else info.frame_ticks[list(plan.indices)].tolist()
    versions = decoder_versions()
    if item.backend not in (None, "pyav"):
        versions[item.backend] = decoder_version(item.backend)
    return {
        "indices": plan.indices,
        "timestamps_seconds": plan.timestamps_seconds,
        "ticks": ticks,
        "time_base": str(info.time_base),
        "stream": info.stream_index,
        "upright": (info.width, info.height, info.rotation, info.mirrored),
        "backend": item.backend,
        "decoders": versions,
    }


def _model_identity(backbone: Backbone) -> list[Any] | None:
    """The weights by their whole content, and what is set besides; None without a folder."""
    folder = backbone.settings.folder
    if folder is None:
        return None
    settings = {name: value for name, value in asdict(backbone.settings).items() if name != "folder"}
    return [weights_identity(folder), json.dumps(settings, sort_keys=True, default=str)]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def _machine(backbone: Backbone) -> dict[str, Any]:
    """What else decides the last bits of a feature."""
    device = backbone.device
    on_cpu = device.type == "cpu"
    vision = backbone.hf.config.vision_config
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": str(vision_tower(backbone.hf).embeddings.patch_embedding.weight.dtype),
        "device": device.type,
        "name": _device_name(device),
        "threads": torch.get_num_threads() if on_cpu else None,
        "attention": getattr(vision, "_attn_implementation", None),
    }
